//! This server: its name, addresses, certificates and cluster.

use crate::config::options::spec::{Arity, Kind, Spec, list, live, noted, secret, spec};

pub const NODE_NAME: Spec = noted(
    "the host name up to its first dot",
    spec(
        "node-name",
        Kind::DnsLabel,
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
            Kind::Address,
            "",
            "Addresses of this server. etcd listens on and advertises the first, and listens on loopback; all of them go into the certificates.",
        ),
    ),
);

pub const NODE_EXTERNAL_IP: Spec = live(list(
    Arity::Commas,
    spec(
        "node-external-ip",
        Kind::Address,
        "",
        "Addresses at which others reach this server; they go into the certificates.",
    ),
));

pub const BIND_ADDRESS: Spec = spec(
    "bind-address",
    Kind::Address,
    "",
    "Address of the control API for other servers. Reserved for clusters of several servers; nothing listens there yet.",
);

pub const SUPERVISOR_PORT: Spec = spec(
    "supervisor-port",
    Kind::Port,
    "9345",
    "Port of the control API for other servers. Reserved for clusters of several servers; nothing listens there yet.",
);

pub const METRICS_PORT: Spec = spec(
    "metrics-port",
    Kind::Port,
    "9346",
    "Port of quorate's own metrics and health endpoints: plain HTTP, on loopback only.",
);

pub const TLS_SAN: Spec = live(list(
    Arity::Commas,
    spec("tls-san", Kind::HostName, "", "Additional DNS names and addresses for etcd's server and peer certificates."),
));

pub const TOKEN: Spec = secret(spec(
    "token",
    Kind::Text,
    "",
    "The cluster's secret: the content of the file server/token, or any password. Created at the first start if not set. Prefer token-file.",
));

pub const TOKEN_FILE: Spec = spec("token-file", Kind::Path, "", "File that contains the token.");

pub const SERVER: Spec = spec(
    "server",
    Kind::Text,
    "",
    "URL of a server whose cluster to join. Reserved for clusters of several servers: a server without data refuses to start with it.",
);
