//! The services of a running server, which the launcher and the control API use.
//!
//!
//!
//! `snapshots` saves, uploads, prunes and drills; `maintenance` keeps the database small; `health` polls etcd,
//! `storage` watches its files and disks, `condition` combines both; `rescue` saves data that vanished under a running
//! etcd.

pub mod condition;
pub mod context;
pub mod database_lock;
pub mod disk_sample;
pub mod health;
pub mod maintenance;
pub mod rescue;
pub mod snapshots;
pub mod state;
pub mod storage;
