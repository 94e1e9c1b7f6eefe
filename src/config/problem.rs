//! One thing that is wrong with the configuration, and where it was said.

use std::fmt;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OptionOrigin {
    Default,
    /// A line of a file; line 0 is the file as a whole.
    File {
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    Environment(String),
    CommandLine(String),
}

impl OptionOrigin {
    pub(super) fn sort_key(&self) -> Self {
        self.clone()
    }

    #[must_use]
    pub fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File { .. } => 1,
            Self::Environment(_) => 2,
            Self::CommandLine(_) => 3,
        }
    }
}

impl fmt::Display for OptionOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::CommandLine(name) => write!(f, "command line --{name}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    pub origin: OptionOrigin,
    /// What is wrong, and what would be valid.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}
