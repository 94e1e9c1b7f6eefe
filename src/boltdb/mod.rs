//! etcd's file formats, read natively. No policy of etcd's lives here, only what bytes mean.

pub mod pages;
pub mod wal;
