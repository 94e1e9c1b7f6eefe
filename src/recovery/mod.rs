//! From a snapshot, or from what is left of a cluster, to data that an etcd runs on: for the worse it never goes.
//!
//! `build` makes a new data directory beside the one that is there, `exchange` puts it in its place by renames that a `journal` tells
//! of, so that whatever breaks off goes back or is finished at the next start; `gate` runs an etcd on it that no client can reach, and
//! looks whether it is what was built. `place` holds the directories that this is done in. `replay` lets one read a log to its end in a copy; both start it as a `trial`. `old` knows the data that were set aside.
//! What may be done is decided in `plan::restore`; the order is that of `server::reset`.

pub mod build;
pub mod drill;
pub(crate) mod dry_run;
pub mod error;
pub mod gate;
pub mod isolated_etcd;
pub mod journal;
pub(crate) mod pre_restore_snapshot;
pub mod replay;
pub(crate) mod resume;
pub mod retired;
pub mod run;
pub(crate) mod stage;
pub mod swap;
pub(crate) mod undo;
pub mod workspace;
