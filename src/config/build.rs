//! Texts into the typed [`Config`], and what contradicts itself or this host.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::options::{self, Kind};
use super::owned::owned;
use super::{
    Config, DEFAULT_ELECTION_MILLIS, DEFAULT_HEARTBEAT_MILLIS, EtcdArg, EtcdConfig, LogFormat, Origin, Problem,
    Resolved, Secret, SnapshotConfig,
};
use crate::host::{HostFacts, User};
use crate::pki;
use crate::plan::retention::Policy;
use crate::plan::schedule::Schedule;
use crate::snapshot::file::Packing;
use crate::snapshot::name::Base;

/// A token file may be this large, in bytes.
const LARGEST_TOKEN: u64 = 4096;

impl Kind {
    /// Whether `text` is such a value.
    ///
    /// # Errors
    /// What it should be, as "wants …".
    pub fn check(self, text: &str) -> Result<(), &'static str> {
        let (good, wants) = match self {
            Self::Switch => (switch(text).is_some(), "wants true or false"),
            Self::Text | Self::Path => (!text.is_empty(), "wants a value"),
            Self::Port => (text.parse::<u16>().is_ok_and(|port| port > 0), "wants a port from 1 to 65535"),
            Self::Millis => (millis(text).is_some(), "wants a whole number of milliseconds from 1 to 60000"),
            Self::Bytes => (bytes(text).is_some(), "wants a number of bytes, such as 8589934592 or 8GiB"),
            Self::Address => (IpAddr::from_str(text).is_ok(), "wants an IP address"),
            Self::Label => {
                (is_label(text), "wants a DNS label (lower-case letters, digits and inner hyphens, at most 63)")
            }
            Self::HostName => (is_host_name(text), "wants a DNS name or an IP address"),
            Self::Pair => (pair(text).is_some(), "wants key=value"),
            Self::Compression => (packing(text).is_some(), "wants true, false, zstd or zip"),
            Self::Count => (text.parse::<u32>().is_ok(), "wants a whole number"),
            Self::Retention => (
                text.parse::<Policy>().is_ok(),
                "wants rules such as last=5,daily=7,weekly=4,monthly=12,yearly=3,within=30d",
            ),
            Self::Cron => {
                (text.parse::<Schedule>().is_ok(), "wants a schedule such as 0 */12 * * *, @hourly or @every 5m")
            }
            Self::Base => (text.parse::<Base>().is_ok(), "wants letters, digits and . _ : + - only, at most 128"),
            Self::Choice(words) => (words.contains(&text), "wants text or json"),
        };
        if good { Ok(()) } else { Err(wants) }
    }
}

fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// A switch, or the name of a format.
fn packing(text: &str) -> Option<Packing> {
    match text {
        "zstd" => Some(Packing::Zstd),
        "zip" => Some(Packing::Zip),
        _ => switch(text).map(|compress| if compress { Packing::Zstd } else { Packing::Raw }),
    }
}

fn millis(text: &str) -> Option<u32> {
    let digits = text.strip_suffix("ms").unwrap_or(text).trim_end();
    digits.parse().ok().filter(|millis| (1..=60_000).contains(millis))
}

fn bytes(text: &str) -> Option<u64> {
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
    // etcd takes a signed number.
    number.trim().parse::<u64>().ok()?.checked_mul(factor).filter(|bytes| (1..=i64::MAX as u64).contains(bytes))
}

fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len()) && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_host_name(text: &str) -> bool {
    if IpAddr::from_str(text).is_ok() {
        return true;
    }
    let name = text.strip_prefix("*.").unwrap_or(text).to_ascii_lowercase();
    // Four numbers with dots that are no address are a typing error, not a name.
    let numeric = name.split('.').all(|label| label.chars().all(|c| c.is_ascii_digit()));
    name.len() <= 253 && !numeric && name.split('.').all(is_label)
}

fn pair(text: &str) -> Option<EtcdArg> {
    let (key, value) = text.split_once('=')?;
    let key = key.trim().trim_start_matches('-');
    (!key.is_empty()).then(|| EtcdArg { key: key.to_owned(), value: value.to_owned() })
}

struct Builder<'a> {
    resolved: &'a Resolved,
    problems: &'a mut Vec<Problem>,
}

