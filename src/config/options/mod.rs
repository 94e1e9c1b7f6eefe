//! The table of options. An option is a flag, an environment variable and a key of `config.yaml`, with one name.
//!
//! Each is a constant, so that a misspelt one does not compile; the files are by topic, and [`OPTIONS`] has the order.

mod etcd;
mod general;
mod node;
mod reset;
mod s3;
mod snapshots;
mod spec;

pub use etcd::*;
pub use general::*;
pub use node::*;
pub use reset::*;
pub use s3::*;
pub use snapshots::*;
pub use spec::{Arity, OptionKind, Scope, Spec};

/// The option that names the configuration file. Not a key: a file cannot name itself.
pub const CONFIG: &str = "config";
/// The environment variable for [`CONFIG`].
pub const CONFIG_VARIABLE: &str = "QUORATE_CONFIG";
/// The environment variable with the log filter. Not an option: it is for interactive use.
pub const LOG_VARIABLE: &str = "QUORATE_LOG";
/// The default configuration file.
pub const DEFAULT_CONFIG: &str = "/etc/quorate/config.yaml";

/// Every option, in the order in which help and `config.yaml.example` show them.
pub const OPTIONS: &[Spec] = &[
    DEBUG,
    LOG_FORMAT,
    DATA_DIR,
    NODE_NAME,
    NODE_IP,
    NODE_EXTERNAL_IP,
    BIND_ADDRESS,
    SUPERVISOR_PORT,
    METRICS_PORT,
    TLS_SAN,
    TOKEN,
    TOKEN_FILE,
    SERVER,
    ETCD_BINARY,
    ETCD_USER,
    ETCD_ARG,
    ETCD_CLIENT_PORT,
    ETCD_PEER_PORT,
    ETCD_METRICS_PORT,
    ETCD_EXPOSE_METRICS,
    ETCD_HEARTBEAT_INTERVAL,
    ETCD_ELECTION_TIMEOUT,
    ETCD_QUOTA_BACKEND_BYTES,
    ETCD_AUTO_DEFRAG,
    ETCD_DEFRAG_THRESHOLD,
    ETCD_DISABLE_SNAPSHOTS,
    ETCD_SNAPSHOT_SCHEDULE_CRON,
    ETCD_SNAPSHOT_NAME,
    ETCD_SNAPSHOT_DIR,
    ETCD_SNAPSHOT_COMPRESS,
    ETCD_SNAPSHOT_RETENTION,
    ETCD_SNAPSHOT_RETENTION_POLICY,
    ETCD_SNAPSHOT_COPY,
    ETCD_SNAPSHOT_TIMEOUT,
    ETCD_SNAPSHOT_ON_FAILURE,
    ETCD_SNAPSHOT_DRILL_CRON,
    ETCD_S3,
    ETCD_S3_ENDPOINT,
    ETCD_S3_ENDPOINT_CA,
    ETCD_S3_SKIP_SSL_VERIFY,
    ETCD_S3_ACCESS_KEY,
    ETCD_S3_SECRET_KEY,
    ETCD_S3_SESSION_TOKEN,
    ETCD_S3_BUCKET,
    ETCD_S3_BUCKET_LOOKUP_TYPE,
    ETCD_S3_REGION,
    ETCD_S3_FOLDER,
    ETCD_S3_INSECURE,
    ETCD_S3_PROXY,
    ETCD_S3_TIMEOUT,
    ETCD_S3_RETENTION,
    ETCD_S3_SSE,
    ETCD_S3_STORAGE_CLASS,
    ETCD_S3_ONLY,
    ETCD_S3_CONFIG_FILE,
    NEW_CLUSTER,
    CLUSTER_RESET,
    CLUSTER_RESET_RESTORE_PATH,
    CLUSTER_RESET_BUMP_REVISION,
    ETCD_OLD_RETENTION,
];

/// The option called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Spec> {
    OPTIONS.iter().find(|spec| spec.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_well_formed() {
        for (index, spec) in OPTIONS.iter().enumerate() {
            assert!(OPTIONS[..index].iter().all(|other| other.name != spec.name), "{} twice", spec.name);
            assert!(spec.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
            assert!(spec.help.ends_with('.') && !spec.help.is_empty());
        }
    }
}
