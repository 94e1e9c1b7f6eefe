//! Snapshots: what they are called, what is in them, whether they are whole, and their life on disk.
//!
//! `inspect` looks into a database, `file` opens a snapshot in any of its packings, `verify` says whether one is good.

pub mod dir;
pub mod file;
pub mod inspect;
pub mod verify;
