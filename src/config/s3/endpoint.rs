//! Parses `etcd-s3-endpoint`, and derives the region from it.

use std::net::IpAddr;

use hyper::Uri;
use hyper::http::uri::Authority;

use crate::config::s3::error::{S3ConfigError, wrong};
use crate::text::escape_control;

const OPTION: &str = "etcd-s3-endpoint";
/// AWS, whose endpoints follow from the region.
const AWS: &str = "s3.amazonaws.com";

pub(super) struct Endpoint {
    pub(super) url: Option<String>,
    /// For messages: host, and port if there is one.
    pub(super) host: String,
    pub(super) is_plain: bool,
    /// Without scheme, surrounding blanks and slashes.
    rest: String,
}

/// Whether `text` is a valid endpoint.
pub(in crate::config) fn check_endpoint(text: &str) -> Result<(), String> {
    Endpoint::of(Some(text), false).map(drop).map_err(|error| error.what)
}

impl Endpoint {
    pub(super) fn of(text: Option<&str>, insecure: bool) -> Result<Self, S3ConfigError> {
        let text = text.unwrap_or(AWS).trim();
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
            None if insecure => ("http".to_owned(), text),
            None => ("https".to_owned(), text),
        };
        let is_plain = match scheme.as_str() {
            "https" if insecure => {
                return Err(wrong(OPTION, "has the scheme https, but `etcd-s3-insecure` means plain HTTP; remove one"));
            }
            "https" => false,
            "http" => true,
            _ => return Err(wrong(OPTION, "must be a host, or a URL with http or https")),
        };
        let rest = rest.trim_end_matches('/');
        let url = format!("{scheme}://{rest}");
        let parsed: Option<Uri> = url.parse().ok().filter(|_| !rest.contains(['?', '#', '@']));
        let Some(authority) = parsed.as_ref().and_then(Uri::authority).filter(|found| can_connect(found)) else {
            // The part before it may be a password.
            let shown = escape_control(rest.rsplit('@').next().unwrap_or_default());
            return Err(wrong(OPTION, format!("must be a host, host:port or URL, not `{shown}`")));
        };
        let is_aws = rest == AWS && !is_plain;
        Ok(Self { host: authority.to_string(), url: (!is_aws).then_some(url), is_plain, rest: rest.to_owned() })
    }

    /// Control panels show URLs that end with the bucket name, which would then be used twice.
    pub(super) fn without(&self, bucket: &str) -> Result<(), S3ConfigError> {
        let (host, path) = self.rest.split_once('/').unwrap_or((&self.rest, ""));
        let without = match (path.rsplit_once('/'), host.strip_prefix(bucket).and_then(|rest| rest.strip_prefix('.'))) {
            (Some((before, last)), _) if last == bucket => format!("{host}/{before}"),
            (None, _) if path == bucket => host.to_owned(),
            (_, Some(rest)) if rest.starts_with("s3.") || rest.starts_with("s3-") => rest.to_owned(),
            _ => return Ok(()),
        };
        let without = escape_control(&without);
        Err(wrong(
            OPTION,
            format!("contains the bucket `{bucket}`, which belongs to etcd-s3-bucket only: use {without}"),
        ))
    }

    /// The region, if the host name contains it.
    pub(super) fn region(&self) -> Option<&str> {
        region_of(self.rest.split(['/', ':']).next()?)
    }
}

/// True for a valid host and port.
pub(super) fn can_connect(authority: &Authority) -> bool {
    let host = authority.host();
    let has_port = authority.as_str().rsplit('@').next().is_some_and(|rest| rest.len() > host.len());
    let is_port_good = if has_port { authority.port_u16().is_some_and(|port| port > 0) } else { true };
    let is_host_good = if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6())
    } else {
        // Names of containers contain underscores.
        let is_good = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let is_part = |part: &str| !part.is_empty() && part.chars().all(is_good);
        let is_number = host.split('.').all(|part| part.chars().all(|c| c.is_ascii_digit()));
        host.trim_end_matches('.').split('.').all(is_part) && (!is_number || host.parse::<IpAddr>().is_ok())
    };
    is_port_good && is_host_good
}

/// The text before and after the region in the host names of known stores.
const REGIONS: &[(&str, &str)] = &[
    ("s3.dualstack.", ".amazonaws.com"),
    ("s3-fips.dualstack.", ".amazonaws.com"),
    ("s3-fips.", ".amazonaws.com"),
    ("s3.", ".amazonaws.com"),
    ("s3-", ".amazonaws.com"),
    ("s3.", ".amazonaws.com.cn"),
    ("s3.", ".wasabisys.com"),
    ("s3.", ".backblazeb2.com"),
    ("s3.", ".scw.cloud"),
    ("s3.", ".io.cloud.ovh.net"),
    ("s3.", ".cloud.ovh.net"),
    ("s3.", ".cloud-object-storage.appdomain.cloud"),
    ("s3.", ".idrivee2.com"),
    ("", ".digitaloceanspaces.com"),
    ("", ".linodeobjects.com"),
    ("", ".vultrobjects.com"),
    ("", ".your-objectstorage.com"),
    ("sos-", ".exo.io"),
    ("obs.", ".myhuaweicloud.com"),
    ("cos.", ".myqcloud.com"),
];

