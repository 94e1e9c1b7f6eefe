//! The log lines of a start: versions, data, and whether it begins a new cluster or resumes one.

use crate::cluster::record::ClusterRecord;
use crate::config::Config;
use crate::etcd::installed::InstalledEtcd;
use crate::etcd::settings::StartMode;
use crate::launcher::preflight::PreparedStart;

pub(crate) fn log_start(config: &Config, config_file: &str, binary: &InstalledEtcd, prepared: &PreparedStart) {
    let commit = option_env!("QUORATE_COMMIT").and_then(|commit| commit.get(..12));
    let build = commit.map(|commit| format!(" ({commit})")).unwrap_or_default();
    tracing::info!(
        event = "server-starting",
        data = %config.data_dir.display(),
        config = config_file,
        "quorate {}{build}, etcd {}",
        env!("CARGO_PKG_VERSION"),
        binary.version
    );
    let member = &prepared.identity.name;
    match (&prepared.identity.beginning, &prepared.remembered) {
        (StartMode::NewCluster { .. }, None) => {
            tracing::warn!(event = "new-cluster", member, "there is no data: starting a NEW, empty cluster");
        }
        (StartMode::NewCluster { .. }, Some(before)) => {
            let (before, epoch) = (&before.cluster_id, prepared.epoch);
            tracing::warn!(
                event = "new-cluster",
                member,
                before,
                epoch,
                "starting a NEW, empty cluster, as requested by --new-cluster or an unfinished first start"
            );
        }
        (StartMode::ExistingData, remembered) => {
            let ClusterRecord { cluster_id, servers, etcd_version, .. } = remembered.clone().unwrap_or_default();
            let members = servers.len();
            let last_run_by = etcd_version.map(|version| version.to_string());
            let epoch = prepared.epoch;
            tracing::info!(
                event = "data-resumed",
                cluster = cluster_id,
                member,
                members,
                epoch,
                last_run_by,
                "resuming from the existing data"
            );
        }
    }
}