impl Builder<'_> {
    /// The texts were checked by kind before, so what does not parse here is reported already.
    fn one<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.resolved.one(name).and_then(|(text, _)| parse(text))
    }

    fn list<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
        self.resolved.all(name).iter().filter_map(|(text, _)| parse(text)).collect()
    }

    fn port(&self, name: &str) -> u16 {
        self.one(name, |text| text.parse().ok()).unwrap_or_default()
    }

    fn switch(&self, name: &str) -> bool {
        self.one(name, switch).unwrap_or(false)
    }

    fn problem(&mut self, origin: Origin, message: impl Into<String>) {
        self.problems.push(Problem { origin, message: message.into() });
    }

    fn path(&mut self, name: &str) -> Option<PathBuf> {
        let path = self.one(name, |text| Some(PathBuf::from(text)))?;
        match std::path::absolute(&path) {
            // etcd takes paths as text.
            Ok(path) if path.to_str().is_none() => {
                let message = format!("`{name}` is {}, which is not UTF-8 text", path.display());
                self.problem(self.resolved.origin(name), message);
                None
            }
            Ok(path) => Some(path),
            Err(error) => {
                self.problem(self.resolved.origin(name), format!("`{name}` cannot be made absolute: {error}"));
                None
            }
        }
    }
}

/// The typed configuration; what is wrong goes to `problems`. `None` only if not even a shape of it can be made.
pub(super) fn build(resolved: &Resolved, host: &HostFacts, problems: &mut Vec<Problem>) -> Option<Config> {
    let mut builder = Builder { resolved, problems };
    let data_dir = builder.path("data-dir")?;
    let node_name = node_name(&mut builder, host);
    let node_ips = node_ips(&mut builder, host);
    let args = etcd_args(&mut builder);
    let token = token(&mut builder);
    check_ports(&mut builder);
    check_low_ports(&mut builder);
    check_timing(&mut builder);
    check_reset(&mut builder);
    if let Some(address) = builder.one("bind-address", |text| text.parse().ok()) {
        check_ours(&mut builder, host, "bind-address", address, &resolved.origin("bind-address"), true);
    }
    let log_format = match builder.one("log-format", |text| Some(text == "json")) {
        Some(true) => LogFormat::Json,
        _ => LogFormat::Text,
    };
    Some(Config {
        data_dir,
        debug: builder.switch("debug"),
        log_format,
        node_name,
        node_ips,
        node_external_ips: builder.list("node-external-ip", |text| text.parse().ok()),
        bind_address: builder.one("bind-address", |text| text.parse().ok()),
        supervisor_port: builder.port("supervisor-port"),
        metrics_port: builder.port("metrics-port"),
        tls_sans: builder.list("tls-san", |text| Some(text.to_owned())),
        token,
        etcd: EtcdConfig {
            binary: builder.path("etcd-binary"),
            user: etcd_user(&mut builder),
            args,
            client_port: builder.port("etcd-client-port"),
            peer_port: builder.port("etcd-peer-port"),
            metrics_port: builder.port("etcd-metrics-port"),
            expose_metrics: builder.switch("etcd-expose-metrics"),
            heartbeat_millis: builder.one("etcd-heartbeat-interval", millis),
            election_millis: builder.one("etcd-election-timeout", millis),
            quota_backend_bytes: builder.one("etcd-quota-backend-bytes", bytes).unwrap_or_default(),
        },
        snapshot: SnapshotConfig {
            dir: builder.path("etcd-snapshot-dir"),
            packing: builder.one("etcd-snapshot-compress", packing).unwrap_or_default(),
            retention: builder.one("etcd-snapshot-retention", |text| text.parse().ok()).unwrap_or_default(),
            schedule: builder
                .one("etcd-snapshot-schedule-cron", |text| text.parse().ok())
                .filter(|_| !builder.switch("etcd-disable-snapshots")),
            base: builder.one("etcd-snapshot-name", |text| text.parse().ok()).unwrap_or_default(),
            on_failure: builder.one("etcd-snapshot-on-failure", |text| Some(text.to_owned())),
            rules: builder.one("etcd-snapshot-retention-policy", |text| text.parse().ok()).unwrap_or_default(),
        },
        new_cluster: builder.switch("new-cluster"),
        cluster_reset: builder.switch("cluster-reset"),
        cluster_reset_restore_path: builder.one("cluster-reset-restore-path", |text| Some(text.to_owned())),
    })
}

