//! quorate: runs an etcd on a node, supervises it, snapshots it and restores it.
//!
//! A directory is a concern, a file in it one idea. Data flows one way: *argv and files → [`config`] → [`plan`] → act →
//! serve*. `plan` decides without clock, disk or network; files are written through `durable` only; time comes from
//! [`clock`] only.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests create and damage files as an operator would"))]

pub mod boltdb;
pub mod checksum;
pub mod cli;
pub mod clock;
mod cluster;
mod compression;
pub mod config;
mod control;
pub mod datadir;
mod durable;
mod environment;
pub mod error;
pub mod etcd;
mod faults;
mod host;
pub mod job;
mod launcher;
pub mod logging;
pub mod pki;
pub mod plan;
mod random;
pub mod recovery;
mod secret;
mod server;
mod shell;
pub mod snapshot;
mod terminal;
mod text;
pub mod version;
