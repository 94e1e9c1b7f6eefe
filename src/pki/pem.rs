//! PEM files of certificates: a leaf, or a bundle of CAs.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::pki::error::PkiError;

/// More certificates than any bundle of CAs needs: two overlap during a rotation.
const MAX_CERTIFICATES: usize = 16;

/// Reads a file that may not exist.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::Read { path: path.to_path_buf(), source }),
    }
}

/// The certificates of a PEM text as DER, in its order.
pub(super) fn certificates(pem: &str) -> Vec<Vec<u8>> {
    x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes())
        .flatten()
        .filter(|block| block.label == "CERTIFICATE")
        .take(MAX_CERTIFICATES)
        .map(|block| block.contents)
        .collect()
}

/// When the first certificate of a PEM text expires; `None` if it cannot be parsed.
pub(super) fn not_after(pem: &str) -> Option<SystemTime> {
    let all = certificates(pem);
    let (_, parsed) = X509Certificate::from_der(all.first()?).ok()?;
    Some(to_system(parsed.validity().not_after))
}

pub(super) fn to_system(at: x509_parser::time::ASN1Time) -> SystemTime {
    SystemTime::from(at.to_datetime())
}
