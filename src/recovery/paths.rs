//! The paths of a recovery, as its journal records them.

use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryPaths {
    pub current: PathBuf,
    pub staged: PathBuf,
    /// Where the data in use go, if there are any.
    pub old: Option<PathBuf>,
    /// The directory for everything that is only needed meanwhile.
    pub work: PathBuf,
}
