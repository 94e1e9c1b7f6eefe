//! The routes of the control API, one file each.

pub mod health;
pub mod maintenance;
pub mod metrics;
pub mod s3;
pub mod snapshots;
pub mod status;
pub mod stream;
