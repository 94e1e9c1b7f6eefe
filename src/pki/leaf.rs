//! The four leaf certificates: their profiles, their files, and issuing them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::datadir::CertificatePaths;
use crate::durable;
use crate::pki::authority::{CLOCK_TOLERANCE, CertificateAuthority};
use crate::pki::error::PkiError;
use crate::pki::names::canonical;
use crate::pki::pem::{certificates, read_if_there, to_system};
use crate::plan::renewal::{LeafFacts, ObservedLeaf};

/// How long a leaf is valid.
const LIFETIME: Duration = Duration::from_secs(365 * 86_400);

#[derive(Clone, Copy, Debug)]
pub struct Profile {
    pub name: &'static str,
    /// Common name; for etcd's auth, the user.
    pub common_name: &'static str,
    pub authority: &'static str,
    pub is_server: bool,
    pub has_names: bool,
}

/// All leaves. Each may act as a client; the server leaf does so for etcd's JSON gateway.
pub const PROFILES: &[Profile] = &[
    Profile {
        name: "server-client",
        common_name: "etcd-server",
        authority: "server-ca",
        is_server: true,
        has_names: true,
    },
    Profile { name: "client", common_name: "etcd-client", authority: "server-ca", is_server: false, has_names: false },
    // With etcd's auth on, the common name is the user; `root` has every right.
    Profile { name: "launcher", common_name: "root", authority: "server-ca", is_server: false, has_names: false },
    Profile {
        name: "peer-server-client",
        common_name: "etcd-peer",
        authority: "peer-ca",
        is_server: true,
        has_names: true,
    },
];

/// Inspects the leaf in `files`.
pub(super) fn inspect(
    files: &CertificatePaths,
    authority: &CertificateAuthority,
    wanted: BTreeSet<String>,
) -> ObservedLeaf {
    let key = read_key(files);
    let pem = read_if_there(&files.certificate).ok().flatten();
    let leaf = pem
        .and_then(|pem| certificates(&pem).into_iter().next())
        .and_then(|der| read_leaf(&der, authority, key.as_ref()));
    ObservedLeaf { leaf, has_key: key.is_some(), wanted }
}

fn read_key(files: &CertificatePaths) -> Option<KeyPair> {
    read_if_there(&files.key).ok().flatten().and_then(|pem| KeyPair::from_pem(&pem).ok())
}

fn read_leaf(der: &[u8], authority: &CertificateAuthority, key: Option<&KeyPair>) -> Option<LeafFacts> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let names = parsed
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|names| names.value.general_names.iter().filter_map(name_text).collect())
        .unwrap_or_default();
    Some(LeafFacts {
        not_before: to_system(parsed.validity().not_before),
        not_after: to_system(parsed.validity().not_after),
        names,
        is_of_our_authority: authority.issued(&parsed),
        matches_key: key
            .is_some_and(|key| key.public_key_raw() == parsed.public_key().subject_public_key.data.as_ref()),
    })
}

fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(canonical(name)),
        GeneralName::IPAddress(bytes) => {
            let address = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            address.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

/// Issues the leaf for the existing key, or for a new one. Returns its expiry.
pub(super) fn issue(
    profile: &Profile,
    files: &CertificatePaths,
    authority: &CertificateAuthority,
    names: &BTreeSet<String>,
    now: SystemTime,
) -> Result<SystemTime, PkiError> {
    let failed = |source| PkiError::Issue { name: profile.name.to_owned(), source };
    let key = if let Some(key) = read_key(files) {
        key
    } else {
        let key = KeyPair::generate().map_err(failed)?;
        durable::write_file(&files.key, key.serialize_pem().as_bytes(), files.key_access)?;
        key
    };
    let not_after = authority.leaf_end(now, LIFETIME);
    let mut params = CertificateParams::default();
    params.not_before = (now - CLOCK_TOLERANCE).into();
    params.not_after = not_after.into();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, profile.common_name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if profile.is_server {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(Ia5String::try_from(name.clone()).map_err(failed)?),
        });
    }
    let certificate = params.signed_by(&key, authority.issuer()).map_err(failed)?;
    durable::write_file(&files.certificate, certificate.pem().as_bytes(), files.certificate_access)?;
    Ok(not_after)
}
