//! The etcd process: its binary and version, settings, supervision and client. Knows nothing about snapshots.
//!
//! `binary` and `embedded` find the executable, `settings` knows the flags of each version, `supervisor` owns the
//! running child (its module header has the states), `child` is its interface for other modules, `process` spawns it,
//! `orphan` stops one that a killed launcher left behind, `output` turns its output into log events, `client` sends
//! requests to it.

pub mod binary;
pub mod child;
pub mod client;
pub(crate) mod data_state;
pub mod embedded;
pub mod installed;
pub mod launch;
pub mod log_line;
pub mod orphan;
pub mod output;
mod payload;
pub mod pinned;
pub mod process;
pub mod running;
pub mod settings;
pub mod supervisor;
