//! Checks and parses the texts of options.

use std::net::IpAddr;
use std::str::FromStr;

use crate::compression::Compression;
use crate::config::etcd_arg::EtcdArg;
use crate::config::options::OptionKind;
use crate::plan::retention::{NotAPolicy, Policy};
use crate::plan::schedule::Schedule;
use crate::plan::snapshot_name::NamePrefix;
use crate::text::duration;

impl OptionKind {
    /// Whether `text` is such a value.
    pub fn check(self, text: &str) -> Result<(), String> {
        if let Self::Choice(words) = self {
            return if words.contains(&text) { Ok(()) } else { Err(format!("must be {}", words.join(" or "))) };
        }
        if let (Self::Retention, Err(NotAPolicy::Age { source, .. })) = (self, text.parse::<Policy>()) {
            return Err(source.to_string());
        }
        let (good, requirement) = match self {
            Self::Switch => (switch(text).is_some(), "must be true or false"),
            Self::Text | Self::Path => (!text.trim().is_empty(), "must have a value"),
            Self::Endpoint => return crate::config::s3::endpoint::check_endpoint(text),
            Self::Snapshot => {
                (!text.trim().is_empty(), "must name the snapshot to restore: a name, a path or s3://BUCKET/KEY")
            }
            Self::Port => (text.parse::<u16>().is_ok_and(|port| port > 0), "must be a port from 1 to 65535"),
            Self::Millis => (millis(text).is_some(), "must be a whole number of milliseconds from 1 to 60000"),
            Self::Bytes => (bytes(text).is_some(), "must be a number of bytes, such as 8589934592 or 8GiB"),
            Self::Address => (IpAddr::from_str(text).is_ok(), "must be an IP address"),
            Self::DnsLabel => {
                (is_label(&text.to_lowercase()), "must be a DNS label (letters, digits and inner hyphens, at most 63)")
            }
            Self::HostName => (is_host_name(text), "must be a DNS name or an IP address"),
            Self::KeyValue => (pair(text).is_some(), "must be key=value"),
            Self::Compression => (packing(text).is_some(), "must be true, false, zstd or zip"),
            Self::Count => (text.parse::<u32>().is_ok(), "must be a whole number"),
            Self::Number => (text.parse::<u64>().is_ok(), "must be a whole number"),
            Self::Retention => (
                text.parse::<Policy>().is_ok(),
                "must be rules such as last=5,daily=7,weekly=4,monthly=12,yearly=3,within=30d",
            ),
            Self::Cron => return text.parse::<Schedule>().map(drop).map_err(|error| error.to_string()),
            Self::Duration => {
                (duration::parse(text).is_some_and(|seconds| seconds > 0), "must be a duration such as 30s, 10m or 2h")
            }
            Self::SnapshotName => {
                (text.parse::<NamePrefix>().is_ok(), "must have only letters, digits and . _ : + -, at most 128")
            }
            Self::Choice(_) => (true, ""),
        };
        if good { Ok(()) } else { Err(requirement.to_owned()) }
    }
}

pub(super) fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// A switch, or the name of a format.
pub(super) fn packing(text: &str) -> Option<Compression> {
    let switched = || switch(text).map(|compress| if compress { Compression::Zstd } else { Compression::Raw });
    Compression::named(text).or_else(switched)
}

pub(super) fn millis(text: &str) -> Option<u32> {
    let digits = text.strip_suffix("ms").unwrap_or(text).trim_end();
    digits.parse().ok().filter(|millis| (1..=60_000).contains(millis))
}

pub(super) fn bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 8] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
    ];
    let unit = UNITS.iter().find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number, *factor)));
    let (number, factor) = unit.unwrap_or((text, 1));
    // etcd accepts a signed number.
    number.trim().parse::<u64>().ok()?.checked_mul(factor).filter(|bytes| (1..=i64::MAX as u64).contains(bytes))
}

pub(super) fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len()) && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_host_name(text: &str) -> bool {
    if IpAddr::from_str(text).is_ok() {
        return true;
    }
    let name = text.strip_prefix("*.").unwrap_or(text).to_ascii_lowercase();
    // Four numbers with dots that are not an address are a mistake, not a name.
    let numeric = name.split('.').all(|label| label.chars().all(|c| c.is_ascii_digit()));
    name.len() <= 253 && !numeric && name.split('.').all(is_label)
}

pub(super) fn pair(text: &str) -> Option<EtcdArg> {
    let (key, value) = text.split_once('=')?;
    let key = key.trim().trim_start_matches('-');
    (!key.is_empty()).then(|| EtcdArg { key: key.to_owned(), value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, expected) in
            [("1024", Some(1024)), ("8GiB", Some(8 << 30)), ("2 Mi", Some(2 << 20)), ("-1", None), ("0", None)]
        {
            assert_eq!(bytes(text), expected, "{text}");
        }
        assert_eq!(bytes("99999999TiB"), None, "larger than etcd can count");
    }
}
