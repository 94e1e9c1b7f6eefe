//! Answers of requests that take a while: one JSON object a line, of which the last one says how it ended.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::error::ErrorReport;

/// A line of an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event<T> {
    /// This is being done; so much of it is, of so much.
    Progress(Cow<'static, str>, u64, u64),
    /// It is done.
    Done(T),
    /// It is not.
    Failed(ErrorReport),
}
