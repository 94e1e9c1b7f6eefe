//! Checks each line of a configuration file, and merges its values into those of the files before it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::file_values::{FileValues, Rke1Values, Text};
use crate::config::foreign::{self, FileKind, SERVICES};
use crate::config::kubernetes::{self, CLUSTER_INIT, CLUSTER_INIT_NOTE};
use crate::config::options::{self, OPTIONS, OptionKind, Spec};
use crate::config::problem::{ConfigProblem, OptionOrigin};
use crate::config::raw::{ValueSource, check, split};
use crate::config::reserved_flags::replacement_for;
use crate::config::yaml::{self, Node, YamlValue};
use crate::config::{rke1, suggest};
use crate::text::escape_control;

/// Merges the file at `path` with the content `text`.
pub(super) fn merge_file(path: &Path, text: &str, values: &mut FileValues, problems: &mut Vec<ConfigProblem>) {
    let at = |line: usize| OptionOrigin::File { path: path.to_path_buf(), line };
    let entries = match yaml::read(text) {
        Ok(entries) => entries,
        Err(error) => {
            let message = format!("this is not valid YAML: {}", error.message);
            problems.push(ConfigProblem { origin: at(error.line), message });
            return;
        }
    };
    let kind = foreign::kind(&entries);
    if let FileKind::Other(message, line) = kind {
        problems.push(ConfigProblem { origin: at(line), message });
        return;
    }
    let mut merge = Merge {
        at: &at,
        values,
        problems,
        is_rke1: kind == FileKind::Rke1,
        of_rke1: Vec::new(),
        of_kubernetes: Vec::new(),
    };
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut services = None;
    for (key, value) in entries {
        let YamlValue::Text(written) = key.value else {
            merge.problem(key.line, "a key must be a word".into());
            continue;
        };
        if let Some(first) = seen.insert(written.clone(), key.line) {
            merge.problem(
                key.line,
                format!("`{}` is given twice; the first is in line {first}", escape_control(&written)),
            );
        } else if written == SERVICES {
            services = Some((key.line, value));
        } else {
            merge.entry(key.line, &written, &value);
        }
    }
    if merge.is_rke1 {
        // A minimal file has nodes only.
        let (line, services) = services.unwrap_or((0, Node { line: 0, value: YamlValue::Nothing }));
        merge.services(line, &services);
    }
    merge.end();
}

/// A file that is being merged.
struct Merge<'a, At: Fn(usize) -> OptionOrigin> {
    at: &'a At,
    values: &'a mut FileValues,
    problems: &'a mut Vec<ConfigProblem>,
    is_rke1: bool,
    /// Keys that only RKE1 knows.
    of_rke1: Vec<String>,
    /// Keys that only k3s and RKE2 know, with their lines.
    of_kubernetes: Vec<(String, usize)>,
}

