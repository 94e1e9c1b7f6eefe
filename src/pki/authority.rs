//! A certificate authority: created once, loaded afterwards, never replaced automatically.

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate};

use crate::clock;
use crate::datadir::CertificatePaths;
use crate::durable;
use crate::pki::error::PkiError;
use crate::pki::pem::{certificates, read_if_there, to_system};
use crate::secret::Secret;

/// How long a CA is valid.
const LIFETIME: Duration = Duration::from_secs(3650 * 86_400);
/// Validity begins a little in the past, for peers whose clocks are behind.
pub(super) const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);

/// Where a CA comes from that is not there.
#[derive(Clone, Copy, Debug)]
pub enum CaSource<'a> {
    /// It is made: the first server of a cluster.
    Create,
    /// Nowhere: a server that has one, or should have.
    MustExist,
    /// It was received from the cluster that is joined, and a different one that is there is refused.
    Received(&'a ReceivedCa),
}

#[derive(Clone, Debug)]
pub struct ReceivedCa {
    /// PEM, one certificate or several.
    pub certificate: String,
    /// PEM, of one of them.
    pub key: Secret,
}

/// A CA that can sign, and the other CAs that are trusted in addition while CAs are rotated.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    /// The certificate that the key belongs to.
    signing: Vec<u8>,
    trusted: Vec<Vec<u8>>,
    not_after: SystemTime,
}

impl CertificateAuthority {
    /// Loads the CA in `files`, or takes it from `source` if there is none.
    pub fn load(name: &str, files: &CertificatePaths, source: CaSource<'_>, now: SystemTime) -> Result<Self, PkiError> {
        let certificate = read_if_there(&files.certificate)?;
        let key = read_if_there(&files.key)?;
        match (certificate, key, source) {
            (Some(certificate), _, CaSource::Received(received))
                if certificates(&certificate) != certificates(&received.certificate) =>
            {
                Err(PkiError::CaForeign(files.certificate.clone()))
            }
            (Some(certificate), Some(key), _) => Self::parse(files, &certificate, &key, now),
            // A first start that was interrupted has left one file of the two.
            (_, _, CaSource::Received(received)) => Self::store(files, received, now),
            (Some(_), None, _) => {
                Err(PkiError::CaKeyMissing { certificate: files.certificate.clone(), key: files.key.clone() })
            }
            (None, _, CaSource::MustExist) => Err(PkiError::CaMissing(files.certificate.clone())),
            // A key alone is left over from an interrupted first start; nothing has been issued with it yet.
            (None, _, CaSource::Create) => Self::make(name, files, now),
        }
    }

    /// Writes what was received, once it is known to be a CA.
    fn store(files: &CertificatePaths, received: &ReceivedCa, now: SystemTime) -> Result<Self, PkiError> {
        let authority = Self::parse(files, &received.certificate, received.key.reveal(), now)?;
        durable::write_file(&files.key, received.key.reveal().as_bytes(), files.key_access)?;
        durable::write_file(&files.certificate, received.certificate.as_bytes(), files.certificate_access)?;
        Ok(authority)
    }

    fn make(name: &str, files: &CertificatePaths, now: SystemTime) -> Result<Self, PkiError> {
        let failed = |source| PkiError::Issue { name: name.to_owned(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.not_before = (now - CLOCK_TOLERANCE).into();
        params.not_after = (now + LIFETIME).into();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name = rcgen::DistinguishedName::new();
        // The time makes the name of each cluster's CA unique.
        let common_name = format!("quorate-etcd-{name}@{}", clock::unix_seconds(now));
        params.distinguished_name.push(DnType::CommonName, common_name);
        let certificate = params.self_signed(&key).map_err(failed)?.pem();
        durable::write_file(&files.key, key.serialize_pem().as_bytes(), files.key_access)?;
        durable::write_file(&files.certificate, certificate.as_bytes(), files.certificate_access)?;
        Self::parse(files, &certificate, &key.serialize_pem(), now)
    }

    fn parse(files: &CertificatePaths, certificate: &str, key: &str, now: SystemTime) -> Result<Self, PkiError> {
        let unusable = |why: &str| PkiError::CaInvalid { path: files.certificate.clone(), why: why.to_owned() };
        let key = KeyPair::from_pem(key).map_err(|error| unusable(&format!("the key: {error}")))?;
        let trusted = certificates(certificate);
        if trusted.is_empty() {
            return Err(unusable("no PEM certificate found"));
        }
        let mut signing = None;
        for der in &trusted {
            let (_, parsed) = X509Certificate::from_der(der).map_err(|error| unusable(&error.to_string()))?;
            if !parsed.is_ca() {
                return Err(unusable("a certificate in it is not a CA's"));
            }
            if parsed.public_key().subject_public_key.data.as_ref() == key.public_key_raw() {
                signing.get_or_insert((der.clone(), to_system(parsed.validity().not_after)));
            }
        }
        let (signing, not_after) = signing.ok_or_else(|| unusable("the key belongs to another certificate"))?;
        if not_after <= now {
            return Err(PkiError::CaExpired { path: files.certificate.clone(), expired: clock::rfc3339(not_after) });
        }
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(signing.as_slice()), key)
            .map_err(|error| unusable(&error.to_string()))?;
        Ok(Self { issuer, signing, trusted, not_after })
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// All that are trusted, as DER.
    pub(super) fn trusted(&self) -> &[Vec<u8>] {
        &self.trusted
    }

    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The expiry of a leaf that is issued now: after `lifetime`, but not after the CA.
    pub(super) fn leaf_end(&self, now: SystemTime, lifetime: Duration) -> SystemTime {
        (now + lifetime).min(self.not_after)
    }

    /// True if this CA issued `leaf`: its name, and the identifier of its key where the leaf has one.
    pub(super) fn issued(&self, leaf: &X509Certificate<'_>) -> bool {
        let Ok((_, us)) = X509Certificate::from_der(&self.signing) else { return false };
        if leaf.issuer().as_raw() != us.subject().as_raw() {
            return false;
        }
        match (authority_key_id(leaf), subject_key_id(&us)) {
            (Some(theirs), Some(ours)) => theirs == ours,
            _ => true,
        }
    }
}

fn authority_key_id<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    })
}

