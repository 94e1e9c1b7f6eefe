//! The only module through which files are written.
//!
//! Given bytes and a path, the file is either complete, with the requested mode and safe against power loss, or as it
//! was before: the bytes are written to a hidden file in the same directory, which is fsynced and renamed, then the
//! directory is fsynced. An fsync error is final for that file (a retry proves nothing, since Linux drops the dirty
//! pages). Nothing here knows about etcd.

mod access;
mod change;
mod chase;
mod dir;
mod draft;
mod error;
mod file;
mod held;
mod leftover;
mod names;
mod range;
mod refusal;
mod sweep;
mod temporary;
mod tree;

pub use access::{Access, EXECUTABLE, PRIVATE_DIR, PRIVATE_FILE};
pub use dir::{create_dir, create_dir_all, remove_dir_all, rename, set_mode, set_owner, sync_dirs};
pub use draft::{NewDir, NewFile, new_dir};
pub use error::{OnPath, WriteError};
pub use file::{
    anonymous, create, open_lock, open_read_write, remove_file, rewrite_open, set_length, sync, write_at, write_file,
    write_if_changed, write_stream,
};
pub use held::DirHandle;
pub use range::{copy_range, reserve, write_back};
pub use refusal::DirError;
pub use sweep::{sweep, sweep_named};
