//! Checks across options: values that are valid alone, but not together.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::config::builder::Builder;
use crate::config::model::{DEFAULT_ELECTION_MILLIS, DEFAULT_HEARTBEAT_MILLIS};
use crate::config::options::{self, Kind, RESTORE_PATH};
use crate::config::value_types::millis;

pub(super) fn ports(builder: &mut Builder<'_>) {
    let mut users: BTreeMap<u16, &'static str> = BTreeMap::new();
    for spec in options::OPTIONS.iter().filter(|spec| spec.kind == Kind::Port) {
        let port = builder.port(spec.name);
        if port == 0 {
            continue;
        }
        if let Some(other) = users.insert(port, spec.name) {
            // Report the option that was set.
            let (blamed, taken_by) =
                if builder.resolved.is_set(spec.name) { (spec.name, other) } else { (other, spec.name) };
            let message = format!("`{blamed}` is {port}, which is also `{taken_by}`; use different ports");
            builder.problem(builder.resolved.origin(blamed), message);
        }
    }
}

/// etcd runs without root's privileges then.
pub(super) fn low_ports(builder: &mut Builder<'_>) {
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first: u16 = first.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024);
    for name in ["etcd-client-port", "etcd-peer-port", "etcd-metrics-port"] {
        let port = builder.port(name);
        if port != 0 && port < first {
            let message =
                format!("`{name}` is {port}, but with `etcd-user` etcd may not listen on ports below {first}");
            builder.problem(builder.resolved.origin(name), message);
        }
    }
}

pub(super) fn timing(builder: &mut Builder<'_>) {
    let heartbeat = builder.one("etcd-heartbeat-interval", millis);
    let election = builder.one("etcd-election-timeout", millis);
    if heartbeat.is_none() && election.is_none() {
        return;
    }
    let (heartbeat, election) =
        (heartbeat.unwrap_or(DEFAULT_HEARTBEAT_MILLIS), election.unwrap_or(DEFAULT_ELECTION_MILLIS));
    // etcd's own rules: server/embed/config.go, Validate, and maxElectionMs.
    let blamed = if builder.resolved.is_set("etcd-election-timeout") {
        "etcd-election-timeout"
    } else {
        "etcd-heartbeat-interval"
    };
    let origin = builder.resolved.origin(blamed);
    if election < 5 * heartbeat {
        let message = format!(
            "`etcd-election-timeout` ({election} ms) must be at least five times `etcd-heartbeat-interval` ({heartbeat} ms)"
        );
        builder.problem(origin, message);
    } else if election > 50_000 {
        builder.problem(origin, format!("`etcd-election-timeout` ({election} ms) must be at most 50000 ms"));
    }
}

/// A configuration of k3s or RKE2 may name their data directory, whose layout is similar to ours.
pub(super) fn data_dir(builder: &mut Builder<'_>, data_dir: &Path) {
    const OF_OTHERS: [&str; 3] = ["server/cred", "server/manifests", "agent/etc"];
    if OF_OTHERS.iter().any(|theirs| data_dir.join(theirs).is_dir()) {
        let message = format!(
            "`data-dir`: {} contains data of k3s or RKE2, which quorate would change; use another directory, and move the data with a snapshot: --cluster-reset --cluster-reset-restore-path=FILE",
            data_dir.display()
        );
        builder.problem(builder.resolved.origin("data-dir"), message);
    }
}

pub(super) fn reset(builder: &mut Builder<'_>) {
    if let Some(origin) = builder.resolved.blank_restore_path.clone()
        && builder.switch("cluster-reset")
    {
        let message = "`cluster-reset-restore-path` has no value, but `cluster-reset` is on: name the snapshot to restore, or remove the line to keep the present data";
        builder.problem(origin, message);
    }
    let path = builder.resolved.one(RESTORE_PATH).map(|(text, origin)| (text.to_owned(), origin.clone()));
    let Some((path, origin)) = path else { return };
    if !builder.switch("cluster-reset") {
        builder.problem(origin, "`cluster-reset-restore-path` needs `cluster-reset`");
    } else if path
        .strip_prefix("s3://")
        .is_some_and(|rest| rest.split_once('/').is_none_or(|(_, key)| key.is_empty() || key.ends_with('/')))
    {
        builder.problem(origin, "`cluster-reset-restore-path` must be s3://BUCKET/KEY");
    }
}
