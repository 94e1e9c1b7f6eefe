//! The services of a running server: each owns what it needs and is asked by the launcher and the control API.
//!
//! `snapshots` saves, uploads, prunes and rehearses them; `maintenance` keeps the database small; `health` asks etcd, `storage` watches
//! its files and disks, `condition` makes one answer of all that; `rescue` saves data that vanished under a running etcd.

pub mod condition;
pub mod disk_sample;
pub mod health;
pub mod maintenance;
pub mod rescue;
pub mod snapshots;
pub mod state;
pub mod storage;
