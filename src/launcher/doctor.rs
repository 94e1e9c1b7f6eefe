//! Checks of the server on this node, which change nothing except for a probe file on the disk.
//!
//! Works with and without a running server, whose status adds facts. The caller checks object storage and the
//! configuration.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use chrono::{DateTime, Local};

use crate::clock;
use crate::config::Config;
use crate::control::api::status::{Drills, ServerStatus};
use crate::datadir::DataDir;
use crate::error::{AppError, Diagnostic};
use crate::etcd::binary::{self, Unpacking};
use crate::etcd::data_state::data_state;
use crate::host::disk::disk_usage;
use crate::host::{self, FileSystem};
use crate::launcher::{disk, ports};
use crate::pki;
use crate::plan::command;
use crate::plan::condition::Condition;
use crate::plan::finding::{self, CheckRow};
use crate::plan::health::{self, ServerFacts, StorageFacts, WatchedDisk};
use crate::plan::start::{self, DataState};
use crate::server::snapshots::known;
use crate::shell;
use crate::snapshot::list::{self, SnapshotStatus};
use crate::text::{age, format_bytes};

/// Runs the checks, in the order of a start.
pub async fn examine(config: &Config, data: &DataDir, running: Option<&ServerStatus>) -> Vec<CheckRow> {
    let mut found = vec![server(data, running)];
    found.extend(running.into_iter().flat_map(problems));
    if !data.server().is_dir() {
        let next = "is its disk mounted? Otherwise the first start creates it";
        found.push(CheckRow::note(
            "data",
            format!("the data directory {} does not exist", data.root().display()),
            next,
        ));
    }
    found.push(etcd_data(config, data, running).await);
    found.extend(modes(data));
    found.extend(disks(config, data));
    found.push(file_system(data));
    found.push(fsync(data));
    found.push(clock(data));
    if running.is_none() {
        found.push(match ports::claim(config) {
            Ok(_) => CheckRow::ok("ports", "all are free"),
            Err(error) => failed("ports", &error),
        });
    }
    found.push(etcd_binary(config, data).await);
    found.push(certificates(data));
    found.extend(snapshots(config, data, running));
    found
}

fn failed(check: &'static str, error: &impl Diagnostic) -> CheckRow {
    let because: Vec<String> = crate::error::causes(error).map(ToString::to_string).collect();
    let what = if because.is_empty() { error.to_string() } else { format!("{error}: {}", because.join(": ")) };
    CheckRow::bad(check, what, error.next_step())
}

fn server(data: &DataDir, running: Option<&ServerStatus>) -> CheckRow {
    match running {
        None => CheckRow::note(
            "server",
            format!("no server runs on {}", data.root().display()),
            "systemctl start quorate-server",
        ),
        Some(status) if status.health == Condition::Healthy => {
            CheckRow::ok("server", format!("healthy, pid {}, etcd {}", status.launcher.pid, status.etcd.version))
        }
        Some(status) => {
            let word = status.health.word();
            CheckRow::bad("server", format!("{word}, pid {}, etcd {}", status.launcher.pid, status.etcd.state), None)
        }
    }
}

fn problems(status: &ServerStatus) -> impl Iterator<Item = CheckRow> {
    status.problems.iter().map(|problem| CheckRow::bad("health", problem.message.clone(), problem.next.clone()))
}

async fn etcd_data(config: &Config, data: &DataDir, running: Option<&ServerStatus>) -> CheckRow {
    if let Some(member) = running.and_then(|status| status.member.as_ref()) {
        let what = format!(
            "member {}, {} in all, revision {}, {}",
            member.name,
            member.members,
            member.revision,
            format_bytes(u64::try_from(member.db_size).unwrap_or(0))
        );
        return CheckRow::ok("data", what);
    }
    let state = match data_state(data) {
        Ok(state) => state,
        Err(error) => return failed("data", &error),
    };
    let remembered = match crate::cluster::file::load(data) {
        Ok(remembered) => remembered,
        Err(error) => return failed("data", &error),
    };
    if state == DataState::Present {
        return CheckRow::ok("data", format!("etcd data is in {}", data.etcd().display()));
    }
    let newest = known::newest(config, data).await.newest;
    // The decision of a start.
    let decided = start::plan(&start::Observed {
        cluster: remembered,
        data: state,
        name: None,
        new_cluster: false,
        node_name: config.node_name.clone(),
        newest,
        data_dir: data.root().to_path_buf(),
        invocation: config.invocation.clone(),
        random: String::new(),
    });
    match decided {
        Ok(_) => CheckRow::note("data", "there is none: a start begins a new, empty cluster", "quorate server"),
        Err(refusal) => failed("data", &refusal),
    }
}

