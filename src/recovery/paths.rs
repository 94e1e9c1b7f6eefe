//! The paths of a recovery, as its journal records them.

use std::path::PathBuf;

/// Where the data are, and what is exchanged with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryPaths {
    /// The data in use.
    pub current: PathBuf,
    /// Where new data are built.
    pub staged: PathBuf,
    /// Where the data in use go, if there are any.
    pub old: Option<PathBuf>,
    /// The directory for everything that is only needed meanwhile.
    pub work: PathBuf,
}