impl<At: Fn(usize) -> OptionOrigin> Merge<'_, At> {
    fn problem(&mut self, line: usize, message: String) {
        self.problems.push(ConfigProblem { origin: (self.at)(line), message });
    }

    fn note(&mut self, line: usize, message: String) {
        self.values.notes.push(ConfigProblem { origin: (self.at)(line), message });
    }

    fn entry(&mut self, line: usize, written: &str, value: &Node) {
        let (name, appends) = match written.strip_suffix('+') {
            Some(name) => (name, true),
            None => (written, false),
        };
        let Some(spec) = options::find(name) else { return self.unknown(line, name, value) };
        if appends && !spec.is_list() {
            return self.problem(line, format!("`{written}` appends, but `{name}` accepts one value: write `{name}`"));
        }
        let found = texts(spec, value, self.at);
        // Checked here and not in `layers`: a mistake is reported even if another source has precedence.
        for text in found.iter().flatten() {
            check(spec, &text.text, &text.origin, self.problems);
        }
        if let (OptionKind::Snapshot, Ok(found)) = (spec.kind, &found) {
            self.values.blank_restore_path = found.is_empty().then(|| (self.at)(line));
        }
        match found {
            Ok(found) if appends => self.values.values.entry(spec.name).or_default().extend(found),
            Ok(found) => drop(self.values.values.insert(spec.name, found)),
            Err(problem) => self.problems.push(problem),
        }
    }

    fn unknown(&mut self, line: usize, name: &str, value: &Node) {
        if self.is_rke1 && name == "restore" && foreign::asks_for_restore(value) {
            let message = "`restore` requests a restore from RKE1, and quorate ignores it; restore with: \
                           quorate server --cluster-reset --cluster-reset-restore-path=NAME";
            return self.problem(line, message.into());
        }
        let shown = escape_control(name);
        if name == CLUSTER_INIT {
            self.note(line, CLUSTER_INIT_NOTE.into());
        } else if self.is_rke1 && foreign::is_of_rke1(name) {
            self.of_rke1.push(shown);
        } else if kubernetes::is_key(name) {
            self.of_kubernetes.push((shown, line));
        } else {
            match meant(name) {
                // RKE1's keys have underscores and quorate's have hyphens: an unknown key with hyphens is a mistake in
                // such a file, too.
                None if self.is_rke1 && !name.contains('-') => self.of_rke1.push(shown),
                meant => self.problem(line, unknown_key(name, meant)),
            }
        }
    }

    /// A `cluster.yml` replaces the values of an earlier one.
    fn services(&mut self, line: usize, services: &Node) {
        let translated = rke1::translate(line, services);
        let mut found = BTreeMap::new();
        for (name, (text, line)) in translated.values {
            let origin = (self.at)(line);
            if let Some(spec) = options::find(name) {
                check(spec, &text, &origin, self.problems);
            }
            found.insert(name, vec![Text { text, origin }]);
        }
        for (message, line) in translated.notes {
            self.note(line, message);
        }
        for (message, line) in translated.problems {
            self.problem(line, message);
        }
        self.values.rke1 = Some(Rke1Values {
            values: found,
            origin: (self.at)(line),
            is_retention_default: translated.is_retention_default,
            retention_note: translated
                .retention_note
                .map(|(message, line)| ConfigProblem { origin: (self.at)(line), message }),
        });
    }

    fn end(mut self) {
        let of_rke1 = std::mem::take(&mut self.of_rke1);
        if !of_rke1.is_empty() {
            self.note(0, format!("quorate ignores these keys of cluster.yml: {}", of_rke1.join(", ")));
        }
        let (names, lines): (Vec<String>, Vec<usize>) = std::mem::take(&mut self.of_kubernetes).into_iter().unzip();
        if let Some(line) = lines.first() {
            self.problem(*line, kubernetes::message(&names));
        }
    }
}

/// The message for an unknown key, with the most similar known one.
fn meant(name: &str) -> Option<&'static str> {
    let names = OPTIONS.iter().map(|spec| spec.name).chain([SERVICES]);
    kubernetes::counterpart(name).or_else(|| suggest::closest(name, names))
}

fn unknown_key(name: &str, meant: Option<&str>) -> String {
    if name == options::CONFIG {
        return "`config` cannot be set in a file: use --config or QUORATE_CONFIG".into();
    }
    let shown = escape_control(name);
    match (meant, replacement_for(name)) {
        (Some(meant), _) => format!("unknown key `{shown}`; did you mean `{meant}`?"),
        (None, Some(instead)) => format!("unknown key `{shown}`, an etcd setting that quorate controls: {instead}"),
        (None, None) => format!("unknown key `{shown}`; `quorate server --help` lists them all"),
    }
}

