//! The sources of the configuration, merged: command line, then environment, then files, then defaults.
//!
//! Within the files, a later plain key replaces an earlier one and `key+` appends to a list. A list on the command line
//! (or in the environment) replaces the files' list. Every value keeps its origin.

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::config::file_values::FileValues;
use crate::config::options::{self, OPTIONS, OptionKind, Spec};
use crate::config::problem::{ConfigProblem, OptionOrigin};
use crate::config::raw::{RawOptions, ValueSource, check, split};
use crate::config::rke1::{self, POLICY, RETENTION, SCHEDULE};
use crate::config::{kubernetes, suggest};

/// Every option's texts with their origins; options that are not set have their default.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    values: BTreeMap<&'static str, Vec<(String, OptionOrigin)>>,
    /// The snapshot schedule comes from RKE1's `cluster.yml`.
    pub is_scheduled_by_rke1: bool,
    /// The retention of RKE1's `cluster.yml`, if it is effective.
    pub(super) rke1_retention_note: Option<ConfigProblem>,
    /// The line of an empty `cluster-reset-restore-path`, if no other source sets it.
    pub(super) blank_restore_path: Option<OptionOrigin>,
}

impl Resolved {
    /// The texts of `name` with their origins; empty if it has no value.
    #[must_use]
    pub fn all(&self, spec: &Spec) -> &[(String, OptionOrigin)] {
        self.values.get(spec.name).map_or(&[], Vec::as_slice)
    }

    /// The one text of a scalar option.
    #[must_use]
    pub fn one(&self, spec: &Spec) -> Option<&(String, OptionOrigin)> {
        self.all(spec).first()
    }

    /// Copies the values of one option from `other`.
    pub fn take(&mut self, name: &'static str, other: &Self) {
        self.values.insert(name, other.values.get(name).cloned().unwrap_or_default());
    }

    /// The origin of the (first) value of `name`.
    #[must_use]
    pub fn origin(&self, spec: &Spec) -> OptionOrigin {
        self.one(spec).map_or(OptionOrigin::Default, |(_, origin)| origin.clone())
    }

    #[must_use]
    pub fn is_set(&self, spec: &Spec) -> bool {
        self.one(spec).is_some_and(|(_, origin)| *origin != OptionOrigin::Default)
    }
}

/// Selects for each option the source with the highest precedence, and checks each text against the option's kind.
pub fn resolve(given: &RawOptions, files: &FileValues, problems: &mut Vec<ConfigProblem>) -> Resolved {
    let mut resolved = Resolved::default();
    let is_said = |name: &&str| {
        given.options.contains_key(*name) || files.values.get(*name).is_some_and(|texts| !texts.is_empty())
    };
    let is_group_said = |name: &str| rke1::group(name).is_some_and(|group| group.iter().any(is_said));
    let from_rke1 = |name: &str| {
        let rke1 = files.rke1.as_ref()?;
        // RKE's default retention fits RKE's schedule; with another schedule it could delete too much.
        let is_stray = rke1.is_retention_default && rke1::is_retention(name) && is_group_said(SCHEDULE);
        if is_stray || is_group_said(name) { None } else { rke1.values.get(name) }
    };
    resolved.is_scheduled_by_rke1 = from_rke1(SCHEDULE).is_some();
    if [RETENTION, POLICY].into_iter().any(|name| from_rke1(name).is_some()) {
        resolved.rke1_retention_note = files.rke1.as_ref().and_then(|rke1| rke1.retention_note.clone());
    }
    for spec in OPTIONS {
        let from_given = given.options.get(spec.name).map(|(texts, origin)| {
            let source = match origin {
                OptionOrigin::Environment(_) => ValueSource::Environment,
                _ => ValueSource::CommandLine,
            };
            let parts = texts.iter().flat_map(|text| split(spec, text, source));
            let parts: Vec<_> = parts.map(|text| (text, origin.clone())).collect();
            // A lone comma is probably a mistake.
            if parts.is_empty() { vec![(String::new(), origin.clone())] } else { parts }
        });
        let from_files = || {
            let texts = files.values.get(spec.name).filter(|texts| !texts.is_empty());
            let texts = texts.or_else(|| from_rke1(spec.name))?;
            Some(texts.iter().map(|text| (text.text.clone(), text.origin.clone())).collect())
        };
        let by_default = || match spec.default {
            "" => Vec::new(),
            default => vec![(default.to_owned(), OptionOrigin::Default)],
        };
        let values: Vec<(String, OptionOrigin)> = from_given.or_else(from_files).unwrap_or_else(by_default);
        for (text, origin) in values.iter().filter(|(_, origin)| !matches!(origin, OptionOrigin::File { .. })) {
            check(spec, text, origin, problems);
        }
        if values.is_empty() && spec.kind == OptionKind::Snapshot {
            resolved.blank_restore_path.clone_from(&files.blank_restore_path);
        }
        resolved.values.insert(spec.name, values);
    }
    resolved
}

