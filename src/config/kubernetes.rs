//! The keys of k3s' and RKE2's configuration files that are about Kubernetes.
//!
//! Those files are brought to quorate because their keys about etcd mean the same here. The others are known by name,
//! so that one line can say which to remove, and no user is misled by an option that only looks alike. From `k3s server
//! --help`, `k3s agent --help`, `rke2 server --help` and `rke2 agent --help` (1.18 to 1.34), hidden and deprecated
//! flags included.

use crate::config::suggest::kebab;

/// Keys that exist in k3s or RKE2, and not here.
const KEYS: &[&str] = &[
    "advertise-address",
    "advertise-port",
    "agent-token",
    "agent-token-file",
    "airgap-extra-registry",
    "alsologtostderr",
    "apiserver-bind-address",
    "apiserver-port",
    "audit-policy-file",
    "bootstrap-save",
    "cis",
    "cluster-cidr",
    "cluster-dns",
    "cluster-domain",
    "cluster-secret",
    "cni",
    "container-runtime-endpoint",
    "default-local-storage-path",
    "default-runtime",
    "disable",
    "disable-agent",
    "disable-apiserver",
    "disable-cloud-controller",
    "disable-controller-manager",
    "disable-default-registry-endpoint",
    "disable-etcd",
    "disable-helm-controller",
    "disable-kube-proxy",
    "disable-network-policy",
    "disable-scheduler",
    "disable-selinux",
    "docker",
    "egress-selector-mode",
    "embedded-registry",
    "enable-pprof",
    "enable-servicelb",
    "etcd-extra-env",
    "etcd-extra-mount",
    "etcd-image",
    "etcd-snapshot-reconcile-interval",
    "helm-job-image",
    "http-listen-port",
    "https-listen-port",
    "image-credential-provider-bin-dir",
    "image-credential-provider-config",
    "image-service-endpoint",
    "images",
    "ingress-controller",
    "kine-tls",
    "lb-server-port",
    "log",
    "multi-cluster-cidr",
    "no-deploy",
    "no-flannel",
    "node-external-dns",
    "node-internal-dns",
    "node-label",
    "node-name-from-cloud-provider-metadata",
    "node-taint",
    "nonroot-devices",
    "pause-image",
    "pod-security-admission-config-file",
    "pod-security-policy",
    "prefer-bundled-bin",
    "private-registry",
    "profile",
    "protect-kernel-defaults",
    "repo",
    "resolv-conf",
    "rootless",
    "runtime-image",
    "secrets-encryption",
    "secrets-encryption-provider",
    "selinux",
    "service-cidr",
    "service-node-port-range",
    "servicelb-namespace",
    "snapshotter",
    "storage-backend",
    "storage-cafile",
    "storage-certfile",
    "storage-endpoint",
    "storage-keyfile",
    "supervisor-metrics",
    "system-default-registry",
    "tls-san-security",
    "v",
    "vmodule",
    "vpn-auth",
    "vpn-auth-file",
    "with-node-id",
    "write-kubeconfig",
    "write-kubeconfig-group",
    "write-kubeconfig-mode",
];

/// Whole families of keys, also those that are to come.
const FAMILIES: &[&str] = &[
    "kube-",
    "kubelet-",
    "kubernetes-",
    "flannel-",
    "cloud-controller-",
    "cloud-provider-",
    "containerd-",
    "control-plane-",
    "datastore-",
];

/// What does here what a key of k3s, RKE2 or a person's memory of them does there.
const COUNTERPARTS: &[(&str, &str)] = &[
    ("advertise-address", "node-ip"),
    ("etcd-image", "etcd-binary"),
    ("etcd-s3-config-secret", "etcd-s3-config-file"),
    ("etcd-s3-insecure-skip-verify", "etcd-s3-skip-ssl-verify"),
    ("etcd-s3-insecure-skip-tls-verify", "etcd-s3-skip-ssl-verify"),
    ("etcd-s3-skip-verify", "etcd-s3-skip-ssl-verify"),
    ("etcd-s3-endpoint-ca-name", "etcd-s3-endpoint-ca"),
    ("etcd-s3-bucket-name", "etcd-s3-bucket"),
    ("etcd-snapshot-cron", "etcd-snapshot-schedule-cron"),
    ("etcd-snapshot-schedule", "etcd-snapshot-schedule-cron"),
    ("snapshot-cron", "etcd-snapshot-schedule-cron"),
];

/// k3s' word for the first server of a cluster.
pub const CLUSTER_INIT: &str = "cluster-init";
pub const CLUSTER_INIT_NOTE: &str =
    "`cluster-init` is not needed and does nothing: a server without data begins a cluster automatically";

/// True for a key that is about Kubernetes.
#[must_use]
pub fn is_key(name: &str) -> bool {
    let name = kebab(name);
    KEYS.contains(&name.as_str()) || FAMILIES.iter().any(|family| name.starts_with(family))
}

/// The option of ours that does the same.
#[must_use]
pub fn counterpart(name: &str) -> Option<&'static str> {
    let name = kebab(name);
    COUNTERPARTS.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| *ours)
}

/// One line about all such keys of a file.
pub(super) fn message(names: &[String]) -> String {
    let shown: Vec<String> = names
        .iter()
        .map(|name| match counterpart(name) {
            Some(ours) => format!("{name} (here: {ours})"),
            None => name.clone(),
        })
        .collect();
    let shown = shown.join(", ");
    match names.len() {
        1 => format!("1 key is for Kubernetes and has no effect here; remove it: {shown}"),
        count => format!("{count} keys are for Kubernetes and have no effect here; remove them: {shown}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::options;
    use super::*;

    #[test]
    fn none_of_our_own_options_is_taken_for_theirs() {
        for spec in options::OPTIONS {
            assert!(!is_key(spec.name) && spec.name != CLUSTER_INIT, "{}", spec.name);
            assert_eq!(counterpart(spec.name), None, "{}", spec.name);
        }
        for (theirs, ours) in COUNTERPARTS {
            assert!(options::find(ours).is_some(), "{theirs}: {ours}");
        }
        assert!(
            KEYS.is_sorted_by(|left, right| left < right || left.starts_with("http")),
            "in order, to see what is missing"
        );
    }
}
