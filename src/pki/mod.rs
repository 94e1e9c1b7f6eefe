//! CAs, leaf certificates, their renewal, and the token.
//!
//! Given a data directory and the names of this server, ensures that `S/tls/etcd` holds two CAs and four leaves that
//! are valid. Valid files are never touched; a CA is never replaced, and only the first server of a cluster
//! creates one. All certificates in a CA file are trusted, and the one that the key belongs to signs. A renewal keeps the leaf's key, so that one rename
//! swaps the pair for etcd, which reads both files at every handshake.

pub mod authority;
mod certificates;
mod error;
pub mod leaf;
mod names;
mod pem;
pub mod token;

pub use crate::plan::renewal::EtcdState;
pub use authority::{CaSource, ReceivedCa};
pub use certificates::{CertificateStatus, Expiry, ensure, expiries, warm_up};
pub use error::PkiError;
pub use names::Names;
