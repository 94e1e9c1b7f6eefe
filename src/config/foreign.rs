//! Recognises configuration files of other programs, and the part that quorate reads.

use crate::config::yaml::{Node, YamlValue};
use crate::text::escape_control;

/// The key of `cluster.yml` that is read.
pub(super) const SERVICES: &str = "services";
/// The key that every `cluster.yml` has.
const NODES: &str = "nodes";

/// The top-level keys of RKE1's `cluster.yml` (its `types/rke_types.go`).
const RKE1: [&str; 27] = [
    NODES,
    SERVICES,
    "network",
    "authentication",
    "addons",
    "addons_include",
    "system_images",
    "ssh_key_path",
    "ssh_cert_path",
    "ssh_agent_auth",
    "authorization",
    "ignore_docker_version",
    "enable_cri_dockerd",
    "kubernetes_version",
    "private_registries",
    "ingress",
    "cluster_name",
    "cloud_provider",
    "prefix_path",
    "win_prefix_path",
    "addon_job_timeout",
    "bastion_host",
    "monitoring",
    "restore",
    "rotate_certificates",
    "dns",
    "upgrade_strategy",
];

#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Own,
    /// RKE1's `cluster.yml`.
    Rke1,
    /// A file that quorate cannot read: what to do instead, and the line that shows it.
    Other(String, usize),
}

fn find<'n>(entries: &'n [(Node, Node)], name: &str) -> Option<&'n (Node, Node)> {
    entries.iter().find(|(key, _)| matches!(&key.value, YamlValue::Text(text) if text == name))
}

pub(super) fn kind(entries: &[(Node, Node)]) -> FileKind {
    for key in ["rancher_kubernetes_engine_config", "rancherKubernetesEngineConfig"] {
        if let Some((node, _)) = find(entries, key) {
            let what = format!(
                "this is the YAML of a cluster in Rancher; quorate reads only the part below `{key}`: copy `services` with its `etcd` from there into a separate file, without indentation"
            );
            return FileKind::Other(what, node.line);
        }
    }
    if let Some((key, value)) = find(entries, "apiVersion") {
        let version = if let YamlValue::Text(text) = &value.value { escape_control(text) } else { String::new() };
        let group = version.split('/').next().unwrap_or_default();
        let instead = match group {
            "provisioning.cattle.io" => {
                "set etcd-snapshot-schedule-cron, etcd-snapshot-retention and etcd-s3… to the values of snapshotScheduleCron, snapshotRetention and s3 in `spec.rkeConfig.etcd`"
            }
            "management.cattle.io" => {
                "copy `services` with its `etcd` from `spec.rancherKubernetesEngineConfig` into a separate file, with RKE1's names \
                 (backup_config, not backupConfig)"
            }
            _ => "see config.yaml.example for all keys",
        };
        return FileKind::Other(
            format!("this is a Kubernetes object ({version}), not a configuration of quorate; {instead}"),
            key.line,
        );
    }
    let is_rke1 = find(entries, SERVICES).is_some()
        || find(entries, NODES).is_some_and(|(_, value)| matches!(value.value, YamlValue::List(_)));
    if is_rke1 { FileKind::Rke1 } else { FileKind::Own }
}

/// True for a top-level key of RKE1.
pub(super) fn is_of_rke1(name: &str) -> bool {
    RKE1.contains(&name)
        || ["rotate_encryption_key", "version", "etcd"].contains(&name)
        || name.starts_with("cri_dockerd_")
}

/// True if a `cluster.yml` requests a restore, as `restore: {restore: true}`.
pub(super) fn asks_for_restore(value: &Node) -> bool {
    let YamlValue::Map(entries) = &value.value else { return false };
    let text = find(entries, "restore").map(|(_, value)| &value.value);
    matches!(text, Some(YamlValue::Text(text)) if crate::config::value_types::switch(text) == Some(true))
}
