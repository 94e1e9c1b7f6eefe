//! The cluster that this server belongs to. So far: the record of it.

pub mod file;
pub mod record;
