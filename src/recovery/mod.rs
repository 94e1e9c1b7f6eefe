//! Reset and restore: from a snapshot, or from the remaining data of a cluster, to data that an etcd runs on; rolled
//! back unless it is verified.
//!
//! `operation` has the steps: prepare, swap, verify, commit, roll back. `stage` and `undo` prepare: `build` creates a
//! new data directory next to the one in use, `replay` applies a log in a copy first. `swap` replaces the data by
//! renames in the open directories of `workspace`, `gate` runs an `isolated_etcd` on it and compares its contents. The
//! `journal` records each step, and `resume` finishes or rolls back an interrupted operation. `retired` manages old
//! data, `drill` rehearses a restore without changing anything. `plan::restore` makes the decisions.

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
