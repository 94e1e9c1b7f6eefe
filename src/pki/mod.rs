//! CAs, leaf certificates, their renewal, and the token.
//!
//! Given a data directory and the names of this server, ensures that `S/tls/etcd` holds two CAs and four leaves that
//! are valid. Valid files are never touched; a CA is never replaced. A renewal keeps the leaf's key, so that one rename
//! swaps the pair for etcd, which reads both files at every handshake.

pub mod authority;
pub mod leaf;
pub mod token;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::clock;
use crate::datadir::DataDir;
use crate::durable::WriteError;
use crate::error::{Code, Diagnostic};
use crate::plan::renewal::RenewalAction;

use authority::CertificateAuthority;
use leaf::PROFILES;

/// How long a CA is valid.
pub const CA_LIFETIME: Duration = Duration::from_secs(3650 * 86_400);
/// How long a leaf is valid.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// Validity begins a little in the past, for peers whose clocks are behind.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);

/// Why certificates or the token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A file exists, but cannot be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
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
            Self::CaKeyMissing { key, .. } => Some(format!("restore {} from a backup", key.display())),
            Self::CaInvalid { path, .. } => Some(format!("restore {} and its key from a backup", path.display())),
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

/// The names that go into the server and peer certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(Vec<String>);

impl Names {
    /// Loopback, the node's name and addresses, and `tls-san`.
    #[must_use]
    pub fn of(config: &crate::config::Config) -> Self {
        let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1", &config.node_name].map(canonical).to_vec();
        names.extend(config.node_ips.iter().chain(&config.node_external_ips).map(ToString::to_string));
        names.extend(config.tls_sans.iter().map(|name| canonical(name)));
        names.sort();
        names.dedup();
        Self(names)
    }

    /// Each name once, in its canonical spelling.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// The canonical spelling of a name or address: names are case-insensitive, and addresses have several forms.
pub(crate) fn canonical(name: &str) -> String {
    name.parse::<IpAddr>().map_or_else(|_| name.to_ascii_lowercase(), |address| address.to_string())
}

/// A certificate and its expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// `server-ca`, `server-client`, …
    pub name: &'static str,
    pub not_after: SystemTime,
}

/// Whether etcd is running on these certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtcdState {
    /// etcd does not run: keys may be replaced.
    Stopped,
    Running,
}

/// The random generator of the TLS library takes 50 to 100 ms to initialize (measured), once in a process: initialize
/// it in parallel to other work. A failure here recurs, and is reported, where a key is needed.
pub fn warm_up() {
    let _ = rcgen::KeyPair::generate();
}

/// What [`ensure`] found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateStatus {
    pub expiries: Vec<Expiry>,
    /// True if a leaf was issued or renewed.
    pub has_changed: bool,
    pub authorities: Vec<Vec<u8>>,
}

/// The expiry of the existing certificates. Changes nothing.
pub fn expiries(data: &DataDir) -> Result<Vec<Expiry>, PkiError> {
    let names = ["server-ca", "peer-ca"].into_iter().chain(PROFILES.iter().map(|profile| profile.name));
    let mut found = Vec::new();
    for name in names {
        let path = data.certificate(name).certificate;
        let Some(pem) = authority::read_if_there(&path)? else { continue };
        found.extend(authority::not_after(&pem).map(|not_after| Expiry { name, not_after }));
    }
    Ok(found)
}

/// Creates, keeps or renews the CAs and leaves.
///
/// # Errors
/// A file that cannot be read or written, or a CA that is broken or expired.
pub fn ensure(data: &DataDir, names: &Names, etcd_state: EtcdState) -> Result<CertificateStatus, PkiError> {
    let now = clock::now();
    let mut ensured = CertificateStatus::default();
    for name in ["server-ca", "peer-ca"] {
        let files = data.certificate(name);
        let authority = CertificateAuthority::load_or_make(name, &files, now)?;
        ensured.expiries.push(Expiry { name, not_after: authority.not_after() });
        ensured.authorities.push(authority.der().to_vec());
        for profile in PROFILES.iter().filter(|profile| profile.authority == name) {
            let files = data.certificate(profile.name);
            let wanted = if profile.has_names { names.iter().map(str::to_owned).collect() } else { [].into() };
            let (verdict, present) = leaf::inspect(&files, &authority, &wanted, now);
            let not_after = match (verdict, etcd_state) {
                (RenewalAction::Keep, _) => present.map_or(now, |leaf| leaf.not_after),
                (RenewalAction::Reissue(_), EtcdState::Running) => return Err(PkiError::RestartRequired(files.key)),
                (RenewalAction::Renew(why) | RenewalAction::Reissue(why), _) => {
                    let is_first = present.is_none() && !files.certificate.exists();
                    let not_after = leaf::issue(profile, &files, &authority, &wanted, now)?;
                    ensured.has_changed = true;
                    if is_first {
                        tracing::debug!(certificate = profile.name, "certificate made");
                    } else {
                        let valid_until = clock::rfc3339(not_after);
                        tracing::info!(
                            event = "certificate-renewed",
                            certificate = profile.name,
                            why,
                            valid_until,
                            "certificate renewed"
                        );
                    }
                    not_after
                }
            };
            ensured.expiries.push(Expiry { name: profile.name, not_after });
        }
    }
    Ok(ensured)
}
