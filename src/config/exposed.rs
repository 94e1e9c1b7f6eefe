//! Secrets in configuration files that other users can read.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::layers::Resolved;
use crate::config::options;
use crate::config::options::OPTIONS;
use crate::config::problem::{ConfigProblem, OptionOrigin};
use crate::shell::quote;

/// One warning for each file that contains a secret and that users other than its owner and root's group can read.
pub(super) fn warnings(resolved: &Resolved) -> Vec<ConfigProblem> {
    let mut files: BTreeMap<PathBuf, Vec<&str>> = BTreeMap::new();
    for spec in OPTIONS.iter().filter(|spec| spec.secret) {
        let Some((text, OptionOrigin::File { path, .. })) = resolved.one(spec).cloned() else { continue };
        // A proxy URL is a secret only if it contains a password.
        if spec.name != "etcd-s3-proxy" || text.contains('@') {
            files.entry(path).or_default().push(spec.name);
        }
    }
    if let Some((path, _)) = resolved.one(&options::TOKEN_FILE) {
        files.entry(path.into()).or_default().push(options::TOKEN.name);
    }
    files.iter().filter_map(|(path, secrets)| warning(path, secrets)).collect()
}

fn warning(path: &Path, secrets: &[&str]) -> Option<ConfigProblem> {
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let (mode, is_group_root) = (found.mode() & 0o7777, found.gid() == 0);
    let is_exposed = mode & 0o004 != 0 || (mode & 0o040 != 0 && !is_group_root);
    is_exposed.then(|| {
        let shown = quote(&path.display().to_string());
        let message = format!(
            "other users can read `{}` in this file (mode {mode:04o}): chmod 600 {shown}",
            secrets.join("`, `")
        );
        ConfigProblem { origin: OptionOrigin::File { path: path.to_path_buf(), line: 0 }, message }
    })
}
