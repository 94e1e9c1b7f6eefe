//! The typed configuration.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::compression::Compression;
use crate::config::etcd_arg::EtcdArg;
use crate::config::s3::S3Config;
use crate::datadir::DataDir;
use crate::host::User;
use crate::pki::Names;
use crate::plan::command::Invocation;
use crate::plan::retention::Policy;
use crate::plan::schedule::Schedule;
use crate::plan::snapshot_name::NamePrefix;
use crate::secret::Secret;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    /// The configured binary; otherwise it is searched.
    pub binary: Option<PathBuf>,
    /// The user that it runs as, if not our own.
    pub user: Option<User>,
    pub args: Vec<EtcdArg>,
    pub client_port: u16,
    pub peer_port: u16,
    /// Port of etcd's own metrics and health pages, plain HTTP on loopback.
    pub metrics_port: u16,
    /// Serve these on the node's address, too.
    pub expose_metrics: bool,
    /// Milliseconds between heartbeats, if set by the operator.
    pub heartbeat_millis: Option<u32>,
    /// Milliseconds without a heartbeat before an election, if set by the operator.
    pub election_millis: Option<u32>,
    /// The quota of the database, in bytes.
    pub quota_backend_bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// The snapshot directory, if not under the data directory.
    pub dir: Option<PathBuf>,
    pub packing: Compression,
    /// The number of scheduled snapshots to keep; 0 keeps all.
    pub retention: u32,
    pub rules: Policy,
    /// The schedule; `None` if it is disabled.
    pub schedule: Option<Schedule>,
    /// The base name of scheduled snapshots.
    pub base: NamePrefix,
    pub drill: Option<Schedule>,
    /// The shell command to run when a scheduled snapshot or drill fails.
    pub on_failure: Option<String>,
    /// Copy large databases directly from disk.
    pub copy: bool,
    pub timeout: Option<Duration>,
    pub s3: S3Config,
    /// The schedule comes from RKE1's `cluster.yml`: log RKE1's lines, too, which other programs may wait for.
    pub is_rke1: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaintenanceConfig {
    pub auto_defrag: bool,
    /// Reclaimable bytes that justify a defragmentation.
    pub defrag_threshold: Option<u64>,
}

impl SnapshotConfig {
    #[must_use]
    pub fn place(&self, data: &DataDir) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| data.snapshots())
    }

    /// The retention policy: the newest N, and the additional rules.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy { last: self.rules.last.or(Some(self.retention)), ..self.rules }
    }

    #[must_use]
    pub fn s3_policy(&self, s3: &S3Config) -> Policy {
        match s3.retention {
            Some(count) => Policy { last: Some(count), ..self.rules },
            None => self.policy(),
        }
    }
}

impl EtcdConfig {
    /// The value of a flag in `etcd-arg`.
    #[must_use]
    pub fn argument(&self, key: &str) -> Option<&str> {
        self.args.iter().find(|arg| arg.key == key).map(|arg| arg.value.as_str())
    }

    /// The effective quota in bytes, including `etcd-arg`; 0 if there is no limit.
    #[must_use]
    pub fn effective_quota(&self) -> u64 {
        let Some(given) = self.argument("quota-backend-bytes") else { return self.quota_backend_bytes };
        // etcd's own rules (server/storage/quota.go): 0 means the default, and a negative value no limit.
        match given.parse::<i64>() {
            Ok(0) => ETCD_DEFAULT_QUOTA,
            Ok(bytes) => u64::try_from(bytes).unwrap_or(0),
            Err(_) => self.quota_backend_bytes,
        }
    }
}

const ETCD_DEFAULT_QUOTA: u64 = 2 << 30;

/// Heartbeat interval of a cluster of several members, unless configured, in milliseconds.
pub const DEFAULT_HEARTBEAT_MILLIS: u32 = 100;

/// Election timeout of a cluster of several members, unless configured, in milliseconds.
pub const DEFAULT_ELECTION_MILLIS: u32 = 1000;

/// The whole, valid configuration of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How to invoke commands for the same server.
    pub invocation: Invocation,
    /// `D`, absolute.
    pub data_dir: PathBuf,
    /// Debug logging for quorate and etcd.
    pub debug: bool,
    pub log_format: LogFormat,
    /// A DNS label; the member name begins with it.
    pub node_name: String,
    /// The addresses of this node, at least one; etcd uses the first.
    pub node_ips: Vec<IpAddr>,
    /// External addresses of this node, for the certificates.
    pub node_external_ips: Vec<IpAddr>,
    /// Where the control API of other servers will listen.
    pub bind_address: Option<IpAddr>,
    /// Port of the control API for other servers.
    pub supervisor_port: u16,
    /// Port of the launcher's metrics, on loopback.
    pub metrics_port: u16,
    /// Additional names and addresses for the certificates.
    pub tls_sans: Vec<String>,
    /// The server whose cluster to join.
    pub server: Option<String>,
    /// The configured token, by value or by file.
    pub token: Option<Secret>,
    pub etcd: EtcdConfig,
    pub snapshot: SnapshotConfig,
    pub maintenance: MaintenanceConfig,
    /// Allow an empty cluster although a lost one is recorded.
    pub new_cluster: bool,
    /// Forget all peers and become the only member.
    pub cluster_reset: bool,
    /// The snapshot to restore with `cluster_reset`.
    pub cluster_reset_restore_path: Option<String>,
    /// The revision bump of a restore.
    pub cluster_reset_bump_revision: u64,
    /// The number of retired data directories to keep.
    pub etcd_old_retention: u32,
}

impl Config {
    /// The names in the server and peer certificates: the node's name and addresses, and `tls-san`.
    #[must_use]
    pub fn certificate_names(&self) -> Names {
        let addresses: Vec<String> =
            self.node_ips.iter().chain(&self.node_external_ips).map(ToString::to_string).collect();
        let names = std::iter::once(&self.node_name).chain(&addresses).chain(&self.tls_sans);
        Names::new(names.map(String::as_str))
    }

    /// The address that etcd listens on, in addition to loopback, and advertises.
    #[must_use]
    pub fn node_ip(&self) -> IpAddr {
        self.node_ips.first().copied().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))
    }
}
