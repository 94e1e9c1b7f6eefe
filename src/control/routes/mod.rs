//! The routes of the control API, a file each.

pub mod health;
pub mod maintenance;
pub mod metrics;
pub mod s3;
pub mod snapshots;
pub mod status;
pub mod stream;
