//! The settings of the child, and their names in each version of etcd.
//!
//! Given the configuration, the identity of the member and the version of the binary, returns the flags of etcd's
//! command line. Flags, not a file: every version of etcd rejects unknown flags, but ignores unknown keys in its file.
//! None of them is secret. `docs/etcd-settings.md` has the table of differences between versions, and a test compares
//! it with this code.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::config::{Config, DEFAULT_ELECTION_MILLIS, DEFAULT_HEARTBEAT_MILLIS, EtcdArg};
use crate::datadir::DataDir;
use crate::host;
use crate::version::Version;

/// Heartbeat interval while this member is the only one, in milliseconds.
///
/// A single member has no competitor in an election, but etcd still waits a random part of the election timeout at a
/// restart: up to 2 s with 100/1000 on 3.4 and 3.5 (measured). With 20/100 it is ready within 0.2 s.
pub const SINGLE_MEMBER_HEARTBEAT_MILLIS: u32 = 20;
/// Election timeout while this member is the only one, in milliseconds; etcd requires at least five heartbeats.
pub const SINGLE_MEMBER_ELECTION_MILLIS: u32 = 100;

/// The identity of the member and its start mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub beginning: StartMode,
    /// True if no other member is known.
    pub is_alone: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartMode {
    /// As the first member of a new cluster, whose ID is made unique by this text.
    NewCluster {
        /// etcd's `initial-cluster-token`.
        token: String,
    },
    /// From its data. If that data has no log any more, etcd refuses to start a new cluster.
    ExistingData,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub key: String,
    pub value: String,
}

impl Setting {
    fn new(key: &str, value: impl Into<String>) -> Self {
        Self { key: key.to_owned(), value: value.into() }
    }

    /// `--key=value`.
    #[must_use]
    pub fn flag(&self) -> String {
        format!("--{}={}", self.key, self.value)
    }
}

/// A setting whose name or existence depends on the version.
#[derive(Clone, Copy, Debug)]
pub struct Versioned {
    pub purpose: &'static str,
    /// From this version on (inclusive) …
    pub from: Version,
    /// … to this one (exclusive).
    pub until: Version,
    pub key: &'static str,
    pub value: &'static str,
}

const FOREVER: Version = Version::new(u32::MAX, 0, 0);
const V3_4: Version = Version::new(3, 4, 0);
const V3_5_5: Version = Version::new(3, 5, 5);
const V3_6: Version = Version::new(3, 6, 0);

/// The settings that differ between versions. Several rows with the key `feature-gates` are joined into one flag.
pub const VERSIONED: &[Versioned] = &[
    Versioned {
        purpose: "corruption check at start",
        from: V3_4,
        until: V3_6,
        key: "experimental-initial-corrupt-check",
        value: "true",
    },
    Versioned {
        purpose: "corruption check at start",
        from: V3_6,
        until: FOREVER,
        key: FEATURE_GATES,
        value: "InitialCorruptCheck=true",
    },
    Versioned {
        purpose: "hash check at compaction",
        from: V3_5_5,
        until: V3_6,
        key: "experimental-compact-hash-check-enabled",
        value: "true",
    },
    Versioned {
        purpose: "hash check at compaction",
        from: V3_6,
        until: FOREVER,
        key: FEATURE_GATES,
        value: "CompactHashCheck=true",
    },
    // Off by default in 3.4 only; without it a partitioned member disturbs the others when it returns.
    Versioned { purpose: "vote only if it can be won", from: V3_4, until: FOREVER, key: "pre-vote", value: "true" },
    // The default of 3.6; 100000 before, which keeps ten times as many log entries in memory.
    Versioned {
        purpose: "entries between raft snapshots",
        from: V3_4,
        until: FOREVER,
        key: "snapshot-count",
        value: "10000",
    },
    // The default since 3.5; 3.4 logs in an older format otherwise.
    Versioned { purpose: "log lines as JSON", from: V3_4, until: FOREVER, key: "logger", value: "zap" },
];

const FEATURE_GATES: &str = "feature-gates";

