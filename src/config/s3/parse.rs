//! Parses single options.

use std::path::Path;

use aws_smithy_types::base64;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::config::options;
use crate::config::s3::endpoint::can_connect;
use crate::config::s3::error::{S3ConfigError, wrong};
use crate::config::s3::settings::{read_file, read_private};
use crate::config::s3::target::Encryption;
use crate::secret::Secret;

/// Length of an SSE-C key in bytes.
const SSE_C_KEY: usize = 32;

pub(super) fn bucket_name(text: &str) -> Result<String, S3ConfigError> {
    const OPTION: &str = "etcd-s3-bucket";
    let name = text.strip_prefix("s3://").unwrap_or(text).trim_end_matches('/');
    // The store checks the name; this only prevents mistakes in a URL.
    let is_good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.len() < 3 || name.len() > 255 || !name.chars().all(is_good) || name.starts_with('.') {
        let shown = crate::text::escape_control(text);
        return Err(wrong(
            OPTION,
            format!("`{shown}` is not a valid bucket name: 3 to 63 lower-case letters, digits, dots and hyphens"),
        ));
    }
    Ok(name.to_owned())
}

pub(super) fn folder(text: &str) -> Result<String, S3ConfigError> {
    let folder = text.trim_matches('/');
    let is_odd = folder.split('/').any(|part| matches!(part, "." | "..") || (part.is_empty() && !folder.is_empty()));
    if is_odd || folder.chars().any(char::is_control) || folder.len() > 512 {
        return Err(wrong(options::ETCD_S3_FOLDER.name, "must be names with single slashes between them"));
    }
    Ok(folder.to_owned())
}

pub(super) fn proxy(text: &str) -> Result<String, S3ConfigError> {
    let parsed: Option<hyper::Uri> = text.parse().ok();
    let is_good = parsed.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some_and(can_connect)
    });
    // A URL may contain a password.
    if is_good {
        Ok(text.to_owned())
    } else {
        Err(wrong(options::ETCD_S3_PROXY.name, "must be a URL such as http://proxy:3128, or none"))
    }
}

/// PEM, or any number of paths and base64 texts separated by white space. Returns the same with absolute paths.
pub(super) fn with_absolute_paths(text: &str) -> String {
    if text.contains(PEM) {
        return text.to_owned();
    }
    let one = |part: &str| {
        let path = if in_base64(part).is_none() { std::path::absolute(part).ok() } else { None };
        path.and_then(|path| path.to_str().map(str::to_owned)).unwrap_or_else(|| part.to_owned())
    };
    text.split_whitespace().map(one).collect::<Vec<_>>().join(" ")
}

fn in_base64(part: &str) -> Option<Vec<u8>> {
    base64::decode(part).ok().filter(|bytes| String::from_utf8_lossy(bytes).contains(PEM))
}

pub(super) fn certificates(text: &str) -> Result<Vec<Vec<u8>>, S3ConfigError> {
    const OPTION: &str = "etcd-s3-endpoint-ca";
    if text.contains(PEM) {
        // Inline, sometimes with literal `\n` between its lines.
        let pem = text.replace("\\n", "\n").into_bytes();
        check_certificates(OPTION, "the given text", &pem)?;
        return Ok(vec![pem]);
    }
    text.split_whitespace()
        .map(|part| {
            let (pem, shown) = match in_base64(part) {
                Some(bytes) => (bytes, "the given text"),
                None => (read_file(OPTION, Path::new(part))?, part),
            };
            check_certificates(OPTION, shown, &pem)?;
            Ok(pem)
        })
        .collect()
}

const PEM: &str = "-----BEGIN CERTIFICATE-----";

/// Certificates that TLS cannot use are reported here, not when they are needed.
fn check_certificates(option: &'static str, shown: &str, pem: &[u8]) -> Result<(), S3ConfigError> {
    let shown = crate::text::escape_control(shown);
    let ders: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let ders = ders.map_err(|error| wrong(option, format!("{shown} is not PEM: {error:?}")))?;
    if ders.is_empty() {
        return Err(wrong(option, format!("{shown} contains no certificate")));
    }
    let mut roots = rustls::RootCertStore::empty();
    ders.into_iter().try_for_each(|der| {
        roots.add(der).map_err(|error| wrong(option, format!("{shown} contains an unusable certificate: {error}")))
    })
}

pub(super) fn encryption(text: &str) -> Result<Encryption, S3ConfigError> {
    const OPTION: &str = "etcd-s3-sse";
    match text.split_once(':').map_or((text, ""), |(first, rest)| (first, rest)) {
        ("AES256", "") => Ok(Encryption::Aes256),
        ("aws", "kms") => Ok(Encryption::Kms(None)),
        ("aws", rest) if rest.starts_with("kms:") => Ok(Encryption::Kms(Some(rest["kms:".len()..].to_owned()))),
        ("sse-c", path) if !path.is_empty() => {
            let bytes = read_private(OPTION, Path::new(path))?;
            let decoded = std::str::from_utf8(&bytes).ok().and_then(|text| base64::decode(text.trim()).ok());
            let key = decoded.filter(|key| key.len() == SSE_C_KEY).unwrap_or(bytes);
            if key.len() != SSE_C_KEY {
                return Err(wrong(
                    OPTION,
                    format!("{path} does not contain a key of {SSE_C_KEY} bytes, raw or in base64"),
                ));
            }
            Ok(Encryption::Customer(Secret::new(base64::encode(key))))
        }
        _ => Err(wrong(OPTION, "must be AES256, aws:kms, aws:kms:KEY or sse-c:FILE")),
    }
}
