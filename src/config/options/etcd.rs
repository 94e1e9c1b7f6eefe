//! The etcd that is run, and its database.

use crate::config::options::spec::{Arity, OptionKind, Spec, list, live, noted, spec};

pub const ETCD_BINARY: Spec = noted(
    "the copy inside quorate, then one next to it, then PATH",
    spec("etcd-binary", OptionKind::Path, "", "The etcd to run, version 3.4 to 3.7."),
);

pub const ETCD_USER: Spec = noted(
    "the user that quorate runs as",
    spec(
        "etcd-user",
        OptionKind::Text,
        "",
        "The user that etcd runs as and that owns its data, so that only quorate runs as root. Requires quorate to run as root.",
    ),
);

pub const ETCD_ARG: Spec = list(
    Arity::Words,
    spec(
        "etcd-arg",
        OptionKind::KeyValue,
        "",
        "An etcd setting as key=value, by the name of its flag; overrides what quorate sets. May be repeated.",
    ),
);

pub const ETCD_CLIENT_PORT: Spec = spec("etcd-client-port", OptionKind::Port, "2379", "Port for clients of etcd.");

pub const ETCD_PEER_PORT: Spec = spec("etcd-peer-port", OptionKind::Port, "2380", "Port for other etcd members.");

pub const ETCD_METRICS_PORT: Spec = spec(
    "etcd-metrics-port",
    OptionKind::Port,
    "2381",
    "Port of etcd's own metrics and health endpoints: plain HTTP, on loopback.",
);

pub const ETCD_EXPOSE_METRICS: Spec = spec(
    "etcd-expose-metrics",
    OptionKind::Switch,
    "false",
    "Also serve etcd's metrics on the node's address, readable by anyone who reaches it.",
);

pub const ETCD_HEARTBEAT_INTERVAL: Spec = noted(
    "100; 20 while this server is the only member",
    spec("etcd-heartbeat-interval", OptionKind::Millis, "", "Time between the leader's heartbeats, in milliseconds."),
);

pub const ETCD_ELECTION_TIMEOUT: Spec = noted(
    "1000; 100 while this server is the only member",
    spec(
        "etcd-election-timeout",
        OptionKind::Millis,
        "",
        "Time without a heartbeat before a member calls an election, in milliseconds; at least five heartbeats.",
    ),
);

pub const ETCD_QUOTA_BACKEND_BYTES: Spec = spec(
    "etcd-quota-backend-bytes",
    OptionKind::Bytes,
    "8GiB",
    "Maximum size of etcd's database, in bytes or with KiB, MiB, GiB; above it etcd refuses writes.",
);

pub const ETCD_AUTO_DEFRAG: Spec = live(spec(
    "etcd-auto-defrag",
    OptionKind::Switch,
    "true",
    "Defragment the database of a single-member cluster when it approaches its quota and at least half of it is free, and disarm NOSPACE afterwards.",
));

pub const ETCD_DEFRAG_THRESHOLD: Spec = live(noted(
    "only near the quota",
    spec(
        "etcd-defrag-threshold",
        OptionKind::Bytes,
        "",
        "Also defragment whenever this much can be reclaimed, such as 1GiB.",
    ),
));
