//! What is wrong with the options of object storage.

use crate::error::{Code, Diagnostic};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{option}`: {what}")]
pub struct S3ConfigError {
    pub option: &'static str,
    /// What is wrong, and what would be valid.
    pub what: String,
}

impl Diagnostic for S3ConfigError {
    fn code(&self) -> Code {
        Code::InvalidConfiguration
    }

    fn next_step(&self) -> Option<String> {
        Some("fix it, then: quorate etcd-snapshot s3-check".into())
    }
}

pub(super) fn wrong(option: &'static str, what: impl Into<String>) -> S3ConfigError {
    S3ConfigError { option, what: what.into() }
}
