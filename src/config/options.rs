//! The one table of options. An option is a flag, an environment variable and a key of `config.yaml`, under one name.

/// What kind of value an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// true or false (also yes/no, on/off).
    Switch,
    /// Any text.
    Text,
    /// Where an S3 store is.
    Endpoint,
    /// A snapshot to restore. An empty one is a mistake in files and variables, too: it must never mean "none".
    Snapshot,
    /// A path; relative ones count from the working directory.
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
    Label,
    /// A DNS name or an IP address.
    HostName,
    /// `key=value`.
    Pair,
    /// When snapshots are taken.
    Cron,
    /// First part of a snapshot's name.
    Base,
    /// A whole number.
    Count,
    /// A whole number that may be large.
    Number,
    /// A length of time.
    Length,
    /// Rules of retention.
    Retention,
    /// How to compress.
    Compression,
    /// One of a few words.
    Choice(&'static [&'static str]),
}

/// How many values an option takes, and how one text with several of them is split.
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
    /// `quorate server`, and every verb of `quorate etcd-snapshot`, there without `etcd-` too.
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
    /// What the default is where it is found out, for people.
    pub default_note: &'static str,
    /// Never shown.
    pub secret: bool,
    /// A reload applies it; the others take effect at the next restart.
    pub live: bool,
    /// One or two sentences for `--help`.
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
/// Where everything is kept, unless `data-dir` says otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/quorate";
/// The snapshot that a reset restores.
pub const RESTORE_PATH: &str = "cluster-reset-restore-path";
/// The variable that means the same as [`CONFIG`].
pub const CONFIG_VARIABLE: &str = "QUORATE_CONFIG";
/// The variable that chooses which log lines are shown. Not an option: it is for a person at a terminal.
pub const LOG_VARIABLE: &str = "QUORATE_LOG";
/// Where the configuration is read from unless `--config` or `QUORATE_CONFIG` says otherwise.
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
    live(global(spec("debug", Kind::Switch, "false", "Log more, of quorate and of etcd."))),
    live(global(spec(
        "log-format",
        Kind::Choice(&["text", "json"]),
        "text",
        "How log lines are written: text, or json with one object a line.",
    ))),
    global(spec("data-dir", Kind::Path, DEFAULT_DATA_DIR, "Where everything is kept.")),
    noted(
        "the host name up to its first dot",
        spec("node-name", Kind::Label, "", "Name of this server, a DNS label; the etcd member name begins with it."),
    ),
    noted(
        "the address of the default route",
        list(
            Arity::Commas,
            spec(
                "node-ip",
                Kind::Address,
                "",
                "Addresses of this server. etcd listens on and advertises the first, beside loopback; all of them go into the certificates.",
            ),
        ),
    ),
    live(list(
        Arity::Commas,
        spec(
            "node-external-ip",
            Kind::Address,
            "",
            "Addresses that others reach this server at; they go into the certificates.",
        ),
    )),
    spec(
        "bind-address",
        Kind::Address,
        "",
        "Address of the control API for other servers. Kept for clusters of several servers; nothing listens there yet.",
    ),
    spec(
        "supervisor-port",
        Kind::Port,
        "9345",
        "Port of the control API for other servers. Kept for clusters of several servers; nothing listens there yet.",
    ),
    spec(
        "metrics-port",
        Kind::Port,
        "9346",
        "Port of quorate's own metrics and health pages: plain HTTP, on loopback only.",
    ),
    live(list(
        Arity::Commas,
        spec("tls-san", Kind::HostName, "", "Further DNS names and addresses for etcd's server and peer certificates."),
    )),
    secret(spec(
        "token",
        Kind::Text,
        "",
        "The cluster's secret, as in the file server/token, or a password of your own. Made at the first start if not given. Prefer token-file.",
    )),
    spec("token-file", Kind::Path, "", "A file that holds the token."),
    spec(
        "server",
        Kind::Text,
        "",
        "Control URL of a server of the cluster to join. Kept for clusters of several servers: a server without data refuses to start with it.",
    ),
    noted(
        "the copy inside quorate, then beside it, then PATH",
        spec("etcd-binary", Kind::Path, "", "The etcd to run, version 3.4 to 3.7."),
    ),
    noted(
        "the user that quorate runs as",
        spec(
            "etcd-user",
            Kind::Text,
            "",
            "The user that etcd runs as and that owns its data, so that only quorate is root. Wants quorate to run as root.",
        ),
    ),
    list(
        Arity::Words,
        spec(
            "etcd-arg",
            Kind::Pair,
            "",
            "A setting of etcd's as key=value, by the name of its flag; overrides what quorate sets. Can be given several times.",
        ),
    ),
    spec("etcd-client-port", Kind::Port, "2379", "Port that clients of etcd connect to."),
    spec("etcd-peer-port", Kind::Port, "2380", "Port that other members of etcd connect to."),
    spec(
        "etcd-metrics-port",
        Kind::Port,
        "2381",
        "Port of etcd's own metrics and health pages: plain HTTP, on loopback.",
    ),
    spec(
        "etcd-expose-metrics",
        Kind::Switch,
        "false",
        "Serve etcd's metrics on the node's address too. Anyone who reaches it can read them.",
    ),
    noted(
        "100; 20 while this server is the only member",
        spec("etcd-heartbeat-interval", Kind::Millis, "", "Milliseconds between the leader's heartbeats."),
    ),
    noted(
        "1000; 100 while this server is the only member",
        spec(
            "etcd-election-timeout",
            Kind::Millis,
            "",
            "Milliseconds without a heartbeat before a member calls an election; at least five heartbeats.",
        ),
    ),
    spec(
        "etcd-quota-backend-bytes",
        Kind::Bytes,
        "8GiB",
        "How large etcd's database may grow before it refuses writes, in bytes or with KiB, MiB, GiB.",
    ),
    live(spec(
        "etcd-auto-defrag",
        Kind::Switch,
        "true",
        "Defragment the database of a lone member when it nears its quota and at least half of it is free, and take NOSPACE back when there is room.",
    )),
    live(noted(
        "only near the quota",
        spec(
            "etcd-defrag-threshold",
            Kind::Bytes,
            "",
            "Also defragment when so much could be given back, such as 1GiB.",
        ),
    )),
    live(spec("etcd-disable-snapshots", Kind::Switch, "false", "Take no snapshots on schedule.")),
    live(spec(
        "etcd-snapshot-schedule-cron",
        Kind::Cron,
        "0 */12 * * *",
        "When snapshots are taken, in the local time zone: five fields as cron has them, @hourly and the like, or @every 5m.",
    )),
    live(spec("etcd-snapshot-name", Kind::Base, "etcd-snapshot", "First part of the names of scheduled snapshots.")),
    live(noted(
        "server/db/snapshots under the data directory",
        spec("etcd-snapshot-dir", Kind::Path, "", "Where snapshots are kept."),
    )),
    live(spec(
        "etcd-snapshot-compress",
        Kind::Compression,
        "false",
        "Compress snapshots: true is zstd; zip is for tools that expect RKE2's format.",
    )),
    live(spec(
        "etcd-snapshot-retention",
        Kind::Count,
        "5",
        "How many snapshots are kept of this node and base name; 0 keeps all.",
    )),
    live(spec(
        "etcd-snapshot-retention-policy",
        Kind::Retention,
        "",
        "Further rules, such as daily=7,weekly=4,monthly=12,yearly=3,within=30d; what any rule keeps stays.",
    )),
    live(spec(
        "etcd-snapshot-copy",
        Kind::Switch,
        "true",
        "Copy large databases from where etcd has them, several times faster than etcd sends them, without what was deleted.",
    )),
    live(noted(
        "none; one that stalls is ended",
        spec("etcd-snapshot-timeout", Kind::Length, "", "The longest time that a snapshot may take, such as 10m."),
    )),
    live(spec(
        "etcd-snapshot-on-failure",
        Kind::Text,
        "",
        "A command for the shell, run when a scheduled snapshot fails, with QUORATE_SNAPSHOT_ERROR in its environment.",
    )),
    s3(spec(
        "etcd-s3",
        Kind::Switch,
        "false",
        "Upload snapshots to object storage (S3), too. For the verbs of etcd-snapshot that look at some: those that are there.",
    )),
    s3(spec("etcd-s3-endpoint", Kind::Endpoint, "s3.amazonaws.com", "Host, host:port or URL of the store.")),
    s3(spec(
        "etcd-s3-endpoint-ca",
        Kind::Text,
        "",
        "Certificates that the store's is to be trusted by, beside the system's: paths, PEM, or PEM in base64.",
    )),
    s3(spec("etcd-s3-skip-ssl-verify", Kind::Switch, "false", "Believe whoever answers. For trying things out only.")),
    s3(noted(
        "looked for as AWS' own tools do: environment, profile, web identity, container, instance role",
        secret(spec("etcd-s3-access-key", Kind::Text, "", "Access key.")),
    )),
    s3(secret(spec("etcd-s3-secret-key", Kind::Text, "", "Secret key. Prefer etcd-s3-config-file."))),
    s3(secret(spec("etcd-s3-session-token", Kind::Text, "", "Session token, of keys that expire."))),
    s3(spec("etcd-s3-bucket", Kind::Text, "", "Name of the bucket.")),
    s3(noted(
        "auto: dns at AWS, path elsewhere",
        spec(
            "etcd-s3-bucket-lookup-type",
            Kind::Choice(&["auto", "dns", "path"]),
            "",
            "How the bucket goes into the URL: auto, dns or path.",
        ),
    )),
    s3(noted(
        "as the endpoint's name says, or us-east-1",
        spec("etcd-s3-region", Kind::Text, "", "Region of the bucket."),
    )),
    s3(spec("etcd-s3-folder", Kind::Text, "", "Where in the bucket: what the keys begin with.")),
    s3(spec("etcd-s3-insecure", Kind::Switch, "false", "Plain HTTP, without TLS.")),
    s3(noted(
        "as the environment says (HTTPS_PROXY and the like)",
        secret(spec("etcd-s3-proxy", Kind::Text, "", "URL of a proxy, or none.")),
    )),
    s3(spec(
        "etcd-s3-timeout",
        Kind::Length,
        "30s",
        "A request, or a part of an upload or download, that does not get on for so long is given up and tried again.",
    )),
    s3(noted(
        "as etcd-snapshot-retention",
        spec(
            "etcd-s3-retention",
            Kind::Count,
            "",
            "How many snapshots of this node and base name are kept in the store; 0 keeps all.",
        ),
    )),
    s3(spec(
        "etcd-s3-sse",
        Kind::Text,
        "",
        "Encryption by the store: AES256, aws:kms, aws:kms:KEY, or sse-c:FILE with a key of 32 bytes.",
    )),
    s3(spec("etcd-s3-storage-class", Kind::Text, "", "Storage class, such as STANDARD_IA.")),
    s3(spec("etcd-s3-only", Kind::Switch, "false", "Keep nothing on this node once an upload was verified.")),
    s3(spec(
        "etcd-s3-config-file",
        Kind::Path,
        "",
        "A file of mode 0600 with these settings (YAML, or NAME=value), read anew each time: for the secrets. What is set elsewhere counts more.",
    )),
    spec(
        "new-cluster",
        Kind::Switch,
        "false",
        "Start an empty cluster although this data directory remembers one whose data is gone. For the command line, once.",
    ),
    spec(
        "cluster-reset",
        Kind::Switch,
        "false",
        "Forget all peers, become the only member of a new cluster with the same data, and end. For the command line, once.",
    ),
    spec(
        RESTORE_PATH,
        Kind::Snapshot,
        "",
        "With cluster-reset: the snapshot to restore. A name is looked up among the snapshots, here and in S3; s3://BUCKET/KEY is one there; anything else with a / is a path.",
    ),
    spec(
        "cluster-reset-bump-revision",
        Kind::Number,
        "1000000000",
        "With cluster-reset-restore-path: raise the revision by so much and mark the past as compacted, so that clients that saw newer revisions list anew; 0 leaves it.",
    ),
    spec(
        "etcd-old-retention",
        Kind::Count,
        "3",
        "How many data directories that a reset or restore set aside are kept, once the new data are healthy.",
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
