//! Finds the configuration files, and merges them; `merge` reads the lines of each.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::merge::merge_file;
use crate::config::raw::{Origin, RawOptions};
use crate::config::{Problem, input, options};

/// One value that a file sets.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// The result of RKE1's `cluster.yml`.
#[derive(Clone, Debug)]
pub(super) struct Rke1Values {
    pub(super) values: BTreeMap<&'static str, Vec<Text>>,
    pub(super) origin: Origin,
    /// The retention is RKE's default, which belongs to RKE's schedule.
    pub(super) is_retention_default: bool,
    /// Its meaning, for the log.
    pub(super) retention_note: Option<Problem>,
}

#[derive(Clone, Debug, Default)]
pub struct FileValues {
    pub(super) values: BTreeMap<&'static str, Vec<Text>>,
    /// The result of RKE1's `cluster.yml`, with a lower precedence than quorate's own keys.
    pub(super) rke1: Option<Rke1Values>,
    /// The line of an empty `cluster-reset-restore-path` in the last file that has it.
    pub(super) blank_restore_path: Option<Origin>,
    pub(super) notes: Vec<Problem>,
}

impl FileValues {
    /// Uses RKE1's snapshot directory, if there is a `cluster.yml`.
    pub fn keep_snapshots_in(&mut self, dir: &Path) {
        if let (Some(rke1), Some(text)) = (&mut self.rke1, dir.to_str()) {
            let text = Text { text: text.to_owned(), origin: rke1.origin.clone() };
            rke1.values.insert("etcd-snapshot-dir", vec![text]);
        }
    }

    #[must_use]
    pub fn notes(&self) -> &[Problem] {
        &self.notes
    }
}

/// Reads the file that `given` names (or the default file), then its drop-ins in byte order.
pub fn read_files(given: &RawOptions, problems: &mut Vec<Problem>) -> FileValues {
    let mut values = FileValues::default();
    let (base, origin) = match &given.config {
        Some((path, origin)) => (path.clone(), Some(origin)),
        None => (PathBuf::from(options::DEFAULT_CONFIG), None),
    };
    match read_text(&base) {
        Ok(text) => merge_file(&base, &text, &mut values, problems),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(origin) = origin {
                let message = format!("{} does not exist", base.display());
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
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied if !nix::unistd::geteuid().is_root() => "; run this as root",
        _ => "",
    };
    let origin = Origin::File { path: path.to_path_buf(), line: 0 };
    Problem { origin, message: format!("cannot read it: {error}{hint}") }
}

fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(input::read(path)?).map_err(|error| {
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