/// Unknown variables that begin with `QUORATE_`: probably misspelt.
pub fn unknown_variables<'v>(variables: impl Iterator<Item = &'v OsString>) -> Vec<ConfigProblem> {
    // Known variables that are not options: log filter, build and tests.
    const OTHERS: [&str; 3] = [options::CONFIG_VARIABLE, options::LOG_VARIABLE, "QUORATE_COMMIT"];
    let known: Vec<String> = OPTIONS.iter().map(Spec::variable).collect();
    let is_known = |name: &str| known.iter().any(|known| known == name) || OTHERS.contains(&name);
    let mut problems: Vec<ConfigProblem> = variables
        .filter_map(|name| name.to_str())
        .filter(|name| name.starts_with("QUORATE_") && !name.starts_with("QUORATE_TEST_") && !is_known(name))
        .map(|name| {
            let plain = name.trim_start_matches("QUORATE_").to_lowercase().replace('_', "-");
            let meant = kubernetes::counterpart(&plain)
                .or_else(|| suggest::closest(&plain, OPTIONS.iter().map(|spec| spec.name)));
            let message = match meant {
                _ if plain == kubernetes::CLUSTER_INIT => kubernetes::CLUSTER_INIT_NOTE.into(),
                Some(meant) => {
                    format!("unknown variable; did you mean {}?", find_variable(meant))
                }
                None => "unknown variable".into(),
            };
            ConfigProblem { origin: OptionOrigin::Environment(name.to_owned()), message }
        })
        .collect();
    problems.sort_by_key(|problem| problem.origin.sort_key());
    problems
}

