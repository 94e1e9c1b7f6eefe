//! Checks across options: values that are valid alone, but not together.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::config::builder::Builder;
use crate::config::model::{DEFAULT_ELECTION_MILLIS, DEFAULT_HEARTBEAT_MILLIS};
use crate::config::options::{self, OptionKind, Spec};
use crate::config::value_types::millis;

pub(super) fn ports(builder: &mut Builder<'_>) {
    let mut users: BTreeMap<u16, &'static Spec> = BTreeMap::new();
    for spec in options::OPTIONS.iter().filter(|spec| spec.kind == OptionKind::Port) {
        let port = builder.port(spec);
        if port == 0 {
            continue;
        }
        if let Some(other) = users.insert(port, spec) {
            // Report the option that was set.
            let (blamed, taken_by) = if builder.resolved.is_set(spec) { (spec, other) } else { (other, spec) };
            let message =
                format!("`{}` is {port}, which is also `{}`; use different ports", blamed.name, taken_by.name);
            builder.problem(builder.resolved.origin(blamed), message);
        }
    }
}

/// etcd runs without root's privileges then.
pub(super) fn low_ports(builder: &mut Builder<'_>) {
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first: u16 = first.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024);
    for spec in [&options::ETCD_CLIENT_PORT, &options::ETCD_PEER_PORT, &options::ETCD_METRICS_PORT] {
        let (name, port) = (spec.name, builder.port(spec));
        if port != 0 && port < first {
            let message =
                format!("`{name}` is {port}, but with `etcd-user` etcd may not listen on ports below {first}");
            builder.problem(builder.resolved.origin(spec), message);
        }
    }
}

pub(super) fn timing(builder: &mut Builder<'_>) {
    let heartbeat = builder.one(&options::ETCD_HEARTBEAT_INTERVAL, millis);
    let election = builder.one(&options::ETCD_ELECTION_TIMEOUT, millis);
    if heartbeat.is_none() && election.is_none() {
        return;
    }
    let (heartbeat, election) =
        (heartbeat.unwrap_or(DEFAULT_HEARTBEAT_MILLIS), election.unwrap_or(DEFAULT_ELECTION_MILLIS));
    // etcd's own rules: server/embed/config.go, Validate, and maxElectionMs.
    let blamed = if builder.resolved.is_set(&options::ETCD_ELECTION_TIMEOUT) {
        &options::ETCD_ELECTION_TIMEOUT
    } else {
        &options::ETCD_HEARTBEAT_INTERVAL
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
        builder.problem(builder.resolved.origin(&options::DATA_DIR), message);
    }
}

pub(super) fn reset(builder: &mut Builder<'_>) {
    if let Some(origin) = builder.resolved.blank_restore_path.clone()
        && builder.switch(&options::CLUSTER_RESET)
    {
        let message = "`cluster-reset-restore-path` has no value, but `cluster-reset` is on: name the snapshot to restore, or remove the line to keep the present data";
        builder.problem(origin, message);
    }
    let path = builder
        .resolved
        .one(&options::CLUSTER_RESET_RESTORE_PATH)
        .map(|(text, origin)| (text.to_owned(), origin.clone()));
    let Some((path, origin)) = path else { return };
    if !builder.switch(&options::CLUSTER_RESET) {
        builder.problem(origin, "`cluster-reset-restore-path` needs `cluster-reset`");
    } else if path
        .strip_prefix("s3://")
        .is_some_and(|rest| rest.split_once('/').is_none_or(|(_, key)| key.is_empty() || key.ends_with('/')))
    {
        builder.problem(origin, "`cluster-reset-restore-path` must be s3://BUCKET/KEY");
    }
}
