//! quorate: runs an etcd on a node, supervises it, snapshots it and restores it.
//!
//! A directory is a concern, a file in it one idea. Data flows one way: *argv and files → [`config`] → [`plan`] → act →
//! serve*. `plan` decides without clock, disk or network; files are written through [`durable`] only; time comes from
//! [`clock`] only.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests create and damage files as an operator would"))]

pub mod boltdb;
pub mod checksum;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod compression;
pub mod config;
pub mod control;
pub mod datadir;
pub mod durable;
pub mod environment;
pub mod error;
pub mod etcd;
pub mod faults;
pub mod host;
pub mod job;
pub mod launcher;
pub mod logging;
pub mod pki;
pub mod plan;
pub mod random;
pub mod recovery;
pub mod secret;
pub mod server;
pub mod shell;
pub mod snapshot;
pub mod terminal;
pub mod text;
pub mod version;
