//! Names of snapshots: `<base>-<node>-<unix seconds>`, with `.zst` or `.zip` if compressed.

use std::fmt;

use crate::compression::Compression;

const MAX_PREFIX_BYTES: usize = 128;
pub const ON_DEMAND: &str = "on-demand";

/// A base name: `[A-Za-z0-9._:+-]{1,128}`, not beginning with a dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePrefix(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a valid snapshot name: letters, digits and . _ : + - only, at most {MAX_PREFIX_BYTES}, not beginning with a dot", crate::text::escape_control(.0))]
pub struct InvalidPrefix(String);

impl std::str::FromStr for NamePrefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let is_good = |c: char| c.is_ascii_alphanumeric() || "._:+-".contains(c);
        let is_base =
            (1..=MAX_PREFIX_BYTES).contains(&text.len()) && text.chars().all(is_good) && !text.starts_with('.');
        if is_base {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidPrefix(text.chars().take(2 * MAX_PREFIX_BYTES).collect()))
        }
    }
}

impl NamePrefix {
    /// Base name of snapshots taken before a reset or restore.
    #[must_use]
    pub fn pre_restore() -> Self {
        Self("pre-restore".to_owned())
    }

    /// Base name of snapshots of data that vanished while etcd was running.
    #[must_use]
    pub fn rescue() -> Self {
        Self("rescue".to_owned())
    }
}

impl Default for NamePrefix {
    fn default() -> Self {
        Self("etcd-snapshot".to_owned())
    }
}

impl fmt::Display for NamePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The file name of a snapshot taken at a time.
#[must_use]
pub fn compose(base: &NamePrefix, node: &str, unix_seconds: u64, packing: Compression) -> String {
    let ending = match packing {
        Compression::Raw => "",
        Compression::Zstd => ".zst",
        Compression::Zip => ".zip",
    };
    format!("{base}-{node}-{unix_seconds}{ending}")
}

/// The file name without the extension of the compression; unique per snapshot.
#[must_use]
pub fn stem(file_name: &str) -> &str {
    [".zst", ".zip"].iter().find_map(|ending| file_name.strip_suffix(ending)).unwrap_or(file_name)
}

/// The time in a file name, in seconds since 1970, if it has quorate's form (or that of k3s or RKE2).
#[must_use]
pub fn taken_at(file_name: &str) -> Option<u64> {
    let (_, digits) = stem(file_name).rsplit_once('-')?;
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn base_names_are_checked() {
        for good in ["on-demand", "a", "A.b_c:d+e-f", &"x".repeat(128)] {
            assert!(good.parse::<NamePrefix>().is_ok(), "{good}");
        }
        for bad in ["", "a/b", "..", ".hidden", "a b", "a\nb", "ä", &"x".repeat(129), "../../etc/passwd", "a\u{1b}[2J"]
        {
            assert!(bad.parse::<NamePrefix>().is_err(), "{bad}");
        }
        assert!(!"a\u{1b}[2J".parse::<NamePrefix>().unwrap_err().to_string().contains('\u{1b}'));
    }

    #[test]
    fn the_time_is_found_in_names_of_every_maker() {
        for (name, expected) in [
            ("on-demand-server-1-1700000000", Some(1_700_000_000)),
            ("etcd-snapshot-node-1700000000.zip", Some(1_700_000_000)),
            ("etcd-snapshot-node-1700000000.zst", Some(1_700_000_000)),
            ("2026-11-21T03:00:00Z_etcd", None),
            ("snapshot.db", None),
            ("x-", None),
            ("x-99999999999999999999999", None),
        ] {
            assert_eq!(taken_at(name), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_is_composed_is_found_again_and_is_no_path(
            base in "[A-Za-z0-9_:+-][A-Za-z0-9._:+-]{0,127}", node in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", at: u64,
        ) {
            let base: NamePrefix = base.parse().unwrap();
            for packing in [Compression::Raw, Compression::Zstd, Compression::Zip] {
                let name = compose(&base, &node, at, packing);
                prop_assert_eq!(taken_at(&name), Some(at));
                prop_assert!(!name.contains('/') && !name.starts_with('.') && name.len() <= 255);
                let raw = compose(&base, &node, at, Compression::Raw);
                prop_assert_eq!(stem(&name), stem(&raw));
            }
        }
    }
}
