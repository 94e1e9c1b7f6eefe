//! etcd's file formats, read natively. No policy of etcd's lives here, only what bytes mean.
//!
//! `page` and `table` know the bytes of one page, `database` a whole one, through which `walk` leads page by page, `keyspace` and `schema` what etcd keeps in it, `wal` the log.

pub mod database;
pub mod edge;
pub mod edit;
pub mod keyspace;
pub mod membership;
pub mod page;
pub mod pages;
pub mod protobuf;
pub mod raft_snapshot;
pub mod read_at;
pub mod schema;
pub mod table;
pub mod wal;
pub mod walk;
