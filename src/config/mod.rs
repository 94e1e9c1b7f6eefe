//! Files, environment and flags become one typed, validated [`Config`].
//!
//! `options` is the table of all options; flags, environment variables, keys of `config.yaml`, `--print-config` and the
//! tests of `config.yaml.example` are derived from it. `raw` keeps the origin of each value, `files` finds the files,
//! `input` reads one, `yaml` parses it with line numbers, `merge` checks and merges its entries. `foreign` recognises
//! files of other programs, `rke1` translates a `cluster.yml`, `kubernetes` knows the keys of k3s and RKE2, `suggest`
//! finds the intended name. `layers` merges the sources by precedence, `value_types` checks single texts, `build`
//! creates the typed value, `checks` compares options, `s3` configures object storage, `reserved_flags` lists what
//! etcd-arg may not set, `exposed` and `time_zone` warn, `errors` and `recheck` report, `print` shows values and
//! origins.
//!
//! All problems are reported at once, and nothing starts with an invalid configuration. This module reads files, and
//! never uses the network.

mod build;
pub mod changes;
mod checks;
mod errors;
mod exposed;
pub mod files;
mod foreign;
mod input;
pub mod kubernetes;
pub mod layers;
mod merge;
pub mod options;
pub mod print;
pub mod raw;
mod recheck;
mod reserved_flags;
mod rke1;
pub mod s3;
pub mod suggest;
mod time_zone;
mod value_types;
pub mod yaml;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::datadir::DataDir;
use crate::host::{HostFacts, User};
use crate::plan::command::Invocation;
use crate::plan::retention::Policy;
use crate::plan::schedule::Schedule;
use crate::plan::snapshot_name::NamePrefix;
use crate::secret::Secret;
use crate::snapshot::file::Compression;

pub use errors::{ConfigErrors, Problem};
pub use layers::Resolved;
pub use raw::{Origin, RawOptions};
pub use s3::S3Config;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    /// One JSON object a line.
    Json,
}

/// One `etcd-arg` entry: a setting of etcd's by the name of its flag, without dashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdArg {
    pub key: String,
    /// The value, as on etcd's command line.
    pub value: String,
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

/// Scheduling and retention of snapshots.
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
    /// The schedule of restore drills.
    pub drill: Option<Schedule>,
    /// The shell command to run when a scheduled snapshot or drill fails.
    pub on_failure: Option<String>,
    /// Copy large databases directly from disk.
    pub copy: bool,
    /// The timeout of a snapshot.
    pub timeout: Option<Duration>,
    /// Object storage for uploads.
    pub s3: S3Config,
    /// The schedule comes from RKE1's `cluster.yml`: log RKE1's lines, too, which other programs may wait for.
    pub is_rke1: bool,
}

/// Automatic defragmentation.
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

/// etcd's default quota, in bytes.
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
    /// The address that etcd listens on, in addition to loopback, and advertises.
    #[must_use]
    pub fn node_ip(&self) -> IpAddr {
        self.node_ips.first().copied().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))
    }
}

/// The result of reading the configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The typed values, or every problem.
    pub config: Result<Config, ConfigErrors>,
    /// The typed values in spite of problems: enough to find a server, not to start one.
    pub tentative: Option<Config>,
    /// Each option's text and origin, even if others have problems.
    pub resolved: Resolved,
    /// Remarks that are not errors.
    pub warnings: Vec<Problem>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    Server,
    /// Read for a command, not for the server. A running server may know the missing settings of object storage.
    Command,
}

/// Reads the configuration of a server: `given` is the command line and the environment, which name the files.
#[must_use]
pub fn load(given: &RawOptions, host: &HostFacts) -> Loaded {
    load_for(given, host, Reader::Server)
}

/// The same for any other command.
#[must_use]
pub fn load_for_command(given: &RawOptions, host: &HostFacts) -> Loaded {
    load_for(given, host, Reader::Command)
}

fn load_for(given: &RawOptions, host: &HostFacts, reader: Reader) -> Loaded {
    let mut problems = given.problems.clone();
    if let (Reader::Server, Some(filter)) = (reader, &given.log_filter)
        && let Err(error) = filter.parse::<tracing_subscriber::filter::Targets>()
    {
        problems.push(errors::log_filter_problem(filter, &error));
    }
    let mut files = files::read_files(given, &mut problems);
    if let Some(dir) = &host.rke1_snapshots {
        files.keep_snapshots_in(dir);
    }
    let resolved = layers::resolve(given, &files, &mut problems);
    let mut built = build::build(&resolved, host, reader, &mut problems);
    if let Some(config) = &mut built {
        config.invocation = recheck::invocation(given);
    }
    let (mistakes, mut warnings): (Vec<Problem>, Vec<Problem>) = layers::unknown_variables(std::env::vars_os())
        .into_iter()
        .partition(|problem| built.as_ref().is_some_and(|config| config.cluster_reset) && is_about_a_reset(problem));
    problems.extend(mistakes);
    warnings.extend_from_slice(files.notes());
    warnings.extend(resolved.rke1_retention_note.clone());
    warnings.extend(exposed::warnings(&resolved));
    warnings.extend(time_zone::problem(std::env::var("TZ").ok().as_deref()));
    if built.as_ref().is_some_and(|config| config.new_cluster)
        && matches!(resolved.origin("new-cluster"), Origin::File { .. } | Origin::Environment(_))
    {
        warnings.push(Problem {
            origin: resolved.origin("new-cluster"),
            message:
                "new-cluster is set permanently, so a lost data directory would silently become an empty cluster; use it on the command line only, once, when it is needed"
                    .into(),
        });
    }
    problems.sort_by_key(|problem| problem.origin.sort_key());
    problems.dedup();
    let config = match &built {
        Some(config) if problems.is_empty() => Ok(config.clone()),
        _ => Err(ConfigErrors { problems, check: recheck::command(given) }),
    };
    Loaded { config, tentative: built, resolved, warnings }
}

/// A misspelt variable may have named the snapshot to restore.
fn is_about_a_reset(problem: &Problem) -> bool {
    matches!(&problem.origin, Origin::Environment(name) if name.starts_with("QUORATE_CLUSTER_RESET"))
}
