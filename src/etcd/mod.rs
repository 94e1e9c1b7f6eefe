//! One real etcd: find the binary and its version, choose its settings, supervise the process, talk to it.
//!
//! Knows nothing about snapshots. `binary` and `embedded` find something to run, `settings` knows what each version
//! calls things, `supervisor` owns the running child (its module header has the states), `child` is what others see of
//! it, `process` spawns it, `orphan` deals with one that a killed launcher left behind, `output` turns what it prints
//! into log events, `client` asks it questions.

pub mod binary;
pub mod child;
pub mod client;
pub(crate) mod data_state;
pub mod embedded;
pub mod installed;
pub mod orphan;
pub mod output;
mod payload;
pub mod pinned;
pub mod process;
pub mod running;
pub mod settings;
pub mod supervisor;
