//! `verify --drill`: tests whether a snapshot can be restored, without touching the data in use.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::etcd_snapshot::context::{DownloadedSnapshot, SnapshotContext};
use crate::cli::etcd_snapshot::verify::arguments::Args;
use crate::cli::etcd_snapshot::verify::outcome::Outcome as Verified;
use crate::cli::progress::Progress;
use crate::cli::runtime::runtime;
use crate::cli::{interrupt, output};
use crate::clock;
use crate::config::Config;
use crate::error::{AppError, Exit};
use crate::job::JobControl;
use crate::recovery::drill::record::{DrillOutcome, DrillRecord};
use crate::recovery::drill::{Drill, DrillError, Passed};
use crate::recovery::isolated_etcd::IsolatedProgram;
use crate::snapshot::list::{self, Listed};
use crate::snapshot::prune;
use crate::text::escape_control;

/// A successful drill in `-o json`. Fields are added, never renamed.
#[derive(Debug, Serialize)]
struct DrillItem {
    path: String,
    status: &'static str,
    etcd_version: String,
    revision: i64,
    keys: u64,
    hash_kv: u32,
    healthy_after_ms: u128,
    took_ms: u128,
}

impl DrillItem {
    fn summary(&self) -> String {
        let mut text = output::fitted(&format!("{}: can be restored", escape_control(&self.path))) + "\n";
        for (name, value) in [
            ("etcd", format!("{}, healthy after {} ms", self.etcd_version, self.healthy_after_ms)),
            ("revision", self.revision.to_string()),
            ("keys", self.keys.to_string()),
            ("HashKV", format!("{}, as in the snapshot", self.hash_kv)),
        ] {
            let _ = writeln!(text, "  {name:<12}{value}");
        }
        text
    }
}

pub(super) fn run(config: &Config, place: &SnapshotContext, args: &Args) -> Result<Exit, AppError> {
    let dir = directory(place, args);
    let job = JobControl::default();
    let runtime = runtime()?;
    // The etcd of the running server, which may be set on its command line.
    let mut config = config.clone();
    config.etcd.binary = config.etcd.binary.or_else(|| place.etcd.clone());
    let config = &config;
    let (program, _binary) = runtime.block_on(IsolatedProgram::find(config, &place.data))?;
    let mut outcome = Verified::default();
    for name in &args.names {
        // Next to the built data, since temporary directories may be small.
        let got = match place.get(name, Some(&dir.join("quorate-download"))) {
            Ok(got) => got,
            Err(failure) => {
                outcome.bad(name, &failure);
                continue;
            }
        };
        if job.is_cancelled() {
            break;
        }
        interrupt::cancel_first(&job);
        let drill = Drill { config, program: &program, dir: &dir, skip_hash: args.skip_hash_check };
        let passed = one(&runtime, &drill, &got, &job);
        let is_cancelled = passed.as_ref().is_err_and(DrillError::is_cancelled);
        let passed = passed.map_err(|error| AppError::from(if is_cancelled { DrillError::Cancelled } else { error }));
        if !is_cancelled {
            remember(place, &got, passed.as_ref());
        }
        match passed {
            Ok(passed) => {
                let item = DrillItem::of(&got.shown, &passed);
                outcome.good(&item, item.summary());
            }
            Err(failure) => outcome.bad(&got.shown, &failure),
        }
    }
    outcome.print(args)
}

impl DrillItem {
    fn of(shown: &str, passed: &Passed) -> Self {
        Self {
            path: shown.to_owned(),
            status: "good",
            etcd_version: passed.etcd.to_string(),
            revision: passed.revision,
            keys: passed.keys,
            hash_kv: passed.hash_kv,
            healthy_after_ms: passed.healthy_after.as_millis(),
            took_ms: passed.took.as_millis(),
        }
    }
}

/// On the disk that a restore would use; without a data directory, next to the snapshot, or in the directory for
/// temporary files.
fn directory(place: &SnapshotContext, args: &Args) -> PathBuf {
    let known = [place.data.db(), place.data.server(), place.data.root().to_path_buf(), place.dir.clone()];
    let usual = || known.into_iter().find(|dir| dir.is_dir()).unwrap_or_else(std::env::temp_dir);
    args.drill_dir.as_deref().map_or_else(usual, |dir| std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf()))
}

fn one(
    runtime: &tokio::runtime::Runtime,
    drill: &Drill<'_>,
    got: &DownloadedSnapshot,
    job: &JobControl,
) -> Result<Passed, DrillError> {
    let mut progress = Progress::new("building data for the drill");
    let manifest = got.manifest.clone().or_else(|| list::at(&got.path).and_then(|listed| listed.manifest));
    runtime.block_on(drill.run(&got.path, manifest.as_ref(), job, move |done, all| {
        // The duration of the rest depends on etcd.
        if done < all { progress.set(done, all) } else { progress.set_of("running etcd on it", 0, 0) }
    }))
}

/// Drills of this server's own snapshots are in its status.
fn remember(place: &SnapshotContext, got: &DownloadedSnapshot, passed: Result<&Passed, &AppError>) {
    let name = Path::new(&got.path).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let manifest = got.manifest.clone();
    let listed = match manifest {
        Some(manifest) => Some(Listed::of_manifest(name.clone(), manifest)),
        None => list::at(&got.path),
    };
    let is_own = listed.is_some_and(|listed| place.owner.of(&prune::origin(&listed)).is_own());
    if !is_own || !place.data.server().is_dir() {
        return;
    }
    let is_among_them = got.manifest.is_none() && got.path.parent() == Some(place.dir.as_path());
    let shown = if is_among_them { &name } else { &got.shown };
    let outcome = match passed {
        Ok(passed) => DrillOutcome::passed(shown, passed, clock::now()),
        Err(failure) => DrillOutcome::failed(shown, &failure.to_report(), clock::now()),
    };
    if let Err(error) = DrillRecord::read(&place.data).with(outcome).write(&place.data) {
        output::note(&format!("quorate: warning: cannot record the result for quorate status: {}\n", error.source));
    }
}