fn find_variable(name: &str) -> String {
    options::find(name).map(Spec::variable).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::merge::merge_file;
    use super::*;

    fn merge(files: &[&str]) -> (Resolved, Vec<ConfigProblem>) {
        let (mut values, mut problems) = (FileValues::default(), Vec::new());
        for (index, text) in files.iter().enumerate() {
            merge_file(Path::new(&format!("/{index}.yaml")), text, &mut values, &mut problems);
        }
        (resolve(&RawOptions::default(), &values, &mut problems), problems)
    }

    fn texts_of(resolved: &Resolved, name: &str) -> Vec<String> {
        resolved.all(options::find(name).unwrap()).iter().map(|(text, _)| text.clone()).collect()
    }

    #[test]
    fn later_files_replace_and_plus_appends() {
        let (resolved, problems) = merge(&["tls-san: [a, b]\nnode-name: one\n", "tls-san+: c\nnode-name: two\n"]);
        assert_eq!(problems, []);
        assert_eq!(texts_of(&resolved, "tls-san"), ["a", "b", "c"]);
        assert_eq!(texts_of(&resolved, "node-name"), ["two"]);
        let (resolved, _) = merge(&["tls-san: [a]\n", "tls-san+: b\n", "tls-san: c\n"]);
        assert_eq!(texts_of(&resolved, "tls-san"), ["c"], "a later plain key discards what was appended before");
        assert_eq!(resolved.origin(&options::TLS_SAN), OptionOrigin::File { path: "/2.yaml".into(), line: 1 });
    }

    const PAGE: &str =
        "nodes:\n- address: 10.0.0.1\nservices:\n  etcd:\n    snapshot: true\n    creation: 5m0s\n    retention: 24h\n";
    const BACKUP: &str =
        "services:\n  etcd:\n    creation: 1h\n    backup_config:\n      interval_hours: 6\n      retention: 60\n";

    #[test]
    fn a_cluster_yml_is_translated_and_our_own_words_count_more() {
        let values = |files: &[&str]| {
            let (resolved, problems) = merge(files);
            assert_eq!(problems, [], "{files:?}");
            let one = |name: &str| resolved.one(options::find(name).unwrap()).map_or("", |(text, _)| text).to_owned();
            let names = ["schedule-cron", "retention", "retention-policy", "timeout"]
                .map(|name| format!("etcd-snapshot-{name}"));
            let mut found = names.map(|name| one(&name)).to_vec();
            found.push(one("etcd-disable-snapshots"));
            found
        };
        const USUAL: [&str; 5] = ["@every 12h0m0s", "5", "last=1,within=72h", "", "false"];
        const OFF: [&str; 5] = ["0 */12 * * *", "5", "", "", "true"];
        for (files, expected) in [
            (&[PAGE][..], ["@every 5m0s", "5", "last=1,within=24h", "", "false"]),
            // The empty values that RKE's tools write are "not set", and do not switch snapshots off.
            (&["services: {etcd: {snapshot: yes}}"], USUAL),
            (&["services: {etcd: {snapshot: null, retention: \"\", creation: \"\", backup_config: null}}"], USUAL),
            (&["services: {etcd: {snapshot: \"\", retention: 0, creation: 0, backup_config: \"\"}}"], USUAL),
            (&["services: {etcd: {}}"], USUAL),
            (&["services: {etcd: ~}"], USUAL),
            (&["services: {kubelet: {}}"], USUAL),
            (&["services:"], USUAL),
            (&["nodes: [{address: 10.0.0.1}]"], USUAL),
            (&["services: {etcd: {snapshot: false}}"], OFF),
            (&["services: {etcd: {snapshot: n, creation: 6h}}"], OFF),
            (&[BACKUP], ["@every 6h", "60", "", "", "false"]),
            (&["services: {etcd: {backup_config: {}}}"], ["@every 12h", "6", "", "", "false"]),
            (
                &["services: {etcd: {snapshot: false, backup_config: {interval_hours: 0, retention: 0, timeout: 0, \
                   enabled: \"\", s3backupconfig: {}, safe_timestamp: \"\"}}}"],
                ["@every 12h", "6", "", "", "false"],
            ),
            (&["services: {etcd: {backup_config: {enabled: false}, snapshot: true}}"], OFF),
            (
                &["services: {etcd: {backup_config: ~, snapshot: true, creation: 6h0s}}"],
                ["@every 6h0m0s", "5", "last=1,within=72h", "", "false"],
            ),
            (
                &["services: {etcd: {backup_config: {timeout: 300, safe_timestamp: true}}}"],
                ["@every 12h", "6", "", "300s", "false"],
            ),
            (&[PAGE, BACKUP], ["@every 6h", "60", "", "", "false"]),
            (&[BACKUP, "etcd-snapshot-retention: 9"], ["@every 6h", "9", "", "", "false"]),
            (&[PAGE, "etcd-snapshot-retention: 9"], ["@every 5m0s", "9", "", "", "false"]),
            // RKE's default of retention goes with RKE's schedule only.
            (&["etcd-snapshot-schedule-cron: '@weekly'", "services: {}"], ["@weekly", "5", "", "", "false"]),
            (
                &["etcd-snapshot-schedule-cron: '@daily'", "services: {etcd: {retention: 24h}}"],
                ["@daily", "5", "last=1,within=24h", "", "false"],
            ),
        ] {
            assert_eq!(values(files), expected, "{files:?}");
        }
        let (resolved, _) = merge(&[BACKUP]);
        assert!(resolved.is_scheduled_by_rke1);
        assert_eq!(
            resolved.origin(&options::ETCD_SNAPSHOT_RETENTION),
            OptionOrigin::File { path: "/0.yaml".into(), line: 6 }
        );
        assert!(!merge(&[BACKUP, "etcd-snapshot-schedule-cron: '@daily'"]).0.is_scheduled_by_rke1);
        let (resolved, _) =
            merge(&["services: {etcd: {backup_config: {s3backupconfig: {bucket_name: '', region: ''}}}}"]);
        assert!(!resolved.is_set(&options::ETCD_S3), "empty texts are no bucket");
        for (text, what) in [
            ("services: [x]", "must be a mapping"),
            ("services: {etcd: 5}", "must be a mapping"),
            ("services: {etcd: {snapshot: true, creation: 5}}", "such as 5m0s or 24h, not `5`"),
            ("services: {etcd: {snapshot: true, creation: 5s}}", "at least one minute between two"),
            ("services: {etcd: {snapshot: [x]}}", "true or false, not `a list or a mapping`"),
            ("services: {etcd: {backup_config: {interval_hours: x}}}", "must be a number of hours, not `x`"),
            ("services: {etcd: {backup_config: {retention: -1}}}", "must be a number of snapshots, not `-1`"),
            // A key that is nearly a known one is a mistake.
            ("services: {etcd: {backupConfig: {enabled: true, intervalHours: 6}}}", "did you mean `backup_config`?"),
            ("services: {etcd: {backup_config: {interval-hours: 6}}}", "did you mean `interval_hours`?"),
            ("services: {etcd: {backup_config: {retentoin: 6}}}", "did you mean `retention`?"),
            ("services: {etcd: {Snapshot: true}}", "did you mean `snapshot`?"),
            ("services: {etcd: {backup_config: {s3BackupConfig: {}}}}", "did you mean `s3backupconfig`?"),
            ("services: {etcd: {backup_config: {s3_backup_config: {}}}}", "did you mean `s3backupconfig`?"),
            ("services: {etcd: {backup_config: {s3backupconfig: {bucketName: x}}}}", "did you mean `bucket_name`?"),
            ("services: {etcd: {interval_hours: 6}}", "`interval_hours` belongs below `backup_config`"),
            ("services: {etcd: {backup_config: {bucket_name: x}}}", "`bucket_name` belongs below `s3backupconfig`"),
            ("services: {etcd: {snapshot: true, snapshot: false}}", "`snapshot` is given twice in services.etcd"),
            ("services: {etdc: {snapshot: true}}", "did you mean `etcd`?"),
            ("nodes: []\nservice: {}", "did you mean `services`?"),
            ("nodes: []\ncluster_reset: true", "did you mean `cluster-reset`?"),
            ("nodes: []\nrestore: {restore: true, snapshot_name: x}", "--cluster-reset-restore-path=NAME"),
            (
                "rancher_kubernetes_engine_config: {services: {}}\ndocker_root_dir: /x",
                "the YAML of a cluster in Rancher",
            ),
            ("apiVersion: provisioning.cattle.io/v1\nkind: Cluster\nspec: {}", "spec.rkeConfig.etcd"),
            ("apiVersion: v1\nkind: Secret", "a Kubernetes object (v1)"),
            ("services: {etcd: {backup_config: {s3backupconfig: x}}}", "`s3backupconfig` must be a mapping"),
            ("services: {}\netcd-snapshot-retentoin: 5", "did you mean `etcd-snapshot-retention`"),
        ] {
            let (_, problems) = merge(&[text]);
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(problems[0].message.contains(what), "{text}: {problems:?}");
        }
    }

    #[test]
    fn rke1s_directory_is_used_unless_another_one_is_named() {
        let (mut values, mut problems) = (FileValues::default(), Vec::new());
        let dir = |values: &FileValues| {
            resolve(&RawOptions::default(), values, &mut Vec::new())
                .one(&options::ETCD_SNAPSHOT_DIR)
                .map(|(text, _)| text.clone())
        };
        values.keep_snapshots_in(Path::new("/opt/rke/etcd-snapshots"));
        assert_eq!(dir(&values), None, "not used without a cluster.yml");
        merge_file(Path::new("/f"), BACKUP, &mut values, &mut problems);
        values.keep_snapshots_in(Path::new("/opt/rke/etcd-snapshots"));
        assert_eq!(dir(&values).as_deref(), Some("/opt/rke/etcd-snapshots"));
        merge_file(Path::new("/g"), "etcd-snapshot-dir: /srv", &mut values, &mut problems);
        assert_eq!(dir(&values).as_deref(), Some("/srv"));
    }

    #[test]
    fn every_problem_is_found_with_its_line() {
        let (_, problems) =
            merge(&["data-dirr: /x\nnode-name: a\nnode-name: b\netcd-client-port: 99999\ndebug: maybe\n\
             node-ip: {a: b}\ntoken: [a]\nnode-name+: c\netcd-arg: {a: b}\n"]);
        let lines: Vec<usize> = problems
            .iter()
            .map(|problem| match &problem.origin {
                OptionOrigin::File { line, .. } => *line,
                _ => 0,
            })
            .collect();
        let mut sorted = lines.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [1, 3, 4, 5, 6, 7, 8, 9], "{problems:#?}");
        assert!(problems[0].message.contains("did you mean `data-dir`?"));
    }

    #[test]
    fn secrets_are_masked_in_problems() {
        let spec = options::find("token").unwrap();
        assert!(spec.secret);
    }

    #[test]
    fn the_command_line_beats_the_environment_beats_the_files() {
        let (mut values, mut problems) = (FileValues::default(), Vec::new());
        merge_file(Path::new("/f"), "tls-san: [file]\nnode-name: file\ndebug: yes\n", &mut values, &mut problems);
        let mut given = RawOptions::default();
        given.options.insert("tls-san", (vec!["x, y".into()], OptionOrigin::CommandLine("tls-san".into())));
        given.options.insert("node-name", (vec!["env".into()], OptionOrigin::Environment("QUORATE_NODE_NAME".into())));
        let resolved = resolve(&given, &values, &mut problems);
        assert_eq!(problems, []);
        assert_eq!(texts_of(&resolved, "tls-san"), ["x", "y"]);
        assert_eq!(texts_of(&resolved, "node-name"), ["env"]);
        assert_eq!(texts_of(&resolved, "debug"), ["yes"]);
        assert_eq!(texts_of(&resolved, "etcd-client-port"), ["2379"]);
    }

    #[test]
    fn a_variable_that_means_nothing_is_pointed_out() {
        let vars = ["QUORATE_DATADIR", "QUORATE_DEBUG", "QUORATE_LOG", "PATH"];
        let found = unknown_variables(vars.map(OsString::from).iter());
        assert_eq!(found.len(), 1);
        assert!(found[0].message.contains("QUORATE_DATA_DIR"), "{found:?}");
    }
}