/// Secrets that other users can read.
fn modes(data: &DataDir) -> Vec<CheckRow> {
    let names = ["server-ca", "peer-ca", "server-client", "peer-server-client", "client", "launcher"];
    let mut secrets: Vec<PathBuf> = vec![data.token(), data.cluster()];
    secrets.extend(names.iter().map(|name| data.certificate(name).key));
    let is_open = |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o007 != 0);
    let open: Vec<PathBuf> = secrets.into_iter().chain([data.server()]).filter(is_open).collect();
    if open.is_empty() {
        return vec![CheckRow::ok("modes", "keys, token and directories are closed to other users")];
    }
    open.into_iter()
        .map(|path| {
            let next = format!("chmod o-rwx {}", command::shell_word(&path));
            CheckRow::bad("modes", format!("other users can access {}", path.display()), Some(next))
        })
        .collect()
}

fn disks(config: &Config, data: &DataDir) -> Vec<CheckRow> {
    let look = |path: PathBuf| WatchedDisk { usage: disk_usage(&path).ok(), path };
    let snapshots = config.snapshot.place(data);
    let storage = StorageFacts {
        data_disk: Some(look(data.storage())),
        snapshot_disk: snapshots.is_dir().then(|| look(snapshots)),
        ..StorageFacts::default()
    };
    let free = storage.data_disk.as_ref().and_then(|disk| disk.usage).map(|usage| usage.free);
    let assessed =
        health::assess(&ServerFacts { storage, data_dir: data.root().to_path_buf(), ..ServerFacts::default() });
    if assessed.problems.is_empty() {
        let free = free.map_or_else(|| "does not exist yet".to_owned(), |free| format!("{} free", format_bytes(free)));
        return vec![CheckRow::ok("disk", free)];
    }
    assessed.problems.into_iter().map(|problem| CheckRow::bad("disk", problem.message, problem.next)).collect()
}

fn file_system(data: &DataDir) -> CheckRow {
    let dir = data.storage();
    let shown = dir.display();
    match host::file_system(&dir) {
        FileSystem::Local => CheckRow::ok("file system", "local"),
        FileSystem::Network => CheckRow::bad(
            "file system",
            format!("{shown} is on a network file system, where locks and fsync are not reliable"),
            Some("move the data to a local disk".into()),
        ),
        FileSystem::Memory => CheckRow::note(
            "file system",
            format!("{shown} is in memory (tmpfs)"),
            "move the data to a disk to survive a reboot",
        ),
    }
}

fn fsync(data: &DataDir) -> CheckRow {
    let dir = data.storage();
    if !dir.is_dir() {
        return CheckRow::ok("fsync", "not measured: there is no data directory yet");
    }
    let measured = data.open_storage().map_err(AppError::from);
    match measured.and_then(|dir| disk::fsync_p99(&dir).map_err(AppError::from)) {
        Err(failure) => of_failure("fsync", &failure),
        Ok(p99) if p99 > disk::SLOW => CheckRow::note(
            "fsync",
            format!("99 of 100 take up to {:.1} ms; etcd recommends 10", p99.as_secs_f64() * 1000.0),
            "a faster disk; with several members raise etcd-heartbeat-interval and etcd-election-timeout",
        ),
        Ok(p99) => CheckRow::ok("fsync", format!("99 of 100 take up to {:.1} ms", p99.as_secs_f64() * 1000.0)),
    }
}

fn clock(data: &DataDir) -> CheckRow {
    let now = clock::now();
    let next = Some("timedatectl; and timedatectl set-ntp true".to_owned());
    match crate::launcher::preflight::check_clock(data) {
        Err(error) => failed("clock", &error),
        Ok(Some(behind)) => CheckRow::bad(
            "clock",
            format!("it is {} s behind the newest file in the data directory", behind.as_secs()),
            next,
        ),
        Ok(None) => CheckRow::ok("clock", clock::rfc3339(now)),
    }
}

