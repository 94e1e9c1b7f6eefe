//! etcd's file formats, read natively. No policy of etcd's lives here, only what bytes mean.
//!
//! `page` knows the bytes of one page, `database` a whole one, through which `walk` leads page by page, `keyspace` what etcd keeps in it, `wal` the log.

pub mod database;
pub mod image;
pub mod keyspace;
pub mod page;
pub mod pages;
pub mod protobuf;
pub mod wal;
pub mod walk;
