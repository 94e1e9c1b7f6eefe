//! Pure decisions: observations in, actions out. No clock, no disk, no network.

pub mod child;
pub mod command;
pub mod condition;
pub mod defrag;
mod disk_space;
pub mod finding;
pub mod health;
pub mod orphan;
pub mod owner;
pub mod parts;
pub mod renewal;
pub mod restore;
pub mod retention;
pub mod schedule;
pub mod select;
pub mod snapshot_name;
pub mod space;
pub mod start;
pub mod uploads;