fn texts(spec: &Spec, node: &Node, at: &impl Fn(usize) -> OptionOrigin) -> Result<Vec<Text>, ConfigProblem> {
    let wrong = |line: usize, message: String| ConfigProblem { origin: at(line), message };
    match &node.value {
        YamlValue::Nothing => Ok(Vec::new()),
        YamlValue::Text(text) if text.is_empty() && spec.kind != OptionKind::Snapshot => Ok(Vec::new()),
        YamlValue::Text(text) => {
            Ok(split(spec, text, ValueSource::File).map(|text| Text { text, origin: at(node.line) }).collect())
        }
        YamlValue::List(_) if !spec.is_list() => {
            Err(wrong(node.line, format!("`{}` accepts one value, not a list", spec.name)))
        }
        YamlValue::List(items) => {
            let mut all = Vec::new();
            for item in items {
                let YamlValue::Text(text) = &item.value else {
                    return Err(wrong(item.line, format!("`{}` accepts a list of plain values", spec.name)));
                };
                all.extend(split(spec, text, ValueSource::File).map(|text| Text { text, origin: at(item.line) }));
            }
            Ok(all)
        }
        YamlValue::Map(_) if spec.kind == OptionKind::KeyValue => {
            Err(wrong(node.line, format!("`{}` accepts `key=value` entries, not `key: value`", spec.name)))
        }
        YamlValue::Map(_) => Err(wrong(node.line, format!("`{}` does not accept a mapping", spec.name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The problems and notes of one file.
    fn said(text: &str) -> (Vec<String>, Vec<String>) {
        let (mut values, mut problems) = (FileValues::default(), Vec::new());
        merge_file(Path::new("/f"), text, &mut values, &mut problems);
        let shown = |all: &[ConfigProblem]| all.iter().map(ToString::to_string).collect();
        (shown(&problems), shown(&values.notes))
    }

    #[test]
    fn the_kubernetes_keys_of_k3s_and_rke2_are_one_line() {
        let k3s = "write-kubeconfig-mode: \"0644\"\ntls-san:\n  - foo.local\nnode-label:\n  - foo=bar\ncluster-init: true\n\
                   disable: [traefik, servicelb]\ncluster-cidr: 10.42.0.0/16\ncluster-dns: 10.43.0.10\n\
                   kubelet-arg+: max-pods=50\nsecrets-encryption: true\netcd-snapshot-schedule-cron: '0 */6 * * *'\n\
                   etcd-s3-endpoint: s3.example.com\nflannel-backend: none\nselinux: true\n";
        let (problems, notes) = said(k3s);
        assert_eq!(
            problems,
            [
                "/f:1: 9 keys are for Kubernetes and have no effect here; remove them: write-kubeconfig-mode, node-label, disable, \
              cluster-cidr, cluster-dns, kubelet-arg, secrets-encryption, flannel-backend, selinux"
            ]
        );
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].starts_with("/f:6: `cluster-init` is not needed"), "{notes:?}");
        let rke2 = "server: https://my-server:9345\ntoken: x\ncni: [multus, canal]\nprofile: cis\netcd-extra-mount: /a:/b\n\
                    advertise-address: 10.0.0.5\ncloud-provider-name: aws\nprotect-kernel-defaults: true\n";
        let (problems, notes) = said(rke2);
        assert_eq!((problems.len(), notes.len()), (1, 0), "{problems:?}");
        assert!(
            problems[0].contains("6 keys are for") && problems[0].contains("advertise-address (here: node-ip)"),
            "{problems:?}"
        );
    }

    #[test]
    fn etcds_own_configuration_file_is_answered_with_what_to_use() {
        let (problems, _) = said("name: m1\nlisten-client-urls: http://10.0.0.1:2379\nquota-backend-bytes: 0\n");
        for (problem, expected) in
            problems.iter().zip(["`node-name`?", "use `node-ip` and the port options", "`etcd-quota-backend-bytes`?"])
        {
            assert!(problem.ends_with(expected), "{problem}");
        }
        assert_eq!(problems.len(), 3);
    }

    #[test]
    fn an_unknown_key_suggests_what_it_means_and_never_to_what_destroys() {
        for (text, expected) in [
            ("etcd-snapshot-cron: x", Some("etcd-snapshot-schedule-cron")),
            ("etcd-s3-insecure-skip-verify: true", Some("etcd-s3-skip-ssl-verify")),
            ("etcd-s3-bucket-name: x", Some("etcd-s3-bucket")),
            ("etcd-s3-config-secret: x", Some("etcd-s3-config-file")),
            ("Services: {}", Some("services")),
            ("cluster-rset: true", Some("cluster-reset")),
            ("cluster-name: x", None),
            ("new: true", None),
            ("reset-cluster: true", None),
        ] {
            let (problems, _) = said(text);
            let expected = expected
                .map_or_else(|| "--help` lists them all".to_owned(), |meant| format!("; did you mean `{meant}`?"));
            assert!(problems.len() == 1 && problems[0].ends_with(&expected), "{text}: {problems:?}");
        }
    }
}
