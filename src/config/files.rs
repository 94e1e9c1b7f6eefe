//! Finds the configuration files, and merges them; `merge` reads the lines of each.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::file_values::FileValues;
use crate::config::merge::merge_file;
use crate::config::problem::{ConfigProblem, OptionOrigin};
use crate::config::raw::RawOptions;
use crate::config::{input, options};

/// Reads the file that `given` names (or the default file), then its drop-ins in byte order.
pub fn read_files(given: &RawOptions, problems: &mut Vec<ConfigProblem>) -> FileValues {
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
                problems.push(ConfigProblem { origin: origin.clone(), message });
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

fn unreadable(path: &Path, error: &io::Error) -> ConfigProblem {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied if !nix::unistd::geteuid().is_root() => "; run this as root",
        _ => "",
    };
    let origin = OptionOrigin::File { path: path.to_path_buf(), line: 0 };
    ConfigProblem { origin, message: format!("cannot read it: {error}{hint}") }
}

fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(input::read(path)?).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        io::Error::other(format!("line {line} is not UTF-8 text"))
    })
}

/// `config.yaml` → the files in `config.yaml.d` that end in `.yaml` or `.yml`, by the bytes of their names.
fn drop_ins(base: &Path, problems: &mut Vec<ConfigProblem>) -> Vec<PathBuf> {
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
