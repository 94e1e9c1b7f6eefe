//! The CAs and leaves of a server as a whole: looked at, planned, and made or renewed as planned.

use std::time::SystemTime;

use crate::clock;
use crate::datadir::{CertificatePaths, DataDir};
use crate::pki::authority::{CaSource, CertificateAuthority};
use crate::pki::error::PkiError;
use crate::pki::leaf::{self, PROFILES, Profile};
use crate::pki::names::Names;
use crate::pki::pem::{not_after, read_if_there};
use crate::plan::renewal::{self, EtcdState, ObservedLeaf, RenewalStep};

/// The CAs, by the names of their files.
const AUTHORITIES: [&str; 2] = ["server-ca", "peer-ca"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// `server-ca`, `server-client`, …
    pub name: &'static str,
    pub not_after: SystemTime,
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
        let Some(pem) = read_if_there(&path)? else { continue };
        found.extend(not_after(&pem).map(|not_after| Expiry { name, not_after }));
    }
    Ok(found)
}

/// A leaf on disk, and the CA that signs it.
struct LeafOnDisk {
    profile: &'static Profile,
    files: CertificatePaths,
    /// Of [`AUTHORITIES`].
    authority: usize,
}

/// Makes, keeps and renews the leaves. A CA that is not there comes from `source`: while etcd runs, from nowhere.
///
/// # Errors
/// A file that cannot be read or written, or a CA that is missing, broken or expired. Or a leaf that cannot be renewed while etcd runs;
/// the others are renewed nevertheless.
pub fn ensure(
    data: &DataDir,
    names: &Names,
    source: CaSource<'_>,
    etcd: EtcdState,
) -> Result<CertificateStatus, PkiError> {
    let now = clock::now();
    let mut status = CertificateStatus::default();
    let mut authorities = Vec::new();
    for name in AUTHORITIES {
        let authority = CertificateAuthority::load(name, &data.certificate(name), source, now)?;
        status.authorities.extend_from_slice(authority.trusted());
        authorities.push(authority);
    }
    let (leaves, observed) = observe(data, names, &authorities);
    let steps = renewal::plan(&observed, etcd, now);
    let refused = steps.iter().position(|step| matches!(step, RenewalStep::NeedsRestart));
    for ((leaf, observed), step) in leaves.iter().zip(&observed).zip(steps) {
        let authority = &authorities[leaf.authority];
        let not_after = match (step, &observed.leaf) {
            (RenewalStep::Issue(why), _) => {
                status.has_changed = true;
                issue(leaf, authority, observed, &why, now)?
            }
            (_, Some(present)) => present.not_after,
            (_, None) => now,
        };
        status.expiries.push(Expiry { name: leaf.profile.name, not_after });
    }
    if let Some(index) = refused {
        return Err(PkiError::RestartRequired(leaves[index].files.key.clone()));
    }
    let of_authorities = AUTHORITIES.iter().zip(&authorities);
    let of_authorities = of_authorities.map(|(name, authority)| Expiry { name, not_after: authority.not_after() });
    status.expiries.splice(0..0, of_authorities);
    Ok(status)
}

fn observe(
    data: &DataDir,
    names: &Names,
    authorities: &[CertificateAuthority],
) -> (Vec<LeafOnDisk>, Vec<ObservedLeaf>) {
    let leaves = PROFILES.iter().filter_map(|profile| {
        let authority = AUTHORITIES.iter().position(|name| *name == profile.authority)?;
        let files = data.certificate(profile.name);
        let wanted = if profile.has_names { names.all().clone() } else { [].into() };
        let observed = leaf::inspect(&files, &authorities[authority], wanted);
        Some((LeafOnDisk { profile, files, authority }, observed))
    });
    leaves.unzip()
}

fn issue(
    leaf: &LeafOnDisk,
    authority: &CertificateAuthority,
    observed: &ObservedLeaf,
    why: &str,
    now: SystemTime,
) -> Result<SystemTime, PkiError> {
    let LeafOnDisk { profile, files, .. } = leaf;
    let is_first = observed.leaf.is_none() && !files.certificate.exists();
    let not_after = leaf::issue(profile, files, authority, &observed.wanted, now)?;
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
    Ok(not_after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable;

    fn data() -> (tempfile::TempDir, DataDir) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        data.prepare_for_lock().unwrap();
        data.prepare().unwrap();
        (dir, data)
    }

    fn names(extra: &[&str]) -> Names {
        Names::new(extra.iter().copied())
    }

    fn ensure(data: &DataDir, names: &Names, etcd: EtcdState) -> Result<CertificateStatus, PkiError> {
        super::ensure(data, names, CaSource::Create, etcd)
    }

    #[test]
    fn what_is_good_stays_and_a_new_name_renews_with_the_same_key() {
        let (_dir, data) = data();
        assert!(ensure(&data, &names(&[]), EtcdState::Stopped).unwrap().has_changed);
        assert!(!ensure(&data, &names(&[]), EtcdState::Stopped).unwrap().has_changed);
        let files = data.certificate("server-client");
        let before = std::fs::read(&files.key).unwrap();
        let client = std::fs::read(data.certificate("client").certificate).unwrap();
        assert!(ensure(&data, &names(&["db.example.com"]), EtcdState::Running).unwrap().has_changed);
        assert_eq!(std::fs::read(&files.key).unwrap(), before, "a renewal keeps the key");
        assert_eq!(std::fs::read(data.certificate("client").certificate).unwrap(), client, "it has no names");
    }

    #[test]
    fn a_lost_leaf_key_is_replaced_at_a_start_only() {
        let (_dir, data) = data();
        ensure(&data, &names(&[]), EtcdState::Stopped).unwrap();
        durable::remove_file(&data.certificate("server-client").key).unwrap();
        assert!(matches!(ensure(&data, &names(&[]), EtcdState::Running), Err(PkiError::RestartRequired(_))));
        assert!(ensure(&data, &names(&[]), EtcdState::Stopped).unwrap().has_changed);
        assert!(!ensure(&data, &names(&[]), EtcdState::Stopped).unwrap().has_changed);
    }

    #[test]
    fn a_swapped_ca_reissues_every_leaf_of_it() {
        let (_dir, data) = data();
        ensure(&data, &names(&[]), EtcdState::Stopped).unwrap();
        let ca = data.certificate("server-ca");
        durable::remove_file(&ca.key).unwrap();
        assert!(matches!(ensure(&data, &names(&[]), EtcdState::Stopped), Err(PkiError::CaKeyMissing { .. })));
        durable::remove_file(&ca.certificate).unwrap();
        assert!(ensure(&data, &names(&[]), EtcdState::Stopped).unwrap().has_changed);
        assert!(!ensure(&data, &names(&[]), EtcdState::Stopped).unwrap().has_changed);
    }
}
