//! The table of all options. An option is a flag, an environment variable and a key of `config.yaml`, under one name.

/// What kind of value an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// true or false (also yes/no, on/off).
    Switch,
    /// Any text.
    Text,
    /// An S3 endpoint.
    Endpoint,
    /// A snapshot to restore. An empty value is an error in files and variables, too: it must never mean "none".
    Snapshot,
    /// A path; relative to the working directory.
    Path,
    /// A TCP port, 1 to 65535.
    Port,
    /// A whole number of milliseconds.
    Millis,
    /// A number of bytes, also with KiB, MiB, GiB, TiB.
    Bytes,
    /// An IP address.
    Address,
    /// A DNS label (RFC 1123).
    DnsLabel,
    /// A DNS name or an IP address.
    HostName,
    /// `key=value`.
    KeyValue,
    /// When snapshots are taken.
    Cron,
    /// First part of a snapshot's name.
    SnapshotName,
    /// A whole number.
    Count,
    /// A whole number that may be large.
    Number,
    /// A length of time.
    Duration,
    /// Rules of retention.
    Retention,
    /// How to compress.
    Compression,
    /// One of a few words.
    Choice(&'static [&'static str]),
}

/// How many values an option accepts, and how a text with several of them is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// One.
    One,
    /// Several; a text is split at commas.
    Commas,
    /// Several; values may have commas in them, so only an environment variable is split, at white space.
    Words,
}

/// Which commands offer an option as a flag. As a key in a file, every option is known to all commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every command.
    Global,
    /// `quorate server`.
    Server,
    /// `quorate server`, and every subcommand of `quorate etcd-snapshot`, there also without `etcd-`.
    Snapshots,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The long name, which is also the key.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// How many.
    pub arity: Arity,
    /// Where it is a flag.
    pub scope: Scope,
    /// The default as text; empty if there is none or it is found out at run time.
    pub default: &'static str,
    /// A description of a default that is determined at run time.
    pub default_note: &'static str,
    /// Never shown.
    pub secret: bool,
    /// A reload applies it; the others take effect at the next restart.
    pub live: bool,
    /// The text for `--help`: one or two sentences.
    pub help: &'static str,
}

impl Spec {
    /// `QUORATE_…`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("QUORATE_{}", self.name.replace('-', "_").to_uppercase())
    }

    /// True if it takes several values.
    #[must_use]
    pub fn is_list(&self) -> bool {
        self.arity != Arity::One
    }
}

/// The option that names the configuration file. Not a key: a file cannot name itself.
pub const CONFIG: &str = "config";
/// The default of `data-dir`.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/quorate";
/// The snapshot that a reset restores.
pub const RESTORE_PATH: &str = "cluster-reset-restore-path";
/// The environment variable for [`CONFIG`].
pub const CONFIG_VARIABLE: &str = "QUORATE_CONFIG";
/// The environment variable with the log filter. Not an option: it is for interactive use.
pub const LOG_VARIABLE: &str = "QUORATE_LOG";
/// The default configuration file.
pub const DEFAULT_CONFIG: &str = "/etc/quorate/config.yaml";