const WITHOUT_REGIONS: &[&str] = &[".r2.cloudflarestorage.com", "storage.googleapis.com"];

fn region_of(host: &str) -> Option<&str> {
    if WITHOUT_REGIONS.iter().any(|store| host.ends_with(store)) {
        return Some("auto");
    }
    // Oracle's names begin with the tenancy.
    if let Some((_, region)) =
        host.strip_suffix(".oraclecloud.com").and_then(|rest| rest.split_once(".compat.objectstorage."))
    {
        return Some(region);
    }
    let is_region =
        |text: &str| !text.is_empty() && text != "s3" && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    REGIONS
        .iter()
        .find_map(|(before, after)| host.strip_prefix(before)?.strip_suffix(after).filter(|region| is_region(region)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_follows_from_the_host_of_a_known_store() {
        for (host, expected) in [
            ("s3.eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("s3-us-west-2.amazonaws.com", Some("us-west-2")),
            ("s3.dualstack.eu-north-1.amazonaws.com", Some("eu-north-1")),
            ("s3-fips.us-gov-west-1.amazonaws.com", Some("us-gov-west-1")),
            ("s3.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("s3.eu-central-2.wasabisys.com", Some("eu-central-2")),
            ("s3.us-west-004.backblazeb2.com", Some("us-west-004")),
            ("fra1.digitaloceanspaces.com", Some("fra1")),
            ("s3.fr-par.scw.cloud", Some("fr-par")),
            ("s3.gra.io.cloud.ovh.net", Some("gra")),
            ("sos-ch-gva-2.exo.io", Some("ch-gva-2")),
            ("axaxnpcrorw5.compat.objectstorage.eu-frankfurt-1.oraclecloud.com", Some("eu-frankfurt-1")),
            ("0123456789abcdef.r2.cloudflarestorage.com", Some("auto")),
            ("storage.googleapis.com", Some("auto")),
            ("s3.amazonaws.com", None),
            ("s3.wasabisys.com", None),
            ("minio.example.com", None),
            ("s3.example.com", None),
        ] {
            assert_eq!(region_of(host), expected, "{host}");
            assert_eq!(
                Endpoint::of(Some(&format!("https://{host}:443/x")), false).unwrap().region(),
                expected,
                "{host}"
            );
        }
    }

    #[test]
    fn what_can_be_no_url_is_refused() {
        for text in [
            "http://127.0.0.1:99999",
            "127.0.0.1:99999",
            "store:0",
            "store:port",
            "http://",
            "https:///x",
            "a..b",
            "10.0.0.256:9000",
            "http://[::1]:99999",
            "http://[10.0.0.1]",
            "store?x=1",
            "store/#x",
            "two words",
            "ftp://x",
            "s3://bucket",
            "-://x",
            ":9000",
            "http://http://store",
            "store, other",
        ] {
            assert!(Endpoint::of(Some(text), false).is_err(), "{text}");
        }
        for (text, host) in [
            ("HTTP://Store:9000", "Store:9000"),
            ("  https://store/  ", "store"),
            ("my_minio:9000", "my_minio:9000"),
            ("http://[::1]:9000", "[::1]:9000"),
            ("store.example.com.", "store.example.com."),
            ("10.0.0.5", "10.0.0.5"),
        ] {
            assert_eq!(Endpoint::of(Some(text), false).unwrap().host, host, "{text}");
        }
        for (text, bucket, instead) in [
            ("https://0a.r2.cloudflarestorage.com/backups", "backups", "use 0a.r2.cloudflarestorage.com"),
            ("https://store/s3/backups/", "backups", "use store/s3"),
            ("https://backups.s3.eu-west-1.amazonaws.com", "backups", "use s3.eu-west-1.amazonaws.com"),
        ] {
            let error = Endpoint::of(Some(text), false).unwrap().without(bucket).unwrap_err();
            assert!(error.what.ends_with(instead), "{error}");
        }
        for (text, bucket) in [("backup.example.com", "backup"), ("https://store/s3", "backups"), ("s3.x.com", "s3.")] {
            assert!(Endpoint::of(Some(text), false).unwrap().without(bucket).is_ok(), "{text}");
        }
    }
}