fn node_name(builder: &mut Builder<'_>, host: &HostFacts) -> String {
    if let Some(name) = builder.one("node-name", |text| Some(text.to_owned())) {
        return name;
    }
    let name = host.hostname.split('.').next().unwrap_or_default().to_lowercase();
    if !is_label(&name) {
        let shown = crate::host::printable(&host.hostname);
        builder.problem(
            Origin::Default,
            format!("this host's name `{shown}` does not begin with a DNS label; set `node-name`"),
        );
    }
    name
}

fn node_ips(builder: &mut Builder<'_>, host: &HostFacts) -> Vec<IpAddr> {
    let given: Vec<(IpAddr, Origin)> = builder
        .resolved
        .all("node-ip")
        .iter()
        .filter_map(|(text, origin)| Some((text.parse().ok()?, origin.clone())))
        .collect();
    for (address, origin) in &given {
        check_ours(builder, host, "node-ip", *address, origin, false);
    }
    if given.is_empty() {
        // A host without a default route still runs: for itself, on loopback.
        return vec![host.default_address.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))];
    }
    given.into_iter().map(|(address, _)| address).collect()
}

fn check_ours(
    builder: &mut Builder<'_>,
    host: &HostFacts,
    name: &str,
    address: IpAddr,
    origin: &Origin,
    unspecified_is_fine: bool,
) {
    if address.is_unspecified() {
        if !unspecified_is_fine {
            builder
                .problem(origin.clone(), format!("`{name}` wants an address that others can reach, not `{address}`"));
        }
        return;
    }
    if !host.has(address) {
        let ours: Vec<String> = host.addresses.iter().map(ToString::to_string).collect();
        builder.problem(
            origin.clone(),
            format!("`{name}`: {address} is not an address of this host, which has {}", ours.join(", ")),
        );
    }
}

fn etcd_user(builder: &mut Builder<'_>) -> Option<User> {
    let name = builder.one("etcd-user", |text| Some(text.to_owned()))?;
    let origin = builder.resolved.origin("etcd-user");
    let us = nix::unistd::geteuid().as_raw();
    let shown = crate::host::printable(&name);
    match User::find(&name) {
        Ok(Some(user)) if user.uid == us => None,
        Ok(Some(_)) if us != 0 => {
            builder.problem(origin, format!("`etcd-user`: only root can run etcd as {shown}; run quorate as root"));
            None
        }
        Ok(Some(user)) => Some(user),
        Ok(None) => {
            let make = "useradd --system --user-group --no-create-home --shell /usr/sbin/nologin";
            builder.problem(origin, format!("`etcd-user`: there is no user {shown} here; make one: {make} {shown}"));
            None
        }
        Err(error) => {
            builder.problem(origin, format!("`etcd-user`: whether there is a user {shown} cannot be told: {error}"));
            None
        }
    }
}

fn etcd_args(builder: &mut Builder<'_>) -> Vec<EtcdArg> {
    let mut args: Vec<EtcdArg> = Vec::new();
    for (text, origin) in builder.resolved.all("etcd-arg").to_vec() {
        let Some(arg) = pair(&text) else { continue };
        if let Some(instead) = owned(&arg.key) {
            builder.problem(origin, format!("`etcd-arg`: `{}` belongs to quorate: {instead}", arg.key));
        } else if arg.key.chars().chain(arg.value.chars()).any(char::is_control) {
            let shown = crate::host::printable(&arg.key);
            builder.problem(origin, format!("`etcd-arg`: `{shown}` has a control character in it"));
        } else if args.iter().any(|other| other.key == arg.key) {
            builder.problem(origin, format!("`etcd-arg`: `{}` is given twice", arg.key));
        } else {
            args.push(arg);
        }
    }
    args
}

