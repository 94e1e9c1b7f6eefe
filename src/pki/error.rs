//! What is wrong with certificates or the token.

use std::io;
use std::path::PathBuf;

use crate::durable::WriteError;
use crate::error::{Code, Diagnostic};

/// Why certificates or the token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A file exists, but cannot be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// There is no CA where only one that is there may be used.
    #[error("there is no CA {}", .0.display())]
    CaMissing(PathBuf),
    /// Another CA is there than the one that was received.
    #[error("{} is not the CA of the cluster that is joined", .0.display())]
    CaForeign(PathBuf),
    /// A CA certificate exists, but its key does not.
    #[error("{} exists, but its key {} is missing", certificate.display(), key.display())]
    CaKeyMissing { certificate: PathBuf, key: PathBuf },
    /// The files of a CA do not contain a usable CA.
    #[error("{} and its key are not a usable CA: {why}", path.display())]
    CaInvalid { path: PathBuf, why: String },
    #[error("the CA {} expired on {expired}", path.display())]
    CaExpired { path: PathBuf, expired: String },
    #[error("cannot create the certificate {name}")]
    Issue { name: String, source: rcgen::Error },
    /// The kernel returned no random bytes.
    #[error("cannot create a token")]
    Random(#[source] io::Error),
    /// A renewal that would need a new key while etcd runs.
    #[error("cannot read {}, and a new key requires a restart", .0.display())]
    RestartRequired(PathBuf),
    #[error("the token is not of the form K10<hash>::server:<password>, nor a plain password")]
    TokenForm,
    /// The token belongs to another cluster.
    #[error("the token is not that of this cluster: {0}")]
    WrongToken(&'static str),
    /// The token names a CA, but this server has none yet.
    #[error(
        "the token belongs to another cluster, perhaps of k3s or RKE2: it names the CA of that cluster, and this server has no cluster yet"
    )]
    ForeignToken,
}

impl Diagnostic for PkiError {
    fn code(&self) -> Code {
        match self {
            Self::Write(error) => error.code(),
            Self::Read { .. } => Code::ReadFailed,
            Self::CaMissing(_) => Code::CaMissing,
            Self::CaForeign(_) => Code::CaForeign,
            Self::CaKeyMissing { .. } => Code::CaKeyMissing,
            Self::CaInvalid { .. } => Code::CaInvalid,
            Self::CaExpired { .. } => Code::CaExpired,
            Self::Issue { .. } => Code::CertificateFailed,
            Self::Random(_) => Code::OsError,
            Self::RestartRequired(_) => Code::RestartRequired,
            Self::TokenForm => Code::TokenMalformed,
            Self::WrongToken(_) => Code::WrongToken,
            Self::ForeignToken => Code::ForeignToken,
        }
    }

    fn next_step(&self) -> Option<String> {
        match self {
            Self::Write(error) => error.next_step(),
            Self::CaForeign(path) => {
                let tls = path.parent().unwrap_or(path).display();
                Some(format!("if nothing of the old cluster is needed: mv {tls} {tls}-old, and start again"))
            }
            Self::CaKeyMissing { key, .. } => Some(format!("restore {} from a backup", key.display())),
            Self::CaMissing(path) | Self::CaInvalid { path, .. } => {
                Some(format!("restore {} and its key from a backup", path.display()))
            }
            Self::CaExpired { path, .. } => {
                let tls = path.parent().unwrap_or(path).display();
                Some(format!(
                    "mv {tls} {tls}-expired and start again: this creates new CAs, which every client then needs"
                ))
            }
            Self::WrongToken(_) => {
                Some("remove token and token-file from the configuration, or use the one in server/token".into())
            }
            Self::ForeignToken => Some(
                "to begin a new cluster here, set the token to its password only, which follows `::server:`".into(),
            ),
            Self::RestartRequired(_) => Some("systemctl restart quorate-server".into()),
            _ => None,
        }
    }
}