const fn spec(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Spec {
    Spec {
        name,
        kind,
        arity: Arity::One,
        scope: Scope::Server,
        default,
        default_note: "",
        secret: false,
        live: false,
        help,
    }
}

const fn global(spec: Spec) -> Spec {
    Spec { scope: Scope::Global, ..spec }
}

const fn s3(spec: Spec) -> Spec {
    Spec { scope: Scope::Snapshots, live: true, ..spec }
}

const fn list(arity: Arity, spec: Spec) -> Spec {
    Spec { arity, ..spec }
}

const fn noted(note: &'static str, spec: Spec) -> Spec {
    Spec { default_note: note, ..spec }
}

const fn secret(spec: Spec) -> Spec {
    Spec { secret: true, ..spec }
}

const fn live(spec: Spec) -> Spec {
    Spec { live: true, ..spec }
}

/// Every option, in the order in which help and `config.yaml.example` show them.
pub const OPTIONS: &[Spec] = &[
    live(global(spec("debug", Kind::Switch, "false", "Enable debug logging for quorate and etcd."))),
    live(global(spec(
        "log-format",
        Kind::Choice(&["text", "json"]),
        "text",
        "Format of log lines: text, or json with one object per line.",
    ))),
    global(spec("data-dir", Kind::Path, DEFAULT_DATA_DIR, "Data directory.")),
    noted(
        "the host name up to its first dot",
        spec(
            "node-name",
            Kind::DnsLabel,
            "",
            "Name of this server, a DNS label; upper case is put into lower case. The etcd member name begins with it.",
        ),
    ),
    noted(
        "the address of the default route",
        list(
            Arity::Commas,
            spec(
                "node-ip",
                Kind::Address,
                "",
                "Addresses of this server. etcd listens on and advertises the first, and listens on loopback; all of them go into the certificates.",
            ),
        ),
    ),
    live(list(
        Arity::Commas,
        spec(
            "node-external-ip",
            Kind::Address,
            "",
            "Addresses at which others reach this server; they go into the certificates.",
        ),
    )),
    spec(
        "bind-address",
        Kind::Address,
        "",
        "Address of the control API for other servers. Reserved for clusters of several servers; nothing listens there yet.",
    ),
    spec(
        "supervisor-port",
        Kind::Port,
        "9345",
        "Port of the control API for other servers. Reserved for clusters of several servers; nothing listens there yet.",
    ),
    spec(
        "metrics-port",
        Kind::Port,
        "9346",
        "Port of quorate's own metrics and health endpoints: plain HTTP, on loopback only.",
    ),
    live(list(
        Arity::Commas,
        spec(
            "tls-san",
            Kind::HostName,
            "",
            "Additional DNS names and addresses for etcd's server and peer certificates.",
        ),
    )),
    secret(spec(
        "token",
        Kind::Text,
        "",
        "The cluster's secret: the content of the file server/token, or any password. Created at the first start if not set. Prefer token-file.",
    )),
    spec("token-file", Kind::Path, "", "File that contains the token."),
    spec(
        "server",
        Kind::Text,
        "",
        "URL of a server whose cluster to join. Reserved for clusters of several servers: a server without data refuses to start with it.",
    ),
    noted(
        "the copy inside quorate, then one next to it, then PATH",
        spec("etcd-binary", Kind::Path, "", "The etcd to run, version 3.4 to 3.7."),
    ),
    noted(
        "the user that quorate runs as",
        spec(
            "etcd-user",
            Kind::Text,
            "",
            "The user that etcd runs as and that owns its data, so that only quorate runs as root. Requires quorate to run as root.",
        ),
    ),
    list(
        Arity::Words,
        spec(
            "etcd-arg",
            Kind::KeyValue,
            "",
            "An etcd setting as key=value, by the name of its flag; overrides what quorate sets. May be repeated.",
        ),
    ),
    spec("etcd-client-port", Kind::Port, "2379", "Port for clients of etcd."),
    spec("etcd-peer-port", Kind::Port, "2380", "Port for other etcd members."),
    spec(
        "etcd-metrics-port",
        Kind::Port,
        "2381",
        "Port of etcd's own metrics and health endpoints: plain HTTP, on loopback.",
    ),
    spec(
        "etcd-expose-metrics",
        Kind::Switch,
        "false",
        "Also serve etcd's metrics on the node's address, readable by anyone who reaches it.",
    ),
    noted(
        "100; 20 while this server is the only member",
        spec("etcd-heartbeat-interval", Kind::Millis, "", "Time between the leader's heartbeats, in milliseconds."),
    ),
    noted(
        "1000; 100 while this server is the only member",
        spec(
            "etcd-election-timeout",
            Kind::Millis,
            "",
            "Time without a heartbeat before a member calls an election, in milliseconds; at least five heartbeats.",
        ),
    ),
    spec(
        "etcd-quota-backend-bytes",
        Kind::Bytes,
        "8GiB",
        "Maximum size of etcd's database, in bytes or with KiB, MiB, GiB; above it etcd refuses writes.",
    ),
    live(spec(
        "etcd-auto-defrag",
        Kind::Switch,
        "true",
        "Defragment the database of a single-member cluster when it approaches its quota and at least half of it is free, and disarm NOSPACE afterwards.",
    )),
    live(noted(
        "only near the quota",
        spec(
            "etcd-defrag-threshold",
            Kind::Bytes,
            "",
            "Also defragment whenever this much can be reclaimed, such as 1GiB.",
        ),
    )),
    live(spec("etcd-disable-snapshots", Kind::Switch, "false", "Take no scheduled snapshots.")),
    live(spec(
        "etcd-snapshot-schedule-cron",
        Kind::Cron,
        "0 */12 * * *",
        "When to take snapshots, in the local time zone: five cron fields, @hourly and the like, or @every 5m.",
    )),
    live(spec("etcd-snapshot-name", Kind::SnapshotName, "etcd-snapshot", "Base name of scheduled snapshots.")),
    live(noted(
        "server/db/snapshots under the data directory",
        spec("etcd-snapshot-dir", Kind::Path, "", "Directory of the snapshots."),
    )),
    live(spec(
        "etcd-snapshot-compress",
        Kind::Compression,
        "false",
        "Compress snapshots: true means zstd; zip is for tools that expect RKE2's format.",
    )),
    live(spec(
        "etcd-snapshot-retention",
        Kind::Count,
        "5",
        "Number of snapshots of this node and base name to keep; 0 keeps all.",
    )),
    live(spec(
        "etcd-snapshot-retention-policy",
        Kind::Retention,
        "",
        "Additional rules, such as daily=7,weekly=4,monthly=12,yearly=3,within=30d; a snapshot that any rule keeps is kept.",
    )),
    live(spec(
        "etcd-snapshot-copy",
        Kind::Switch,
        "true",
        "Copy large databases directly from disk instead of streaming them through the etcd API: several times faster, and deleted data is left out.",
    )),
    live(noted(
        "none; a stalled snapshot is aborted anyway",
        spec("etcd-snapshot-timeout", Kind::Duration, "", "Maximum duration of a snapshot, such as 10m."),
    )),
    live(spec(
        "etcd-snapshot-on-failure",
        Kind::Text,
        "",
        "Shell command to run when a scheduled snapshot or drill fails; the error is in QUORATE_SNAPSHOT_ERROR.",
    )),
    live(noted(
        "off",
        spec(
            "etcd-snapshot-drill-cron",
            Kind::Cron,
            "",
            "When to rehearse a restore of the newest good snapshot: an isolated etcd runs on it, what it serves is compared, and all of it is removed again.",
        ),
    )),
    s3(spec(
        "etcd-s3",
        Kind::Switch,
        "false",
        "Also upload snapshots to S3. For subcommands of etcd-snapshot: work on the snapshots in S3.",
    )),
    s3(spec("etcd-s3-endpoint", Kind::Endpoint, "s3.amazonaws.com", "Host, host:port or URL of the S3 endpoint.")),
    s3(spec(
        "etcd-s3-endpoint-ca",
        Kind::Text,
        "",
        "CA certificates to trust for the endpoint, in addition to the system's: paths, PEM, or PEM in base64.",
    )),
    s3(spec(
        "etcd-s3-skip-ssl-verify",
        Kind::Switch,
        "false",
        "Do not verify the endpoint's TLS certificate. For testing only.",
    )),
    s3(noted(
        "the AWS credential chain: environment, profile, web identity, container, instance role",
        secret(spec("etcd-s3-access-key", Kind::Text, "", "Access key.")),
    )),
    s3(secret(spec("etcd-s3-secret-key", Kind::Text, "", "Secret key. Prefer etcd-s3-config-file."))),
    s3(secret(spec("etcd-s3-session-token", Kind::Text, "", "Session token of temporary credentials."))),
    s3(spec("etcd-s3-bucket", Kind::Text, "", "Name of the bucket.")),
    s3(noted(
        "auto: dns at AWS, path elsewhere",
        spec(
            "etcd-s3-bucket-lookup-type",
            Kind::Choice(&["auto", "dns", "path"]),
            "",
            "How the bucket is addressed: auto, dns (in the host name) or path.",
        ),
    )),
    s3(noted(
        "taken from the endpoint's host name, or us-east-1",
        spec("etcd-s3-region", Kind::Text, "", "Region of the bucket."),
    )),
    s3(spec("etcd-s3-folder", Kind::Text, "", "Folder (key prefix) in the bucket.")),
    s3(spec("etcd-s3-insecure", Kind::Switch, "false", "Use plain HTTP, without TLS.")),
    s3(noted(
        "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY",
        secret(spec("etcd-s3-proxy", Kind::Text, "", "URL of a proxy, or none.")),
    )),
    s3(spec(
        "etcd-s3-timeout",
        Kind::Duration,
        "30s",
        "Inactivity timeout of a request or of a part of a transfer; it is retried after that.",
    )),
    s3(noted(
        "as etcd-snapshot-retention",
        spec(
            "etcd-s3-retention",
            Kind::Count,
            "",
            "Number of snapshots of this node and base name to keep in S3; 0 keeps all.",
        ),
    )),
    s3(spec(
        "etcd-s3-sse",
        Kind::Text,
        "",
        "Server-side encryption: AES256, aws:kms, aws:kms:KEY, or sse-c:FILE with a key of 32 bytes.",
    )),
    s3(spec("etcd-s3-storage-class", Kind::Text, "", "Storage class, such as STANDARD_IA.")),
    s3(spec("etcd-s3-only", Kind::Switch, "false", "Keep no local copy once an upload is verified.")),
    s3(spec(
        "etcd-s3-config-file",
        Kind::Path,
        "",
        "File of mode 0600 with these settings (YAML, or NAME=value), for secrets; read again at each use. Other sources take precedence.",
    )),
    spec(
        "new-cluster",
        Kind::Switch,
        "false",
        "Start an empty cluster although this data directory remembers one whose data is gone. Meant for the command line, once.",
    ),
    spec(
        "cluster-reset",
        Kind::Switch,
        "false",
        "Forget all peers, become the only member of a new cluster with the same data, and exit. Meant for the command line, once.",
    ),
    spec(
        RESTORE_PATH,
        Kind::Snapshot,
        "",
        "With cluster-reset: the snapshot to restore: a name as etcd-snapshot ls shows it, a base name for its newest good one, latest, a path (anything with a /), or s3://BUCKET/KEY.",
    ),
    spec(
        "cluster-reset-bump-revision",
        Kind::Number,
        "1000000000",
        "With cluster-reset-restore-path: bump the revision by N and mark everything before as compacted, so that watches and informers re-list; 0: no bump.",
    ),
    spec(
        "etcd-old-retention",
        Kind::Count,
        "3",
        "Number of old data directories to keep after a reset or restore, once etcd is healthy on the new data.",
    ),
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
