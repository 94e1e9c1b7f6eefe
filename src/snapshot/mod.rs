//! Snapshots: names, contents, verification, and files on disk and in object storage.
//!
//! `save` takes one, `live` pins the database of a running etcd, `file` opens a snapshot in any compression, `inspect`
//! checks a database, `verify` a whole snapshot, `usage` measures what uses space.

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
mod trailer;
pub mod usage;
pub mod verify;
mod zip_entries;
