//! This server: its name, addresses, certificates and cluster.

use crate::config::options::spec::{Arity, OptionKind, Spec, list, live, noted, secret, spec};

pub const NODE_NAME: Spec = noted(
    "the host name up to its first dot",
    spec(
        "node-name",
        OptionKind::DnsLabel,
        "",
        "Name of this server, a DNS label; upper case is put into lower case. The etcd member name begins with it.",
    ),
);

pub const NODE_IP: Spec = noted(
    "the address of the default route",
    list(
        Arity::Commas,
        spec(
            "node-ip",
            OptionKind::Address,
            "",
            "Addresses of this server. etcd listens on and advertises the first, and listens on loopback; all of them go into the certificates.",
        ),
    ),
);

pub const NODE_EXTERNAL_IP: Spec = live(list(
    Arity::Commas,
    spec(
        "node-external-ip",
        OptionKind::Address,
        "",
        "Addresses at which others reach this server; they go into the certificates.",
    ),
));

pub const BIND_ADDRESS: Spec = spec(
    "bind-address",
    OptionKind::Address,
    "",
    "Address of the control API for other servers. Reserved for clusters of several servers; nothing listens there yet.",
);

pub const SUPERVISOR_PORT: Spec = spec(
    "supervisor-port",
    OptionKind::Port,
    "9345",
    "Port of the control API for other servers. Reserved for clusters of several servers; nothing listens there yet.",
);

pub const METRICS_PORT: Spec = spec(
    "metrics-port",
    OptionKind::Port,
    "9346",
    "Port of quorate's own metrics and health endpoints: plain HTTP, on loopback only.",
);

pub const TLS_SAN: Spec = live(list(
    Arity::Commas,
    spec(
        "tls-san",
        OptionKind::HostName,
        "",
        "Additional DNS names and addresses for etcd's server and peer certificates.",
    ),
));

pub const TOKEN: Spec = secret(spec(
    "token",
    OptionKind::Text,
    "",
    "The cluster's secret: the content of the file server/token, or any password. Created at the first start if not set. Prefer token-file.",
));

pub const TOKEN_FILE: Spec = spec("token-file", OptionKind::Path, "", "File that contains the token.");

pub const SERVER: Spec = spec(
    "server",
    OptionKind::Text,
    "",
    "URL of a server whose cluster to join. Reserved for clusters of several servers: a server without data refuses to start with it.",
);
