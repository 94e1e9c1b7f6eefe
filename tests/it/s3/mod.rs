//! Snapshots in object storage: uploaded, listed, verified, pruned and restored, against a real S3 implementation with faults.

mod basic;
mod check;
mod corners;
mod credentials;
mod faults;
mod foreign;
mod others;
mod places;
mod restore;
