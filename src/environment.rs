//! The environment of this process, as it was at the start.
//!
//! It is read once, before the values of secrets are overwritten in what `ps` shows (`cli::mask`): the standard library reads the same
//! memory, so a later look would find asterisks. clippy.toml bans those functions everywhere else.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;

static AT_START: OnceLock<BTreeMap<OsString, OsString>> = OnceLock::new();

/// All variables. The first call reads them.
#[allow(clippy::disallowed_methods, reason = "this is the one reader")]
pub fn all() -> &'static BTreeMap<OsString, OsString> {
    AT_START.get_or_init(|| std::env::vars_os().collect())
}

#[must_use]
pub fn value(name: impl AsRef<OsStr>) -> Option<&'static OsStr> {
    all().get(name.as_ref()).map(OsString::as_os_str)
}

/// The value of a variable that is UTF-8 text.
#[must_use]
pub fn text(name: &str) -> Option<&'static str> {
    value(name)?.to_str()
}