/// The URLs that etcd listens on and advertises, from the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For clients: loopback, then the node's address.
    pub client: Vec<SocketAddr>,
    pub peer: Vec<SocketAddr>,
    pub metrics: Vec<SocketAddr>,
}

impl Addresses {
    /// The URLs for `config`.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let node = config.node_ip();
        let loopback = host::loopback_for(node);
        let both = |port: u16| {
            let mut addresses = vec![SocketAddr::new(loopback, port)];
            if node != loopback {
                addresses.push(SocketAddr::new(node, port));
            }
            addresses
        };
        let metrics = if config.etcd.expose_metrics {
            both(config.etcd.metrics_port)
        } else {
            vec![SocketAddr::new(loopback, config.etcd.metrics_port)]
        };
        Self { client: both(config.etcd.client_port), peer: both(config.etcd.peer_port), metrics }
    }

    /// The URL for remote clients, which etcd advertises.
    #[must_use]
    pub fn client_url(config: &Config) -> String {
        url("https", SocketAddr::new(config.node_ip(), config.etcd.client_port))
    }

    /// The URL that other members use.
    #[must_use]
    pub fn peer_url(config: &Config) -> String {
        url("https", SocketAddr::new(config.node_ip(), config.etcd.peer_port))
    }

    /// The URL that the launcher itself uses.
    #[must_use]
    pub fn local_client_url(config: &Config) -> String {
        let loopback: IpAddr = host::loopback_for(config.node_ip());
        url("https", SocketAddr::new(loopback, config.etcd.client_port))
    }
}

fn url(scheme: &str, address: SocketAddr) -> String {
    format!("{scheme}://{address}")
}

fn urls(scheme: &str, addresses: &[SocketAddr]) -> String {
    addresses.iter().map(|address| url(scheme, *address)).collect::<Vec<_>>().join(",")
}

/// All flags of the child, in a fixed order; those of the operator come last and override others.
#[must_use]
pub fn settings(config: &Config, data: &DataDir, identity: &Identity, version: Version) -> Vec<Setting> {
    let addresses = Addresses::of(config);
    let peer_url = Addresses::peer_url(config);
    let mut all = vec![
        Setting::new("name", &identity.name),
        Setting::new("data-dir", data.etcd().to_string_lossy()),
        Setting::new("listen-client-urls", urls("https", &addresses.client)),
        Setting::new("advertise-client-urls", Addresses::client_url(config)),
        Setting::new("listen-peer-urls", urls("https", &addresses.peer)),
        Setting::new("initial-advertise-peer-urls", &peer_url),
        Setting::new("listen-metrics-urls", urls("http", &addresses.metrics)),
        Setting::new("initial-cluster", format!("{}={peer_url}", identity.name)),
    ];
    match &identity.beginning {
        StartMode::NewCluster { token } => {
            all.push(Setting::new("initial-cluster-state", "new"));
            all.push(Setting::new("initial-cluster-token", token));
        }
        StartMode::ExistingData => all.push(Setting::new("initial-cluster-state", "existing")),
    }
    all.extend(transport_security(data));
    all.extend(timing(config, identity.is_alone));
    all.push(Setting::new("quota-backend-bytes", config.etcd.quota_backend_bytes.to_string()));
    all.push(Setting::new("auto-compaction-mode", "periodic"));
    all.push(Setting::new("auto-compaction-retention", "1h"));
    all.push(Setting::new("log-outputs", "stderr"));
    all.push(Setting::new("log-level", if config.debug { "debug" } else { "info" }));
    for row in VERSIONED.iter().filter(|row| row.from <= version && version < row.until) {
        set(&mut all, row.key, row.value);
    }
    for EtcdArg { key, value } in &config.etcd.args {
        set(&mut all, key, value);
    }
    all
}

