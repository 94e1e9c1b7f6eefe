//! Snapshots: what they are called, what is in them, whether they are whole, and their life on disk.
//!
//! `inspect` looks into a database, `file` opens a snapshot in any of its packings, `verify` says whether one is good;
//! `live` reads the database of a running etcd, `usage` tells what takes the space in one.

pub mod browse;
pub mod dir;
pub mod file;
pub mod hash;
pub mod inspect;
pub mod list;
pub mod live;
pub mod manifest;
pub mod manifest_file;
pub mod prune;
pub mod save;
pub mod store;
pub mod stream;
pub mod usage;
pub mod verify;
mod zip_entries;
