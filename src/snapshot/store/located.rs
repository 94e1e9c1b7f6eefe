//! A snapshot that was found, and what people are told on the way.

use std::path::PathBuf;

use crate::error::AppError;
use crate::snapshot::store::remote::RemoteSnapshot;

/// What people are told while a snapshot is looked for.
pub enum Notice<'a> {
    /// Object storage could not be looked into, and that does not matter: this is why.
    Unseen(&'a AppError),
    /// This one is passed over, or verified first.
    Considered(String),
    Chosen(String),
}

#[derive(Debug)]
pub enum Located {
    Local(PathBuf),
    Remote(Box<RemoteSnapshot>),
}
