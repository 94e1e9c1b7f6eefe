//! A certificate authority: created once, loaded afterwards, never replaced automatically.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate};

use crate::clock;
use crate::datadir::CertificatePaths;
use crate::durable;
use crate::pki::{CA_LIFETIME, CLOCK_TOLERANCE, PkiError};

pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
    not_after: SystemTime,
}

/// Reads a file that may not exist.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::Read { path: path.to_path_buf(), source }),
    }
}

/// The first certificate of a PEM text as DER.
pub(super) fn der_of(pem: &str) -> Option<Vec<u8>> {
    x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes())
        .flatten()
        .find(|block| block.label == "CERTIFICATE")
        .map(|block| block.contents)
}

/// When the certificate expires; `None` if it cannot be parsed.
pub(super) fn not_after(pem: &str) -> Option<SystemTime> {
    let der = der_of(pem)?;
    let (_, parsed) = X509Certificate::from_der(&der).ok()?;
    Some(to_system(parsed.validity().not_after))
}

pub(super) fn to_system(at: x509_parser::time::ASN1Time) -> SystemTime {
    SystemTime::from(at.to_datetime())
}

impl CertificateAuthority {
    /// Loads the CA in `files`, or creates it if there is none.
    pub fn load_or_make(name: &str, files: &CertificatePaths, now: SystemTime) -> Result<Self, PkiError> {
        let certificate = read_if_there(&files.certificate)?;
        let key = read_if_there(&files.key)?;
        match (certificate, key) {
            (Some(certificate), Some(key)) => Self::load(files, &certificate, &key, now),
            (Some(_), None) => {
                Err(PkiError::CaKeyMissing { certificate: files.certificate.clone(), key: files.key.clone() })
            }
            // A key alone is left over from an interrupted first start; nothing has been issued with it yet.
            (None, _) => Self::make(name, files, now),
        }
    }

    fn make(name: &str, files: &CertificatePaths, now: SystemTime) -> Result<Self, PkiError> {
        let failed = |source| PkiError::Issue { name: name.to_owned(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.not_before = (now - CLOCK_TOLERANCE).into();
        params.not_after = (now + CA_LIFETIME).into();
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
        Self::load(files, &certificate, &key.serialize_pem(), now)
    }

    fn load(files: &CertificatePaths, certificate: &str, key: &str, now: SystemTime) -> Result<Self, PkiError> {
        let unusable = |why: &str| PkiError::CaInvalid { path: files.certificate.clone(), why: why.to_owned() };
        let key = KeyPair::from_pem(key).map_err(|error| unusable(&format!("the key: {error}")))?;
        let der = der_of(certificate).ok_or_else(|| unusable("no PEM certificate found"))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| unusable(&error.to_string()))?;
        if !parsed.is_ca() {
            return Err(unusable("the certificate is not a CA certificate"));
        }
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(unusable("the key belongs to another certificate"));
        }
        let not_after = to_system(parsed.validity().not_after);
        if not_after <= now {
            return Err(PkiError::CaExpired { path: files.certificate.clone(), expired: clock::rfc3339(not_after) });
        }
        let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(|error| unusable(&error.to_string()))?;
        Ok(Self { issuer, der, not_after })
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    pub(super) fn der(&self) -> &[u8] {
        &self.der
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
        let Ok((_, us)) = X509Certificate::from_der(&self.der) else { return false };
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
