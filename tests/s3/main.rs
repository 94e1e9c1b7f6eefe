//! Snapshots in object storage: uploaded, listed, verified, pruned and restored, against a real S3 implementation with faults.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

#[path = "../kit/mod.rs"]
mod kit;
#[path = "../kit/s3.rs"]
mod store;

mod basic;
mod check;
mod corners;
mod credentials;
mod faults;
mod foreign;
mod others;
mod places;
mod restore;
