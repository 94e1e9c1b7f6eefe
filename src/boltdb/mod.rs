//! The file formats of etcd, read natively: what the bytes mean, and no policy.
//!
//! `page` and `table` parse one page, `database` a whole file, which `walk` traverses; `keyspace` and `schema` parse
//! the contents of the buckets, `wal` the write-ahead log.

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
