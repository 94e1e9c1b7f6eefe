//! The etcd flags that `etcd-arg` may not set, because quorate controls them or depends on them.

/// For a reserved flag of etcd: what to do instead.
#[must_use]
pub(super) fn replacement_for(key: &str) -> Option<&'static str> {
    const DATA: &str = "use `data-dir`";
    const ADDRESS: &str = "use `node-ip` and the port options";
    const TLS: &str = "quorate creates the certificates, see `tls-san`";
    const BEGIN: &str = "quorate controls how a cluster begins";
    const LOG: &str = "use `debug`, `log-format` and QUORATE_LOG";
    const NAME: &str = "use `node-name`";
    const FILE: &str = "use single settings";
    const FSYNC: &str = "without fsync, acknowledged writes are lost";
    let instead = match key {
        "data-dir" | "wal-dir" => DATA,
        "name" => NAME,
        "listen-peer-urls"
        | "listen-client-urls"
        | "listen-client-http-urls"
        | "listen-metrics-urls"
        | "advertise-client-urls" => ADDRESS,
        "cert-file"
        | "key-file"
        | "client-cert-auth"
        | "trusted-ca-file"
        | "auto-tls"
        | "peer-cert-file"
        | "peer-key-file"
        | "peer-client-cert-auth"
        | "peer-trusted-ca-file"
        | "peer-auto-tls"
        | "client-cert-file"
        | "client-key-file"
        | "peer-client-cert-file"
        | "peer-client-key-file"
        | "ca-file"
        | "peer-ca-file"
        | "client-crl-file"
        | "peer-crl-file"
        | "peer-skip-client-san-verification"
        | "experimental-peer-skip-client-san-verification" => TLS,
        // They would lock out the launcher or other members.
        _ if key.starts_with("client-cert-allowed-") || key.starts_with("peer-cert-allowed-") => TLS,
        "force-new-cluster" => BEGIN,
        "logger"
        | "log-level"
        | "log-outputs"
        | "log-format"
        | "log-package-levels"
        | "debug"
        | "enable-log-rotation"
        | "log-rotation-config-json" => LOG,
        "config-file" | "version" | "help" | "h" => FILE,
        "unsafe-no-fsync" => FSYNC,
        "socket-reuse-port" | "socket-reuse-address" => "a second etcd on the same port would go unnoticed",
        _ if ["initial-", "discovery", "proxy"].iter().any(|start| key.starts_with(start)) => BEGIN,
        _ => return None,
    };
    Some(instead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_quorate_owns_is_refused_with_the_way_to_do_it() {
        for key in [
            "data-dir",
            "name",
            "initial-cluster-token",
            "initial-election-tick-advance",
            "cert-file",
            "unsafe-no-fsync",
            "client-cert-allowed-hostname",
            "peer-cert-allowed-cn",
            "socket-reuse-port",
        ] {
            assert!(replacement_for(key).is_some(), "{key}");
        }
        for key in ["max-txn-ops", "snapshot-count", "quota-backend-bytes", "cipher-suites", "metrics"] {
            assert!(replacement_for(key).is_none(), "{key}");
        }
    }
}