fn token(builder: &mut Builder<'_>) -> Option<Secret> {
    let given = builder.one("token", |text| Some(text.trim().to_owned()));
    let file = builder.path("token-file");
    let (text, origin) = match (given, file) {
        (Some(_), Some(_)) => {
            let origin = builder.resolved.origin("token-file");
            builder.problem(origin, "`token` and `token-file` are both set; keep one");
            return None;
        }
        (Some(token), None) => (token, builder.resolved.origin("token")),
        (None, Some(path)) => {
            let origin = builder.resolved.origin("token-file");
            match read_token(&path) {
                Ok(text) => (text, origin),
                Err(why) => {
                    builder.problem(origin, format!("`token-file`: {}: {why}", path.display()));
                    return None;
                }
            }
        }
        (None, None) => return None,
    };
    if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        builder.problem(origin, "the token must be one word without white space");
        return None;
    }
    if !pki::token::is_well_formed(&text) {
        builder.problem(origin, "the token is not of the form K10<hash>::server:<password>, nor a plain password");
        return None;
    }
    Some(Secret::new(text))
}

fn read_token(path: &Path) -> Result<String, String> {
    let explained = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => error.to_string(),
    };
    // Before it is opened: opening a pipe would wait for its other end.
    if !fs::metadata(path).map_err(explained)?.is_file() {
        return Err("it is not a regular file".into());
    }
    let file = fs::File::open(path).map_err(explained)?;
    let mut text = String::new();
    file.take(LARGEST_TOKEN + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > LARGEST_TOKEN {
        return Err(format!("it is larger than {LARGEST_TOKEN} bytes, which no token is"));
    }
    Ok(text.trim().to_owned())
}

fn check_ports(builder: &mut Builder<'_>) {
    let mut users: BTreeMap<u16, &'static str> = BTreeMap::new();
    for spec in options::OPTIONS.iter().filter(|spec| spec.kind == Kind::Port) {
        let port = builder.port(spec.name);
        if port == 0 {
            continue;
        }
        if let Some(other) = users.insert(port, spec.name) {
            // Blame the one that somebody set.
            let (blamed, taken_by) =
                if builder.resolved.is_set(spec.name) { (spec.name, other) } else { (other, spec.name) };
            let message = format!("`{blamed}` is {port}, which is also `{taken_by}`; give each a port of its own");
            builder.problem(builder.resolved.origin(blamed), message);
        }
    }
}

/// etcd loses root's privileges with root's name.
fn check_low_ports(builder: &mut Builder<'_>) {
    if etcd_user(&mut Builder { resolved: builder.resolved, problems: &mut Vec::new() }).is_none() {
        return;
    }
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first: u16 = first.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024);
    for name in ["etcd-client-port", "etcd-peer-port", "etcd-metrics-port"] {
        let port = builder.port(name);
        if port != 0 && port < first {
            let message =
                format!("`{name}` is {port}, and with `etcd-user` etcd may not listen on a port below {first}");
            builder.problem(builder.resolved.origin(name), message);
        }
    }
}

fn check_timing(builder: &mut Builder<'_>) {
    let heartbeat = builder.one("etcd-heartbeat-interval", millis);
    let election = builder.one("etcd-election-timeout", millis);
    if heartbeat.is_none() && election.is_none() {
        return;
    }
    let (heartbeat, election) =
        (heartbeat.unwrap_or(DEFAULT_HEARTBEAT_MILLIS), election.unwrap_or(DEFAULT_ELECTION_MILLIS));
    // etcd's own rules: server/embed/config.go, Validate, and maxElectionMs.
    let blamed = if builder.resolved.is_set("etcd-election-timeout") {
        "etcd-election-timeout"
    } else {
        "etcd-heartbeat-interval"
    };
    let origin = builder.resolved.origin(blamed);
    if election < 5 * heartbeat {
        let message = format!(
            "`etcd-election-timeout` ({election} ms) must be at least five times `etcd-heartbeat-interval` ({heartbeat} ms)"
        );
        builder.problem(origin, message);
    } else if election > 50_000 {
        builder.problem(origin, format!("`etcd-election-timeout` ({election} ms) must be at most 50000 ms"));
    }
}

