//! Versions of etcd, and the range that quorate supports.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `major.minor.patch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Always 3 so far.
    pub major: u32,
    /// The minor version: data formats and settings depend on it.
    pub minor: u32,
    pub patch: u32,
}

impl Version {
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    pub const OLDEST: Self = Self::new(3, 4, 0);
    pub const NEWEST: Self = Self::new(3, 7, 0);

    /// True for 3.4 to 3.7.
    #[must_use]
    pub fn is_supported(self) -> bool {
        self.major == Self::OLDEST.major && (Self::OLDEST.minor..=Self::NEWEST.minor).contains(&self.minor)
    }

    /// `3.5`.
    #[must_use]
    pub fn minor_text(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a version of etcd")]
pub struct NotAVersion(String);

impl NotAVersion {
    fn cut(text: &str) -> Self {
        const MAX_SHOWN_BYTES: usize = 80;
        let mut shown: String = crate::text::escape_control(text).chars().take(MAX_SHOWN_BYTES).collect();
        if text.chars().nth(MAX_SHOWN_BYTES).is_some() {
            shown.push('…');
        }
        Self(shown)
    }
}

impl FromStr for Version {
    type Err = NotAVersion;

    /// Parses `3.5.16`, also with a suffix such as `-rc.1` or `+git`, which is dropped.
    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let plain = text.split(['-', '+']).next().unwrap_or_default();
        let mut parts = plain.split('.').map(str::parse::<u32>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Ok(Self { major, minor, patch }),
            _ => Err(NotAVersion::cut(text)),
        }
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The version in the output of `etcd --version`.
pub fn of_banner(banner: &str) -> Result<Version, NotAVersion> {
    banner
        .lines()
        .find_map(|line| line.strip_prefix("etcd Version:"))
        .ok_or_else(|| NotAVersion::cut(banner.lines().next().unwrap_or_default()))
        .and_then(|text| text.trim().parse())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banners_of_real_binaries_are_read() {
        let banner =
            "etcd Version: 3.4.23\nGit SHA: Not provided (use ./build instead of go build)\nGo Version: go1.19.8\n";
        assert_eq!(of_banner(banner), Ok(Version::new(3, 4, 23)));
        assert_eq!(of_banner("etcd Version: 3.7.0-rc.1\n"), Ok(Version::new(3, 7, 0)));
        assert!(of_banner("GNU coreutils 9.1\n").is_err());
        assert!(of_banner("").is_err());
    }

    #[test]
    fn support_ends_where_it_says() {
        for (text, supported) in
            [("3.3.27", false), ("3.4.0", true), ("3.7.9", true), ("3.8.0", false), ("2.3.8", false)]
        {
            assert_eq!(text.parse::<Version>().unwrap().is_supported(), supported, "{text}");
        }
    }
}
