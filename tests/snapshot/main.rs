//! Snapshots: taken, verified, listed, pruned, against real etcds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

#[path = "../kit/mod.rs"]
mod kit;

mod bounds;
mod copy;
mod drill;
mod faults;
mod leftovers;
mod mutants;
mod names;
mod prune;
mod rke1;
mod save;
mod schedule;
mod space;
mod verify;