fn check_reset(builder: &mut Builder<'_>) {
    let reset = builder.switch("cluster-reset");
    let path = builder.resolved.one("cluster-reset-restore-path").map(|(_, origin)| origin.clone());
    if let Some(origin) = path {
        let message = if reset {
            "`cluster-reset-restore-path`: this version of quorate cannot restore yet; nothing was changed"
        } else {
            "`cluster-reset-restore-path` needs `cluster-reset` (and this version of quorate cannot restore yet)"
        };
        builder.problem(origin, message);
    } else if reset {
        let origin = builder.resolved.origin("cluster-reset");
        builder.problem(
            origin,
            "`cluster-reset`: this version of quorate cannot reset a cluster yet; nothing was changed",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::layers::{self, Given};
    use super::*;

    fn host() -> HostFacts {
        HostFacts {
            hostname: "Node-1.example.com".into(),
            addresses: vec!["127.0.0.1".parse().unwrap(), "10.0.0.5".parse().unwrap()],
            default_address: Some("10.0.0.5".parse().unwrap()),
        }
    }

    fn built(options: &[(&'static str, &str)]) -> (Option<Config>, Vec<String>) {
        let mut given = Given::default();
        for (name, text) in options {
            given.options.insert(name, (vec![(*text).to_owned()], Origin::CommandLine((*name).to_owned())));
        }
        let mut problems = Vec::new();
        let resolved = layers::resolve(&given, &layers::FileValues::default(), &mut problems);
        let config = build(&resolved, &host(), &mut problems);
        (config, problems.into_iter().map(|problem| problem.message).collect())
    }

    #[test]
    fn defaults_come_from_the_host() {
        let (config, problems) = built(&[]);
        assert_eq!(problems, Vec::<String>::new());
        let config = config.unwrap();
        assert_eq!(config.node_name, "node-1");
        assert_eq!(config.node_ip().to_string(), "10.0.0.5");
        assert_eq!(config.etcd.quota_backend_bytes, 8 << 30);
        assert_eq!(config.etcd.heartbeat_millis, None);
    }

    #[test]
    fn each_bad_value_is_one_clear_problem() {
        for (options, expected) in [
            (&[("node-name", "No_Label")][..], "DNS label"),
            (&[("node-name", "a.b")], "DNS label"),
            (&[("node-ip", "192.0.2.1")], "192.0.2.1 is not an address of this host, which has 127.0.0.1, 10.0.0.5"),
            (&[("node-ip", "0.0.0.0")], "others can reach"),
            (&[("node-ip", "nope")], "wants an IP address, not `nope`"),
            (&[("etcd-peer-port", "2379")], "`etcd-peer-port` is 2379, which is also `etcd-client-port`"),
            (&[("etcd-client-port", "2380")], "`etcd-client-port` is 2380, which is also `etcd-peer-port`"),
            (&[("etcd-client-port", "0")], "wants a port"),
            (&[("etcd-arg", "data-dir=/x")], "`data-dir` belongs to quorate"),
            (&[("etcd-arg", "--name=x")], "`name` belongs to quorate"),
            (&[("etcd-arg", "max-txn-ops")], "wants key=value"),
            (&[("etcd-election-timeout", "300")], "at least five times"),
            (&[("etcd-heartbeat-interval", "500")], "at least five times"),
            (&[("etcd-quota-backend-bytes", "8GB")], "number of bytes"),
            (&[("tls-san", "10.0.0.256")], "DNS name or an IP address"),
            (&[("token", "a b")], "one word"),
            (&[("token-file", "/does/not/exist")], "there is no such file"),
            (&[("log-format", "xml")], "wants text or json"),
            (&[("cluster-reset", "true")], "cannot reset a cluster yet"),
            (&[("cluster-reset-restore-path", "x")], "needs `cluster-reset`"),
            (&[("debug", "maybe")], "true or false"),
        ] {
            let (_, problems) = built(options);
            assert_eq!(problems.len(), 1, "{options:?}: {problems:?}");
            assert!(problems[0].contains(expected), "{options:?}: {problems:?}");
        }
    }

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, expected) in
            [("1024", Some(1024)), ("8GiB", Some(8 << 30)), ("2 Mi", Some(2 << 20)), ("-1", None), ("0", None)]
        {
            assert_eq!(bytes(text), expected, "{text}");
        }
        assert_eq!(bytes("99999999TiB"), None, "larger than etcd can count");
    }

    #[test]
    fn token_texts_do_not_reach_messages_or_debug_output() {
        let (config, problems) = built(&[("token", "hunter2 x")]);
        assert!(!format!("{config:?}{problems:?}").contains("hunter2"));
        let (config, _) = built(&[("token", "hunter2")]);
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
