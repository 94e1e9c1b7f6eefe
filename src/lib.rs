//! quorate: runs an etcd on every node, keeps the cluster quorate, and gets it back when it is not.
//!
//! A folder is a concern, a file in it is one idea. Data flows one way:
//! *argv and files → [`config`] → [`plan`] → act → serve*. `plan` decides without clock, disk or network;
//! files are written through [`durable`] only; time comes from [`clock`] only.

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod datadir;
pub mod durable;
pub mod error;
pub mod etcd;
pub mod faults;
pub mod pki;
pub mod plan;
pub mod host;
pub mod server;