async fn etcd_binary(config: &Config, data: &DataDir) -> CheckRow {
    let program = match binary::find_etcd(config.etcd.binary.as_deref(), data, Unpacking::No) {
        Ok(program) => program,
        Err(error) => return failed("etcd", &error),
    };
    let version = match binary::version_of(&program.path, None).await {
        Ok(version) => version,
        Err(error) => return failed("etcd", &error),
    };
    let last = crate::cluster::file::load(data).ok().flatten().and_then(|cluster| cluster.etcd_version);
    match last.map(|last| start::check_versions(last, version)) {
        Some(Err(refusal)) => failed("etcd", &refusal),
        Some(Ok(notes)) if !notes.is_empty() => CheckRow::note("etcd", version.to_string(), notes.join("; ")),
        _ => CheckRow::ok("etcd", format!("{version}, {}", program.source.word())),
    }
}

fn certificates(data: &DataDir) -> CheckRow {
    if !data.certificate("server-ca").certificate.exists() {
        return CheckRow::ok("certificates", "none yet: the first start creates them");
    }
    match pki::expiries(data) {
        Err(error) => failed("certificates", &error),
        Ok(expiries) => {
            let now = clock::now();
            let days = |at: std::time::SystemTime| at.duration_since(now).ok().map(|left| left.as_secs() / 86_400);
            let first = expiries.into_iter().min_by_key(|expiry| expiry.not_after);
            first.map_or_else(
                || CheckRow::ok("certificates", "none"),
                |expiry| finding::certificate(expiry.name, days(expiry.not_after)),
            )
        }
    }
}

fn snapshots(config: &Config, data: &DataDir, running: Option<&ServerStatus>) -> Vec<CheckRow> {
    let save = config.invocation.command("etcd-snapshot save");
    let now = clock::now();
    let seconds = clock::unix_seconds(now);
    let dir = config.snapshot.place(data);
    let here = list::list(&dir).unwrap_or_default().into_iter();
    let newest_here = here.filter(|listed| listed.status == SnapshotStatus::Good).map(|listed| listed.created).max();
    let last = running.and_then(|status| status.snapshots.last_good.as_ref());
    let known = last.and_then(|last| clock::parse_rfc3339(&last.created)).map(clock::unix_seconds);
    let newest = newest_here.max(known);
    let has_data = running.is_some() || data.etcd_bolt().exists();
    if newest.is_none() && !has_data {
        return vec![CheckRow::ok("snapshots", "none yet, and no data")];
    }
    let local = DateTime::<Local>::from(now);
    let interval = config.snapshot.schedule.as_ref().and_then(|schedule| schedule.interval(&local));
    let started = running.and_then(|status| clock::parse_rfc3339(&status.launcher.started)).map(clock::unix_seconds);
    // A new server has had no time for a snapshot.
    let is_young = newest.is_none() && started.is_some_and(|started| seconds.saturating_sub(started) < 600);
    let mut found = vec![if is_young {
        CheckRow::note("snapshots", "none yet", save)
    } else {
        finding::snapshot_age(newest.map(|at| seconds.saturating_sub(at)), interval, &save)
    }];
    found.extend(running.and_then(|status| status.snapshots.drill.as_ref()).and_then(drill));
    if let Some(s3) = running.and_then(|status| status.snapshots.s3.as_ref())
        && let Some(pending) = s3.pending.iter().max_by_key(|pending| pending.failures)
        && pending.failures > 0
    {
        let why = pending.last_failure.clone().unwrap_or_default().replace("\n  because: ", ": ");
        let what = format!("{} not uploaded yet: {why}", pending.name);
        found.push(CheckRow::bad("uploads", what, Some("quorate etcd-snapshot s3-check".into())));
    }
    found
}

/// The result of the last drill, if drills are scheduled.
fn drill(drills: &Drills) -> Option<CheckRow> {
    let last = drills.last.as_ref()?;
    let now = clock::unix_seconds(clock::now());
    let at = clock::parse_rfc3339(&last.at).map_or(now, clock::unix_seconds);
    let when = age::ago(at, now);
    if last.passed {
        return Some(CheckRow::ok("drill", format!("passed {when}: {}", last.snapshot)));
    }
    let why = last.failure.as_deref().unwrap_or("see the log");
    let next = format!("quorate etcd-snapshot verify --drill {}", shell::quote(&last.snapshot));
    Some(CheckRow::bad("drill", format!("failed {when}: {}: {why}", last.snapshot), Some(next)))
}

/// The findings about an invalid configuration.
#[must_use]
pub fn of_failure(check: &'static str, failure: &AppError) -> CheckRow {
    let report = failure.to_report();
    CheckRow::bad(check, report.to_string().replace("\n  because: ", ": ").replace('\n', " "), report.next)
}
