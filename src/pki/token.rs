//! The token: `K10<sha256 of the CA>::server:<password>`, in `S/token`.
//!
//! The hash lets a joining server recognise the cluster before it sends the password. A plain password is accepted,
//! too; the hash is then added. Once a data directory has a token, another one is refused: it belongs to another
//! cluster.

use std::path::Path;

use aws_lc_rs::{constant_time, digest};

use crate::datadir::DataDir;
use crate::durable::{self, PRIVATE_FILE};
use crate::pki::error::PkiError;
use crate::pki::pem::read_if_there;
use crate::secret::Secret;

const PREFIX: &str = "K10";
const USER: &str = "server";

struct TokenParts<'a> {
    hash: Option<&'a str>,
    password: &'a str,
}

fn parse(token: &str) -> Result<TokenParts<'_>, PkiError> {
    let Some(rest) = token.strip_prefix(PREFIX) else { return Ok(TokenParts { hash: None, password: token }) };
    let is_hash = |text: &str| text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit());
    match rest.split_once("::") {
        Some((hash, credentials)) if is_hash(hash) => match credentials.split_once(':') {
            Some((USER, password)) if !password.is_empty() => Ok(TokenParts { hash: Some(hash), password }),
            _ => Err(PkiError::TokenForm),
        },
        _ => Err(PkiError::TokenForm),
    }
}

/// True for a complete token, and for a plain password.
#[must_use]
pub fn is_well_formed(token: &str) -> bool {
    parse(token).is_ok()
}

/// SHA-256 of a CA's PEM file, hexadecimal.
pub fn hash_of(authority: &Path) -> Result<String, PkiError> {
    let pem = std::fs::read(authority).map_err(|source| PkiError::Read { path: authority.to_path_buf(), source })?;
    Ok(hex::encode(digest::digest(&digest::SHA256, &pem).as_ref()))
}

/// Refuses a token that names a CA while there is none yet. To be called before the CA is created: afterwards, the
/// error would name a cluster that was never intended.
pub fn check_without_ca(data: &DataDir, given: Option<&Secret>) -> Result<(), PkiError> {
    let given = given.map(|token| parse(token.reveal())).transpose()?;
    let names_one = given.is_some_and(|parts| parts.hash.is_some());
    if names_one && !data.certificate("server-ca").certificate.exists() { Err(PkiError::ForeignToken) } else { Ok(()) }
}

/// Ensures that `S/token` holds the token of this cluster: the existing one, the given one, or a new one.
///
/// # Errors
/// If the given one is malformed or of another cluster, or a file cannot be read or written.
pub fn ensure(data: &DataDir, given: Option<&Secret>) -> Result<(), PkiError> {
    let hash = hash_of(&data.certificate("server-ca").certificate)?;
    let given = given.map(|token| parse(token.reveal())).transpose()?;
    if given.as_ref().and_then(|parts| parts.hash).is_some_and(|theirs| !is_same(theirs, &hash)) {
        return Err(PkiError::WrongToken("its hash is that of another CA"));
    }
    let path = data.token();
    let present = read_if_there(&path)?;
    let present = present.as_deref().map(str::trim).filter(|token| !token.is_empty()).map(parse).transpose()?;
    let password = match (present, given) {
        (Some(present), Some(given)) if !is_same(present.password, given.password) => {
            return Err(PkiError::WrongToken("its password is not the one in server/token"));
        }
        (Some(present), _) => present.password.to_owned(),
        (None, Some(given)) => given.password.to_owned(),
        (None, None) => new_password()?,
    };
    let token = format!("{PREFIX}{hash}::{USER}:{password}\n");
    durable::write_if_changed(&path, token.as_bytes(), PRIVATE_FILE)?;
    Ok(())
}

/// The content of `S/token` for a token that replaces the existing one: after a restore, the given token is used. True
/// if it named another CA, whose hash is then replaced by ours.
pub fn given_or_new(data: &DataDir, given: &Secret) -> Result<(String, bool), PkiError> {
    let hash = hash_of(&data.certificate("server-ca").certificate)?;
    let parts = parse(given.reveal())?;
    let is_of_another = parts.hash.is_some_and(|theirs| !is_same(theirs, &hash));
    Ok((format!("{PREFIX}{hash}::{USER}:{}\n", parts.password), is_of_another))
}

/// Compares in a time that does not depend on where two secrets of one length differ.
fn is_same(left: &str, right: &str) -> bool {
    constant_time::verify_slices_are_equal(left.as_bytes(), right.as_bytes()).is_ok()
}

fn new_password() -> Result<String, PkiError> {
    crate::random::random::<16>().map(hex::encode).map_err(PkiError::Random)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> (tempfile::TempDir, DataDir) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        durable::create_dir_all(&data.tls(), 0o700).unwrap();
        durable::write_file(&data.certificate("server-ca").certificate, b"pem", 0o600).unwrap();
        (dir, data)
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn a_token_is_made_once_and_kept() {
        let (_dir, data) = data();
        ensure(&data, None).unwrap();
        let first = std::fs::read_to_string(data.token()).unwrap();
        assert!(first.starts_with("K10") && first.contains("::server:"));
        ensure(&data, None).unwrap();
        assert_eq!(std::fs::read_to_string(data.token()).unwrap(), first);
        ensure(&data, Some(&secret(first.trim()))).unwrap();
    }

    #[test]
    fn another_clusters_token_is_refused() {
        let (_dir, data) = data();
        ensure(&data, Some(&secret("pass:with:colons"))).unwrap();
        ensure(&data, Some(&secret("pass:with:colons"))).unwrap();
        assert!(matches!(ensure(&data, Some(&secret("other"))), Err(PkiError::WrongToken(_))));
        let foreign = format!("K10{}::server:pass:with:colons", "0".repeat(64));
        assert!(matches!(ensure(&data, Some(&secret(&foreign))), Err(PkiError::WrongToken(_))));
        for malformed in ["K10abc::server:x", "K10", &format!("K10{}::node:x", "0".repeat(64))] {
            assert!(matches!(ensure(&data, Some(&secret(malformed))), Err(PkiError::TokenForm)), "{malformed}");
        }
    }
}