fn subject_key_id<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datadir::DataDir;

    fn data() -> (tempfile::TempDir, CertificatePaths) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        durable::create_dir_all(&data.tls(), 0o700).unwrap();
        let files = data.certificate("server-ca");
        (dir, files)
    }

    fn load(files: &CertificatePaths, source: CaSource<'_>) -> Result<CertificateAuthority, PkiError> {
        CertificateAuthority::load("server-ca", files, source, clock::now())
    }

    fn received(files: &CertificatePaths) -> ReceivedCa {
        let read = |path| std::fs::read_to_string(path).unwrap();
        ReceivedCa { certificate: read(&files.certificate), key: Secret::new(read(&files.key)) }
    }

    #[test]
    fn only_the_first_server_of_a_cluster_makes_a_ca() {
        let (_dir, files) = data();
        assert!(matches!(load(&files, CaSource::MustExist), Err(PkiError::CaMissing(_))));
        assert!(!files.key.exists());
        let made = load(&files, CaSource::Create).unwrap();
        assert_eq!(load(&files, CaSource::MustExist).unwrap().trusted(), made.trusted());

        let (_other, joining) = data();
        let theirs = received(&files);
        assert_eq!(load(&joining, CaSource::Received(&theirs)).unwrap().trusted(), made.trusted());
        assert_eq!(load(&joining, CaSource::Received(&theirs)).unwrap().trusted(), made.trusted(), "it is the same");
        let (_third, another) = data();
        load(&another, CaSource::Create).unwrap();
        assert!(matches!(load(&another, CaSource::Received(&theirs)), Err(PkiError::CaForeign(_))));
        let broken = ReceivedCa { key: Secret::new("no key".into()), ..theirs };
        let (_fourth, empty) = data();
        assert!(matches!(load(&empty, CaSource::Received(&broken)), Err(PkiError::CaInvalid { .. })));
        assert!(!empty.key.exists(), "nothing is written that is no CA");
    }

    #[test]
    fn of_a_bundle_all_are_trusted_and_the_one_with_the_key_signs() {
        let (_dir, files) = data();
        let (_other, next) = data();
        let (old, new) = (load(&files, CaSource::Create).unwrap(), load(&next, CaSource::Create).unwrap());
        let (old_pem, new_pem) = (received(&files).certificate, received(&next).certificate);
        // First it is trusted everywhere, then it signs.
        durable::write_file(&files.certificate, format!("{new_pem}{old_pem}").as_bytes(), 0o600).unwrap();
        let both = load(&files, CaSource::MustExist).unwrap();
        assert_eq!(both.trusted(), [new.trusted(), old.trusted()].concat());
        assert_eq!(both.signing, old.signing);
        durable::write_file(&files.key, received(&next).key.reveal().as_bytes(), 0o600).unwrap();
        assert_eq!(load(&files, CaSource::MustExist).unwrap().signing, new.signing);
        durable::write_file(&files.certificate, old_pem.as_bytes(), 0o600).unwrap();
        assert!(
            matches!(load(&files, CaSource::MustExist), Err(PkiError::CaInvalid { .. })),
            "the key is of no CA in it"
        );
    }
}
