//! System calls that fail, one at a time, whatever step they belong to; and a power loss that takes what was not synced.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use quorate::error::Code;

use super::{keys, left_nothing};
use crate::kit::{Node, Ran, Timed, skip};
use crate::restore::steps::Template;

fn restore_command(node: &Node, name: &str) -> Vec<String> {
    let mut command = node.server_command();
    command.args(["--cluster-reset", &format!("--cluster-reset-restore-path={name}")]);
    let program = command.get_program().to_string_lossy().into_owned();
    std::iter::once(program).chain(command.get_args().map(|arg| arg.to_string_lossy().into_owned())).collect()
}

fn traced(node: &Node, name: &str, options: &[&str]) -> Option<Ran> {
    let ran = Command::new("strace")
        // Not etcd's own calls: what it does when its disk fails is its affair.
        .args(["-f", "-qq", "-o", "/dev/null", "-b", "execve"])
        .args(options)
        .args(restore_command(node, name))
        .stdin(Stdio::null())
        .output();
    let Ok(output) = ran else {
        skip("there is no strace");
        return None;
    };
    Some(Ran::of(&output))
}

fn sweep(call: &str, errno: &str, occurrences: impl Iterator<Item = usize>) {
    let template = Template::new();
    let mut failed = 0;
    for occurrence in occurrences {
        let mut node = template.copy();
        let inject = format!("inject={call}:error={errno}:when={occurrence}");
        let Some(ran) = traced(&node, &template.name, &["-e", &format!("trace={call}"), "-e", &inject]) else { return };
        let context = format!("{call} {errno} {occurrence}: {ran:#?}");
        failed += usize::from(ran.code != Some(0));
        node.start_ready();
        let found = keys(&node);
        match ran.code {
            Some(0) => assert_eq!(found, "a", "{context}"),
            Some(_) if ran.error_code() == Some(Code::ResetNotRecorded) => assert_eq!(found, "a", "{context}"),
            Some(_) => assert_eq!(found, "a b", "{context}"),
            None => assert!(found == "a" || found == "a b", "{found} {context}"),
        }
        node.stop();
        left_nothing(&node);
    }
    assert!(failed > 1, "{call}: only {failed} of these calls were met");
}

#[test]
fn a_failing_fsync_is_never_success() {
    let _timed = Timed::start();
    sweep("fsync", "EIO", (1..40).step_by(3));
}

#[test]
fn a_failing_rename_is_never_success() {
    let _timed = Timed::start();
    sweep("rename", "EIO", 1..14);
}

#[test]
fn a_full_disk_at_any_write_is_never_success() {
    let _timed = Timed::start();
    sweep("pwrite64,copy_file_range,fallocate,ftruncate", "ENOSPC", 1..10);
}

/// What was said to be done is there after a power loss: every file of the new data was synced after its last write, and every directory
/// after its last name.
#[test]
fn what_is_done_was_synced() {
    let _timed = Timed::start();
    let Template { node, name } = Template::new();
    let trace = node.dir.path().join("trace");
    let options =
        ["-y", "-e", "trace=fsync,fdatasync,rename,renameat,renameat2,pwrite64,write,copy_file_range,ftruncate,execve"];
    let ran = Command::new("strace")
        .args(["-f", "-qq", "-b", "execve", "-o"])
        .arg(&trace)
        .args(options)
        .args(restore_command(&node, &name))
        .stdin(Stdio::null())
        .output();
    let Ok(output) = ran else { return skip("there is no strace") };
    Ran::of(&output).succeeds();
    let text = fs::read_to_string(&trace).unwrap();
    let mut dirty: BTreeMap<PathBuf, String> = BTreeMap::new();
    let db = node.server_dir().join("db");
    let mut synced_at_least_once = 0;
    for line in text.lines().filter(|line| line.contains(&*db.to_string_lossy())) {
        let paths = paths_in(line);
        let call = line.split('(').next().unwrap_or_default().split_whitespace().last().unwrap_or_default().to_owned();
        match call.as_str() {
            "fsync" | "fdatasync" => {
                synced_at_least_once += 1;
                dirty.remove(&paths[0]);
            }
            "rename" | "renameat" | "renameat2" => {
                let (from, to) = (&paths[0], &paths[paths.len() - 1]);
                // What is renamed unsynced is as bad as what is not synced.
                let moved: Vec<(PathBuf, String)> = dirty
                    .iter()
                    .filter(|(path, _)| path.starts_with(from))
                    .map(|(path, why)| (path.clone(), why.clone()))
                    .collect();
                for (path, why) in moved {
                    dirty.remove(&path);
                    dirty.insert(to.join(path.strip_prefix(from).unwrap()), why);
                }
                for path in [from, to] {
                    dirty.insert(path.parent().unwrap().to_path_buf(), line.to_owned());
                }
            }
            "copy_file_range" => drop(dirty.insert(paths[1].clone(), line.to_owned())),
            _ => drop(paths.first().map(|path| dirty.insert(path.clone(), line.to_owned()))),
        }
    }
    assert!(synced_at_least_once > 8, "{text}");
    // What was only needed meanwhile is gone, and the log is not data.
    dirty.retain(|path, _| path.exists() && !is_only_for_people(path));
    assert_eq!(dirty, BTreeMap::new());
}

/// The paths in a line of strace: descriptors as `5</path>`, names as `"/path"`, or as `5</path>, "name"` where a name counts from a directory.
fn paths_in(line: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find(['<', '"']) {
        let (before, from) = rest.split_at(at);
        let (close, is_name) = if from.starts_with('<') { ('>', false) } else { ('"', true) };
        let Some((text, after)) = from[1..].split_once(close) else { break };
        let text = text.trim_end_matches(" (deleted)");
        // What a name counts from, if it is the argument before.
        let dir = paths.last().filter(|_| is_name && before == ", ").cloned();
        match dir {
            Some(dir) => *paths.last_mut().unwrap() = dir.join(text),
            None if text.starts_with('/') => paths.push(PathBuf::from(text)),
            None => {}
        }
        rest = after;
    }
    paths
}

fn is_only_for_people(path: &Path) -> bool {
    path.ends_with("lock")
}
