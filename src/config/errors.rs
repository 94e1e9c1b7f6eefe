//! All problems of a configuration, and the command that checks it again.

use std::fmt;

use crate::config::problem::{ConfigProblem, OptionOrigin};
use crate::config::raw::RawOptions;
use crate::config::{options, recheck};
use crate::error::{Code, Diagnostic};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    pub problems: Vec<ConfigProblem>,
    /// The command that checks the same configuration again.
    pub check: String,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => write!(f, "the configuration has a problem; nothing was done")?,
            n => write!(f, "the configuration has {n} problems; nothing was done")?,
        }
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl ConfigErrors {
    /// `QUORATE_LOG` holds `filter`, which cannot be parsed.
    #[must_use]
    pub fn of_log_filter(filter: &str, error: &impl fmt::Display) -> Self {
        let given = RawOptions { log_filter: Some(filter.to_owned()), ..RawOptions::default() };
        Self { problems: vec![log_filter_problem(filter, error)], check: recheck::command(&given) }
    }
}

pub(super) fn log_filter_problem(filter: &str, error: &impl fmt::Display) -> ConfigProblem {
    let shown = crate::text::escape_control(filter);
    ConfigProblem {
        origin: OptionOrigin::Environment(options::LOG_VARIABLE.into()),
        message: format!("`{shown}` is not a log filter such as `quorate=debug,etcd=warn`: {error}"),
    }
}

impl Diagnostic for ConfigErrors {
    fn code(&self) -> Code {
        Code::InvalidConfiguration
    }

    fn next_step(&self) -> Option<String> {
        let these = if self.problems.len() == 1 { "it" } else { "them" };
        Some(format!("fix {these}, then check with: {}", self.check))
    }
}
