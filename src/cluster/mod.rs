//! What this server remembers of its cluster.

pub mod file;
