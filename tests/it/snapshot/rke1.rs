//! A `cluster.yml` of RKE1, as in its documentation.

use std::fs;

use quorate::error::Code;

use crate::kit::{Etcd, Node, Timed, eventually};
use crate::snapshot::save::list;

/// The Rancher page's example, with what stands around it in such a file.
const BACKUP_CONFIG: &str = "nodes:
  - address: 165.227.114.63
    user: ubuntu
    role: [controlplane, worker, etcd]
services:
  kubelet: {}
  etcd:
    extra_args: {}
    snapshot: true
    backup_config:
      enabled: true     # enables recurring etcd snapshots
      interval_hours: 6 # time increment between snapshots
      retention: 60     # time in days before snapshot purge
      # Optional S3
      s3backupconfig:
        access_key: \"myaccesskey\"
        secret_key:  \"myaccesssecret\"
        bucket_name: \"my-backup-bucket\"
        folder: \"folder-name\" # Available as of v2.3.0
        endpoint: \"s3.eu-west-1.amazonaws.com\"
        region: \"eu-west-1\"
        custom_ca: |-
          -----BEGIN CERTIFICATE-----
          $CERTIFICATE
          -----END CERTIFICATE-----
";

#[test]
fn the_pages_examples_are_understood_and_what_retention_means_is_said() {
    let _timed = Timed::start();
    let mut node = Node::new(&Etcd::usual()).config(BACKUP_CONFIG);
    // The page's certificate is none.
    node.run_server().fails(Code::InvalidConfiguration, &["config.yaml:23", "`etcd-s3-endpoint-ca`", "PEM"]);
    let ca = rcgen::generate_simple_self_signed(vec!["ca".into()]).unwrap().cert.pem();
    let lines: Vec<String> =
        ca.lines().filter(|line| !line.starts_with('-')).map(|line| format!("          {line}\n")).collect();
    fs::write(node.config_path(), BACKUP_CONFIG.replace("          $CERTIFICATE\n", &lines.concat())).unwrap();
    let printed = node.quorate(&["server", "--print-config"]);
    let text = printed.succeeds();
    for line in [
        "etcd-snapshot-schedule-cron: '@every 6h'  # ",
        "etcd-snapshot-retention: 60  # ",
        "config.yaml:12",
        "etcd-s3: true  # ",
        "etcd-s3-endpoint: s3.eu-west-1.amazonaws.com  # ",
        "etcd-s3-bucket: my-backup-bucket  # ",
        "etcd-s3-region: eu-west-1  # ",
        "etcd-s3-folder: folder-name  # ",
        "etcd-s3-access-key: '***'  # ",
        "etcd-s3-secret-key: '***'  # ",
    ] {
        assert!(text.contains(line), "no `{line}` in\n{text}");
    }
    node.start_ready();
    node.wait_event("rolling-backups", &["Initializing Rolling Backups", "creation=6h0m0s", "retention=60"]);
    let log = node.log();
    for fact in [
        "`retention`",
        " 60 ",
        ": nodes",
        "of services: ",
        ": kubelet",
        "of services.etcd: ",
        ": extra_args",
        "`backup_config`",
    ] {
        assert!(log.contains(fact), "no `{fact}` in\n{log}");
    }
    assert!(!format!("{log}{text}").contains("myaccess"), "{log}");
    node.stop();
}

#[test]
fn rolling_backups_are_made_at_an_interval_that_is_counted_across_restarts() {
    let _timed = Timed::start();
    let yaml = "services:\n    etcd:\n      snapshot: true\n      creation: 1h0m0s\n      retention: 24h\n";
    let mut node = Node::new(&Etcd::usual()).config(yaml).arg("--node-name=node");
    node.start_ready();
    node.wait_event("rolling-backups", &["Initializing Rolling Backups", "creation=1h0m0s", "retention=24h0m0s"]);
    let policy = node.quorate(&["server", "--print-config"]);
    assert!(policy.succeeds().contains("within=24h"), "it is an age: {}", policy.out);
    eventually("the next one in the status", || node.status_json()["snapshots"]["next"].as_str().map(str::to_owned));
    assert_eq!(list(&node).len(), 0, "the first one comes after an interval");
    node.stop();
    for (hours, count) in [(1, 1), (1, 1), (2, 2), (27, 1)] {
        // A minute more each time, so that the interval is over.
        node.env = vec![("QUORATE_TEST_CLOCK_SHIFT".into(), (hours * 3660).to_string())];
        node.start_ready();
        eventually("the snapshots", || {
            let next = node.status_json()["snapshots"]["next"].is_string();
            (next && list(&node).len() == count).then_some(())
        });
        if (hours, count) == (2, 2) {
            let log = node.log_since_start();
            let line = log.lines().find(|line| line.contains("Created backup")).unwrap().to_owned();
            assert!(line.contains("name=etcd-snapshot-node-") && line.contains("runtime="), "{line}");
        }
        node.stop();
    }
}

/// As `rke config` writes it (bugs F2, F3): nothing is said of snapshots, so they are taken.
const GENERATED: &str = "nodes:
- address: 10.0.0.1
  port: \"22\"
  internal_address: \"\"
  role: [controlplane, worker, etcd]
  labels: {}
  taints: []
services:
  etcd:
    image: \"\"
    extra_args: {}
    external_urls: []
    ca_cert: \"\"
    path: \"\"
    uid: 0
    gid: 0
    snapshot: null
    retention: \"\"
    creation: \"\"
    backup_config: null
  kube-api:
    always_pull_images: false
    secrets_encryption_config: null
network:
  plugin: canal
authentication: {}
addons: \"\"
addons_include: []
ssh_agent_auth: false
ignore_docker_version: null
kubernetes_version: \"\"
private_registries: []
cluster_name: \"\"
restore:
  restore: false
  snapshot_name: \"\"
rotate_encryption_key: false
dns: null
";

#[test]
fn what_rke_generates_takes_snapshots() {
    let _timed = Timed::start();
    let node = Node::new(&Etcd::usual()).config(GENERATED);
    let printed = node.quorate(&["server", "--print-config"]);
    let text = printed.succeeds();
    for line in [
        "etcd-disable-snapshots: false  # default",
        "etcd-snapshot-schedule-cron: '@every 12h0m0s'  # ",
        "etcd-snapshot-retention-policy: 'last=1,within=72h'  # ",
        "etcd-s3: false  # default",
    ] {
        assert!(text.contains(line), "no `{line}` in\n{text}");
    }
    assert!(printed.err.contains(": nodes, network"), "{}", printed.err);
}
