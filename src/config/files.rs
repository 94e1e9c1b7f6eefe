//! What the configuration files say: each is read, checked line by line, and merged.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Problem;
use super::options::{self, Kind, OPTIONS, Spec};
use super::rke1;
use super::texts::{Given, Origin, Source, check, split};
use super::yaml::{self, Node, Value};
use crate::host;

/// The key that tells a `cluster.yml` of RKE1's.
const SERVICES: &str = "services";

/// One value that a file sets.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// What the files say, merged.
#[derive(Clone, Debug, Default)]
pub struct FileValues {
    pub(super) values: BTreeMap<&'static str, Vec<Text>>,
    /// What a `cluster.yml` of RKE1's comes to, and where it is: below all that is said in our own words.
    pub(super) rke1: Option<(BTreeMap<&'static str, Vec<Text>>, Origin)>,
    /// Where the last file that has the key of the snapshot to restore has it without a value.
    pub(super) blank_restore_path: Option<Origin>,
    notes: Vec<Problem>,
}

impl FileValues {
    /// Makes RKE1's own directory the one of the snapshots, if there is a `cluster.yml`.
    pub fn keep_snapshots_in(&mut self, dir: &Path) {
        if let (Some((values, origin)), Some(text)) = (&mut self.rke1, dir.to_str()) {
            values.insert("etcd-snapshot-dir", vec![Text { text: text.to_owned(), origin: origin.clone() }]);
        }
    }

    /// Worth saying.
    #[must_use]
    pub fn notes(&self) -> &[Problem] {
        &self.notes
    }
}

/// Reads the file that `given` names (or the default one), then its drop-ins in byte order.
pub fn read_files(given: &Given, problems: &mut Vec<Problem>) -> FileValues {
    let mut values = FileValues::default();
    let (base, origin) = match &given.config {
        Some((path, origin)) => (path.clone(), Some(origin)),
        None => (PathBuf::from(options::DEFAULT_CONFIG), None),
    };
    match read_text(&base) {
        Ok(text) => merge_file(&base, &text, &mut values, problems),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(origin) = origin {
                let message = format!("there is no file {}", base.display());
                problems.push(Problem { origin: origin.clone(), message });
            }
        }
        Err(error) => problems.push(unreadable(&base, &error)),
    }
    for path in drop_ins(&base, problems) {
        match read_text(&path) {
            Ok(text) => merge_file(&path, &text, &mut values, problems),
            Err(error) => problems.push(unreadable(&path, &error)),
        }
    }
    values
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem { origin: Origin::File { path: path.to_path_buf(), line: 0 }, message: format!("cannot be read: {error}") }
}

fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(host::read_small(path)?).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        io::Error::other(format!("line {line} is not UTF-8 text"))
    })
}

/// `config.yaml` → the files in `config.yaml.d` that end in `.yaml` or `.yml`, by the bytes of their names.
fn drop_ins(base: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let mut name = base.as_os_str().to_owned();
    name.push(".d");
    let dir = PathBuf::from(name);
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Vec::new();
        }
        Err(error) => {
            problems.push(unreadable(&dir, &error));
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let extension = path.extension().map(std::ffi::OsStr::to_ascii_lowercase);
            extension.is_some_and(|extension| extension == "yaml" || extension == "yml") && !path.is_dir()
        })
        .collect();
    files.sort_by(|left, right| left.as_os_str().as_encoded_bytes().cmp(right.as_os_str().as_encoded_bytes()));
    files
}

