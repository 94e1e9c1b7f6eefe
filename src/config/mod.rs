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
mod builder;
pub mod changes;
mod checks;
mod errors;
mod etcd_arg;
mod exposed;
mod file_values;
pub mod files;
mod foreign;
mod input;
pub mod kubernetes;
pub mod layers;
mod load;
mod merge;
mod model;
pub mod options;
pub mod print;
mod problem;
pub mod raw;
mod reader;
mod recheck;
mod reserved_flags;
mod rke1;
pub mod s3;
pub mod suggest;
mod time_zone;
mod value_types;
pub mod yaml;

pub use errors::ConfigErrors;
pub use etcd_arg::EtcdArg;
pub use layers::Resolved;
pub use load::{Loaded, load, load_for_command};
pub use model::{
    Config, DEFAULT_ELECTION_MILLIS, DEFAULT_HEARTBEAT_MILLIS, EtcdConfig, LogFormat, MaintenanceConfig, SnapshotConfig,
};
pub use problem::{ConfigProblem, OptionOrigin};
pub use raw::RawOptions;
pub use s3::S3Config;
