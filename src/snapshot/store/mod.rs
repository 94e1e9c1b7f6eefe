//! Where snapshots are stored: a directory on this node (`local`), or a bucket (`s3`), with the same operations.

pub mod local;
pub mod locate;
mod locate_error;
mod located;
mod remote;
pub mod s3;
mod select;

use crate::error::AppError;
use crate::snapshot::list::Listed;

#[derive(Debug, Default)]
pub struct Removed {
    pub gone: Vec<String>,
    /// Those that an object lock protects, with the message of the store.
    pub kept: Vec<(String, String)>,
    /// The first failure among the others.
    pub failed: Option<AppError>,
}

pub trait Store {
    fn place(&self) -> String;

    /// The location of a snapshot, a URL.
    fn location(&self, name: &str) -> String;

    /// All of them, the oldest first.
    fn list(&self) -> impl Future<Output = Result<Vec<Listed>, AppError>> + Send;

    /// Deletes some, with their manifests and holds.
    fn remove(&self, names: &[String]) -> impl Future<Output = Result<Removed, AppError>> + Send;

    fn hold(&self, listed: &Listed, held: bool) -> impl Future<Output = Result<(), AppError>> + Send;
}