pub(super) fn merge_file(path: &Path, text: &str, values: &mut FileValues, problems: &mut Vec<Problem>) {
    let at = |line: usize| Origin::File { path: path.to_path_buf(), line };
    let entries = match yaml::read(text) {
        Ok(entries) => entries,
        Err(error) => {
            problems.push(Problem {
                origin: at(error.line),
                message: format!("this is not valid YAML: {}", error.message),
            });
            return;
        }
    };
    let is_rke1 = entries.iter().any(|(key, _)| key.value == Value::Text(SERVICES.into()));
    let mut foreign = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (key, value) in entries {
        let Value::Text(written) = key.value else {
            problems.push(Problem { origin: at(key.line), message: "a key must be a word".into() });
            continue;
        };
        if let Some(first) = seen.insert(written.clone(), key.line) {
            let message = format!("`{written}` is given twice; the first is in line {first}");
            problems.push(Problem { origin: at(key.line), message });
            continue;
        }
        let (name, appends) = match written.strip_suffix('+') {
            Some(name) => (name, true),
            None => (written.as_str(), false),
        };
        if name == SERVICES {
            merge_rke1(key.line, &value, values, problems, &at);
            continue;
        }
        let Some(spec) = options::find(name) else {
            // RKE1 writes its own keys so, and quorate's own have hyphens: one that has is a mistake there, too.
            if is_rke1 && !name.contains('-') {
                foreign.push(crate::host::printable(name));
                continue;
            }
            problems.push(Problem { origin: at(key.line), message: unknown_key(name) });
            continue;
        };
        if appends && !spec.is_list() {
            let message = format!("`{written}` appends, but `{name}` takes one value: write `{name}`");
            problems.push(Problem { origin: at(key.line), message });
            continue;
        }
        let found = texts(spec, &value, &at);
        // Checked here and not where the values are chosen: a mistake is a mistake also where another source wins.
        for text in found.iter().flatten() {
            check(spec, &text.text, &text.origin, problems);
        }
        if let (Kind::Snapshot, Ok(found)) = (spec.kind, &found) {
            values.blank_restore_path = found.is_empty().then(|| at(key.line));
        }
        match found {
            Ok(found) if appends => values.values.entry(spec.name).or_default().extend(found),
            Ok(found) => drop(values.values.insert(spec.name, found)),
            Err(problem) => problems.push(problem),
        }
    }
    if !foreign.is_empty() {
        let message = format!("of this cluster.yml, these mean nothing to quorate: {}", foreign.join(", "));
        values.notes.push(Problem { origin: at(0), message });
    }
}

/// A `cluster.yml` replaces what another one said.
fn merge_rke1(
    line: usize,
    services: &Node,
    values: &mut FileValues,
    problems: &mut Vec<Problem>,
    at: &impl Fn(usize) -> Origin,
) {
    let translated = rke1::translate(line, services);
    let mut found = BTreeMap::new();
    for (name, (text, line)) in translated.values {
        let origin = at(line);
        if let Some(spec) = options::find(name) {
            check(spec, &text, &origin, problems);
        }
        found.insert(name, vec![Text { text, origin }]);
    }
    let told = |(message, line)| Problem { origin: at(line), message };
    values.notes.extend(translated.notes.into_iter().map(told));
    problems.extend(translated.problems.into_iter().map(told));
    values.rke1 = Some((found, at(line)));
}

fn unknown_key(name: &str) -> String {
    if name == options::CONFIG {
        return "`config` cannot be set in a file: use --config or QUORATE_CONFIG".into();
    }
    let shown = crate::host::printable(name);
    match options::closest(name, OPTIONS.iter().map(|spec| spec.name)) {
        Some(meant) => format!("unknown key `{shown}`; did you mean `{meant}`?"),
        None => format!("unknown key `{shown}`; `quorate server --help` lists them all"),
    }
}

fn texts(spec: &Spec, node: &Node, at: &impl Fn(usize) -> Origin) -> Result<Vec<Text>, Problem> {
    let wrong = |line: usize, message: String| Problem { origin: at(line), message };
    match &node.value {
        Value::Nothing => Ok(Vec::new()),
        Value::Text(text) if text.is_empty() && spec.kind != Kind::Snapshot => Ok(Vec::new()),
        Value::Text(text) => {
            Ok(split(spec, text, Source::File).map(|text| Text { text, origin: at(node.line) }).collect())
        }
        Value::List(_) if !spec.is_list() => {
            Err(wrong(node.line, format!("`{}` takes one value, not a list", spec.name)))
        }
        Value::List(items) => {
            let mut all = Vec::new();
            for item in items {
                let Value::Text(text) = &item.value else {
                    return Err(wrong(item.line, format!("`{}` takes a list of plain values", spec.name)));
                };
                all.extend(split(spec, text, Source::File).map(|text| Text { text, origin: at(item.line) }));
            }
            Ok(all)
        }
        Value::Map(_) if spec.kind == Kind::Pair => {
            Err(wrong(node.line, format!("`{}` takes `key=value` entries, not `key: value`", spec.name)))
        }
        Value::Map(_) => Err(wrong(node.line, format!("`{}` does not take a mapping", spec.name))),
    }
}
