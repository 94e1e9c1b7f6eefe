//! Snapshots: taken, verified, listed, pruned, against real etcds.

mod bounds;
mod copy;
mod drill;
mod faults;
mod leftovers;
mod mutants;
mod names;
mod prune;
mod rke1;
pub mod save;
mod schedule;
mod space;
mod verify;