/// Like [`settings`], for an isolated etcd: on two loopback ports, for clients and peers, with the certificates of
/// `trust`, on the data in `dir`. It logs little, and serves no metrics.
#[must_use]
pub fn isolated_settings(
    config: &Config,
    trust: &DataDir,
    identity: &Identity,
    version: Version,
    dir: &Path,
    [client, peer]: [u16; 2],
    quota: u64,
) -> Vec<Setting> {
    let mut all = settings(config, trust, identity, version);
    all.retain(|setting| setting.key != "listen-metrics-urls");
    let loopback = |port| url("https", SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    set(&mut all, "data-dir", &dir.to_string_lossy());
    set(&mut all, "listen-client-urls", &loopback(client));
    set(&mut all, "listen-peer-urls", &loopback(peer));
    set(&mut all, "quota-backend-bytes", &quota.to_string());
    set(&mut all, "log-level", if config.debug { "debug" } else { "error" });
    all
}

fn transport_security(data: &DataDir) -> Vec<Setting> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let mut all = Vec::new();
    for (prefix, leaf, authority) in [("", "server-client", "server-ca"), ("peer-", "peer-server-client", "peer-ca")] {
        let files = data.certificate(leaf);
        all.push(Setting::new(&format!("{prefix}cert-file"), text(files.certificate)));
        all.push(Setting::new(&format!("{prefix}key-file"), text(files.key)));
        all.push(Setting::new(&format!("{prefix}trusted-ca-file"), text(data.certificate(authority).certificate)));
        all.push(Setting::new(&format!("{prefix}client-cert-auth"), "true"));
    }
    all
}

fn timing(config: &Config, is_alone: bool) -> [Setting; 2] {
    let is_given = ["heartbeat-interval", "election-timeout"].iter().any(|key| config.etcd.argument(key).is_some());
    let (heartbeat, election) = match (config.etcd.heartbeat_millis, config.etcd.election_millis) {
        (None, None) if is_alone && !is_given => (SINGLE_MEMBER_HEARTBEAT_MILLIS, SINGLE_MEMBER_ELECTION_MILLIS),
        (heartbeat, election) => {
            (heartbeat.unwrap_or(DEFAULT_HEARTBEAT_MILLIS), election.unwrap_or(DEFAULT_ELECTION_MILLIS))
        }
    };
    [Setting::new("heartbeat-interval", heartbeat.to_string()), Setting::new("election-timeout", election.to_string())]
}

