//! The integration tests, in one crate: real `quorate` servers with real etcds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

mod kit;

mod cluster;
mod fault_points;
mod install;
mod launch;
mod restore;
mod s3;
mod snapshot;
mod structure;
