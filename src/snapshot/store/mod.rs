//! Where snapshots are kept: a directory of this node (`local`), or a bucket (`s3`). What is done with them is the same for both.

pub mod local;
pub mod locate;
mod locate_error;
mod located;
mod remote;
pub mod s3;
mod select;

use crate::error::AppError;
use crate::snapshot::list::Listed;

/// What became of snapshots that were to be removed.
#[derive(Debug, Default)]
pub struct Removed {
    pub gone: Vec<String>,
    /// These are kept by a lock, with what the store said.
    pub kept: Vec<(String, String)>,
    /// Some of the others are not, and why the first of them is not.
    pub failed: Option<AppError>,
}

pub trait Store {
    fn place(&self) -> String;

    /// Where one of them is: a URL.
    fn location(&self, name: &str) -> String;

    /// All of them, the oldest first.
    fn list(&self) -> impl Future<Output = Result<Vec<Listed>, AppError>> + Send;

    /// Removes some, with all that belongs to them.
    fn remove(&self, names: &[String]) -> impl Future<Output = Result<Removed, AppError>> + Send;

    fn hold(&self, listed: &Listed, held: bool) -> impl Future<Output = Result<(), AppError>> + Send;
}