/// Replaces a setting, or appends to the list of feature gates, of which etcd uses the last value of each.
fn set(all: &mut Vec<Setting>, key: &str, value: &str) {
    match all.iter_mut().find(|setting| setting.key == key) {
        Some(setting) if key == FEATURE_GATES => setting.value = format!("{},{value}", setting.value),
        Some(setting) => value.clone_into(&mut setting.value),
        None => all.push(Setting::new(key, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EtcdConfig, LogFormat};

    fn config() -> Config {
        Config {
            invocation: crate::plan::command::Invocation::default(),
            data_dir: "/d".into(),
            debug: false,
            log_format: LogFormat::Text,
            node_name: "n".into(),
            node_ips: vec!["10.0.0.5".parse().unwrap()],
            node_external_ips: vec![],
            bind_address: None,
            supervisor_port: 9345,
            metrics_port: 9346,
            tls_sans: vec![],
            server: None,
            token: None,
            etcd: EtcdConfig {
                binary: None,
                user: None,
                args: vec![],
                client_port: 2379,
                peer_port: 2380,
                metrics_port: 2381,
                expose_metrics: false,
                heartbeat_millis: None,
                election_millis: None,
                quota_backend_bytes: 1 << 33,
            },
            snapshot: crate::config::SnapshotConfig::default(),
            maintenance: crate::config::MaintenanceConfig::default(),
            new_cluster: false,
            cluster_reset: false,
            cluster_reset_restore_path: None,
            cluster_reset_bump_revision: 0,
            etcd_old_retention: 3,
        }
    }

    fn value(config: &Config, version: &str, is_alone: bool, key: &str) -> Option<String> {
        let identity = Identity { name: "n-1".into(), beginning: StartMode::ExistingData, is_alone };
        let all = settings(config, &DataDir::new(&config.data_dir), &identity, version.parse().unwrap());
        let mut found = all.iter().filter(|setting| setting.key == key);
        let first = found.next().map(|setting| setting.value.clone());
        assert_eq!(found.next(), None, "{key} twice");
        first
    }

    #[test]
    fn each_version_gets_the_names_that_it_has() {
        for (version, old_name, hash, gates) in [
            ("3.4.23", Some("true"), None, None),
            ("3.5.4", Some("true"), None, None),
            ("3.5.30", Some("true"), Some("true"), None),
            ("3.6.0", None, None, Some("InitialCorruptCheck=true,CompactHashCheck=true")),
            ("3.7.3", None, None, Some("InitialCorruptCheck=true,CompactHashCheck=true")),
        ] {
            let get = |key| value(&config(), version, false, key);
            assert_eq!(get("experimental-initial-corrupt-check").as_deref(), old_name, "{version}");
            assert_eq!(get("experimental-compact-hash-check-enabled").as_deref(), hash, "{version}");
            assert_eq!(get(FEATURE_GATES).as_deref(), gates, "{version}");
        }
    }

    #[test]
    fn a_single_member_need_not_wait_for_an_election_by_default() {
        let mut config = config();
        assert_eq!(value(&config, "3.5.30", true, "election-timeout").as_deref(), Some("100"));
        assert_eq!(value(&config, "3.5.30", false, "election-timeout").as_deref(), Some("1000"));
        assert_eq!(value(&config, "3.5.30", false, "heartbeat-interval").as_deref(), Some("100"));
        let arg = EtcdArg { key: "heartbeat-interval".into(), value: "150".into() };
        config.etcd.args = vec![arg];
        assert_eq!(value(&config, "3.5.30", true, "heartbeat-interval").as_deref(), Some("150"));
        assert_eq!(
            value(&config, "3.5.30", true, "election-timeout").as_deref(),
            Some("1000"),
            "etcd requires five heartbeats"
        );
        config.etcd.args.clear();
        config.etcd.election_millis = Some(5000);
        assert_eq!(value(&config, "3.5.30", true, "election-timeout").as_deref(), Some("5000"));
        assert_eq!(value(&config, "3.5.30", true, "heartbeat-interval").as_deref(), Some("100"));
    }

    #[test]
    fn arguments_override_and_feature_gates_add_up() {
        let mut config = config();
        let arg = |key: &str, value: &str| EtcdArg { key: key.into(), value: value.into() };
        config.etcd.args =
            vec![arg("snapshot-count", "5"), arg("max-txn-ops", "7"), arg(FEATURE_GATES, "CompactHashCheck=false")];
        assert_eq!(value(&config, "3.6.0", true, "snapshot-count").as_deref(), Some("5"));
        assert_eq!(value(&config, "3.6.0", true, "max-txn-ops").as_deref(), Some("7"));
        assert_eq!(
            value(&config, "3.6.0", true, FEATURE_GATES).as_deref(),
            Some("InitialCorruptCheck=true,CompactHashCheck=true,CompactHashCheck=false")
        );
    }

    #[test]
    fn loopback_is_listened_on_once() {
        let mut config = config();
        assert_eq!(
            value(&config, "3.5.30", true, "listen-client-urls").as_deref(),
            Some("https://127.0.0.1:2379,https://10.0.0.5:2379")
        );
        assert_eq!(value(&config, "3.5.30", true, "listen-metrics-urls").as_deref(), Some("http://127.0.0.1:2381"));
        config.node_ips = vec!["::1".parse().unwrap()];
        assert_eq!(value(&config, "3.5.30", true, "listen-client-urls").as_deref(), Some("https://[::1]:2379"));
    }

    #[test]
    fn the_documented_table_is_this_one() {
        let page = include_str!("../../docs/etcd-settings.md");
        for row in VERSIONED {
            let until = if row.until == FOREVER { "–".to_owned() } else { row.until.to_string() };
            let line = format!("| {} | {} | {} | `{}={}` |", row.purpose, row.from, until, row.key, row.value);
            assert!(page.contains(&line), "docs/etcd-settings.md lacks: {line}");
        }
    }
}
