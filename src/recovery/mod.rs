//! From a snapshot, or from what is left of a cluster, to data that an etcd runs on; until they are verified, there is a way back.
//!
//! `operation` has the steps: prepare, swap, verify, commit, roll back. `stage` and `undo` prepare: `build` makes a new data directory
//! beside the one in use, `replay` has an etcd read the log to its end in a copy first. `swap` puts it in place by renames in the
//! directories that `workspace` holds open, `gate` runs an `isolated_etcd` on it that no client can reach and compares it with what was
//! built. The `journal` records each step, and `resume` finishes or rolls back what was interrupted. `retired` knows the data that were set
//! aside, `drill` tries a snapshot without touching anything. What may be done is decided in `plan::restore`.

pub mod build;
pub mod drill;
pub(crate) mod dry_run;
pub mod error;
pub mod expected;
pub mod gate;
pub mod isolated_etcd;
pub mod journal;
pub(crate) mod operation;
pub(crate) mod paths;
pub(crate) mod pre_restore_snapshot;
pub mod replay;
pub mod report;
pub(crate) mod resume;
pub mod retired;
pub(crate) mod stage;
mod step;
pub mod swap;
pub(crate) mod undo;
pub mod workspace;
