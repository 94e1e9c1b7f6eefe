//! etcd's file formats, read natively. No policy of etcd's lives here, only what bytes mean.
//!
//! `page` knows the bytes of one page, `walk` a whole database, `keyspace` what etcd keeps in it, `wal` the log.

pub mod image;
pub mod keyspace;
pub mod page;
pub mod protobuf;
pub mod wal;
pub mod walk;
