//! Files, environment and flags into one typed, validated [`Config`].
//!
//! `options` is the one table of what can be set; the command line, the environment variables, the keys of
//! `config.yaml`, `--print-config` and the tests of `config.yaml.example` are all made from it. `texts` says where each value came
//! from, `files` finds the files, `input` reads one, `yaml` knows its syntax and keeps line numbers, `merge` checks and merges its
//! entries. `foreign` recognises other programs' files, `rke1` translates a `cluster.yml`, `kubernetes` knows the keys of k3s and
//! RKE2, `suggest` what a wrong name was meant to be. `layers` merges the sources by precedence, `kinds` knows what each text may be,
//! `build` makes the typed value, `checks` finds what contradicts itself, `s3` knows where snapshots go besides this node, `owned`
//! lists what etcd-arg may not touch, `exposed` and `time_zone` warn, `errors` and `recheck` report, `print` shows where each value
//! came from. Every problem is reported at once, and nothing starts on a bad configuration. This room reads files, and never touches
//! the network.

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
    /// The value, as etcd's command line takes it.
    pub value: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    /// The binary that was asked for; otherwise it is searched.
    pub binary: Option<PathBuf>,
    /// The user that it runs as, if not as ours.
    pub user: Option<User>,
    pub args: Vec<EtcdArg>,
    pub client_port: u16,
    pub peer_port: u16,
    /// Port of etcd's own metrics and health pages, plain HTTP on loopback.
    pub metrics_port: u16,
    /// Serve those pages on the node's address too.
    pub expose_metrics: bool,
    /// Milliseconds between heartbeats, if set by the operator.
    pub heartbeat_millis: Option<u32>,
    /// Milliseconds without a heartbeat before an election, if set by the operator.
    pub election_millis: Option<u32>,
    /// Bytes that the database may grow to.
    pub quota_backend_bytes: u64,
}

/// How snapshots are taken and kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// Where they are, if not under the data directory.
    pub dir: Option<PathBuf>,
    pub packing: Compression,
    /// How many scheduled ones are kept; 0 keeps all.
    pub retention: u32,
    pub rules: Policy,
    /// When they are taken; `None` if that is switched off.
    pub schedule: Option<Schedule>,
    /// First part of the names of scheduled ones.
    pub base: NamePrefix,
    /// When the newest good one is restored where it harms nobody.
    pub drill: Option<Schedule>,
    /// Run by the shell when a scheduled one, or a drill, fails.
    pub on_failure: Option<String>,
    /// Large databases are copied from where etcd has them.
    pub copy: bool,
    /// The longest time that one may take.
    pub timeout: Option<Duration>,
    /// Where they go besides this node.
    pub s3: S3Config,
    /// They are scheduled by a `cluster.yml` of RKE1's, whose log lines somebody may be waiting for.
    pub is_rke1: bool,
}

/// How the database's space is seen to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaintenanceConfig {
    pub auto_defrag: bool,
    /// So many bytes to give back are worth a defragmentation.
    pub defrag_threshold: Option<u64>,
}

impl SnapshotConfig {
    #[must_use]
    pub fn place(&self, data: &DataDir) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| data.snapshots())
    }

    /// What retention keeps: the newest so many, and what the further rules keep.
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
    /// What `etcd-arg` says about a flag.
    #[must_use]
    pub fn argument(&self, key: &str) -> Option<&str> {
        self.args.iter().find(|arg| arg.key == key).map(|arg| arg.value.as_str())
    }

    /// Bytes that the database may grow to, overrides included; 0 if there is no limit.
    #[must_use]
    pub fn effective_quota(&self) -> u64 {
        let Some(given) = self.argument("quota-backend-bytes") else { return self.quota_backend_bytes };
        // etcd's own rules (server/storage/quota.go): 0 is its default, and less than that is no limit.
        match given.parse::<i64>() {
            Ok(0) => ETCD_DEFAULT_QUOTA,
            Ok(bytes) => u64::try_from(bytes).unwrap_or(0),
            Err(_) => self.quota_backend_bytes,
        }
    }
}

/// etcd's quota where it is asked for its default, in bytes.
const ETCD_DEFAULT_QUOTA: u64 = 2 << 30;

/// Heartbeat interval of a cluster of several members, unless configured, in milliseconds.
pub const DEFAULT_HEARTBEAT_MILLIS: u32 = 100;
/// Election timeout of a cluster of several members, unless configured, in milliseconds.
pub const DEFAULT_ELECTION_MILLIS: u32 = 1000;

/// The whole, valid configuration of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How commands for the same server have to be called.
    pub invocation: Invocation,
    /// `D`, absolute.
    pub data_dir: PathBuf,
    /// More log lines, of quorate and of etcd.
    pub debug: bool,
    pub log_format: LogFormat,
    /// A DNS label; the member name begins with it.
    pub node_name: String,
    /// Our addresses, at least one; the first is etcd's.
    pub node_ips: Vec<IpAddr>,
    /// Addresses that others reach us at; they go into the certificates.
    pub node_external_ips: Vec<IpAddr>,
    /// Where the control API of other servers will listen.
    pub bind_address: Option<IpAddr>,
    /// Port of the control API for other servers.
    pub supervisor_port: u16,
    /// Port of the launcher's metrics, on loopback.
    pub metrics_port: u16,
    /// Further names and addresses for the certificates.
    pub tls_sans: Vec<String>,
    /// The server whose cluster is to be joined.
    pub server: Option<String>,
    /// The token that was given, by value or by file.
    pub token: Option<Secret>,
    pub etcd: EtcdConfig,
    pub snapshot: SnapshotConfig,
    pub maintenance: MaintenanceConfig,
    /// Allow an empty cluster where a lost one is remembered.
    pub new_cluster: bool,
    /// Forget all peers and become the only member.
    pub cluster_reset: bool,
    /// … with the data of this snapshot.
    pub cluster_reset_restore_path: Option<String>,
    /// By how much a restore raises the revision.
    pub cluster_reset_bump_revision: u64,
    /// How many data directories that were set aside are kept.
    pub etcd_old_retention: u32,
}

impl Config {
    /// The address that etcd listens on and advertises, beside loopback.
    #[must_use]
    pub fn node_ip(&self) -> IpAddr {
        self.node_ips.first().copied().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))
    }
}

/// What came of reading the configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The typed values, or every problem.
    pub config: Result<Config, ConfigErrors>,
    /// The typed values as far as they go in spite of problems: good for finding a server, not for starting one.
    pub tentative: Option<Config>,
    /// Each option's text and where it came from, also when others have problems.
    pub resolved: Resolved,
    /// Worth saying, not worth stopping for.
    pub warnings: Vec<Problem>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    Server,
    /// That of a command beside it. A running server may know what is missing of object storage.
    Command,
}

/// Reads everything for a server: `given` is the command line and the environment, the files are found from it.
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
                "new-cluster is set permanently, so a lost data directory would silently become an empty cluster; \
                      give it on the command line, once, when it is needed"
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

/// A misspelt variable of this kind may have named the snapshot to restore.
fn is_about_a_reset(problem: &Problem) -> bool {
    matches!(&problem.origin, Origin::Environment(name) if name.starts_with("QUORATE_CLUSTER_RESET"))
}
