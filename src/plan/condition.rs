//! The condition of a server, and the problems that make it.

use serde::{Deserialize, Serialize};

use crate::error::Code;

/// How a server is, from good to bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    #[default]
    Healthy,
    /// Clients are served, but something needs attention.
    Degraded,
    /// Clients cannot be served, or their writes cannot be kept.
    Unhealthy,
}

impl Condition {
    pub const ALL: [Self; 3] = [Self::Healthy, Self::Degraded, Self::Unhealthy];

    /// The word for it, as in JSON and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// A problem that an operator should know about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable, for programs: `database-missing`, `disk-full` and so on.
    pub code: Code,
    pub condition: Condition,
    /// What is wrong, on what, and why.
    pub message: String,
    /// What to do or type next.
    pub next: Option<String>,
}

pub(super) fn problem(condition: Condition, code: Code, message: String, next: impl Into<Option<String>>) -> Problem {
    Problem { code, condition, message, next: next.into() }
}
