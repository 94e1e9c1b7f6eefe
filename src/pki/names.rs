//! The names in a certificate.

use std::collections::BTreeSet;
use std::net::IpAddr;

const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The names that go into the server and peer certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(BTreeSet<String>);

impl Names {
    /// These names and addresses, and loopback.
    #[must_use]
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let all: BTreeSet<String> = LOOPBACK.into_iter().chain(names).map(canonical).collect();
        Self(all)
    }

    #[must_use]
    pub fn all(&self) -> &BTreeSet<String> {
        &self.0
    }

    /// Each name once, in its canonical spelling.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// The canonical spelling of a name or address: names are case-insensitive, and addresses have several forms.
pub(super) fn canonical(name: &str) -> String {
    name.parse::<IpAddr>().map_or_else(|_| name.to_ascii_lowercase(), |address| address.to_string())
}
