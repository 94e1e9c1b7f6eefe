//! A located snapshot, and the messages of the search.

use std::path::PathBuf;

use crate::error::AppError;
use crate::snapshot::store::remote::RemoteSnapshot;

/// Messages for the user during the search.
pub enum Notice<'a> {
    /// Object storage could not be searched, which is not fatal; with the reason.
    Unseen(&'a AppError),
    /// A candidate is skipped, or verified first.
    Considered(String),
    Chosen(String),
}

#[derive(Debug)]
pub enum Located {
    Local(PathBuf),
    Remote(Box<RemoteSnapshot>),
}
