//! `quorate etcd-snapshot s3-check`.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::etcd_snapshot::context::SnapshotContext;
use crate::cli::output::{self, Format, WIDTH, wrap_text};
use crate::cli::runtime::runtime;
use crate::config::s3::Encryption;
use crate::error::{AppError, Exit};
use crate::plan::finding::{self, CheckRow};
use crate::snapshot::store::s3::check::{self, CheckStep, StepResult};
use crate::text::escape_control;

/// Removes its test objects. Exits 0 if everything works that snapshots need.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quorate etcd-snapshot s3-check
  quorate etcd-snapshot s3-check --s3-endpoint minio:9000 --s3-bucket backups")]
pub(super) struct Args {
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct S3CheckItem<'a> {
    check: &'a str,
    result: &'static str,
    what: &'a str,
    next: &'a Option<String>,
}

/// Where the second column begins.
const COLUMN: usize = 18;

pub(super) fn run(place: &SnapshotContext, args: &Args) -> Result<Exit, AppError> {
    let (mut steps, policy, shown) = runtime()?.block_on(async {
        let bucket = place.bucket_to_check().await?;
        let target = bucket.target();
        let has_kms = matches!(target.encryption, Some(Encryption::Kms(_)));
        let policy = check::policy(&target.bucket, &target.prefix(), has_kms);
        Ok::<_, AppError>((check::check(&bucket).await, policy, target.to_string()))
    })?;
    if place.has_key_of_environment() {
        for step in steps.iter_mut().filter(|step| step.name == "credentials") {
            step.what = step.what.replace("etcd-s3-access-key", "AWS_ACCESS_KEY_ID of this command");
        }
    }
    steps.insert(0, settings(place));
    let is_good = steps.iter().all(|step| step.verdict != StepResult::Bad);
    let items: Vec<S3CheckItem<'_>> = steps
        .iter()
        .map(|step| S3CheckItem { check: step.name, result: word(step.verdict), what: &step.what, next: &step.next })
        .collect();
    let json = serde_json::json!({ "place": shown, "good": is_good, "items": items, "policy": policy });
    if !output::structured(&json, args.output)? {
        output::print_stdout(&table(&steps, &shown, &policy, is_good))?;
    }
    Ok(if is_good { Exit::Done } else { Exit::Failed })
}

/// The steps as findings; successful ones are combined.
pub(super) fn findings(place: &SnapshotContext) -> Result<Vec<CheckRow>, AppError> {
    let steps = runtime()?.block_on(async {
        let bucket = place.bucket_to_check().await?;
        Ok::<_, AppError>(check::check(&bucket).await)
    })?;
    let good = steps.iter().filter(|step| step.verdict == StepResult::Good).count();
    let mut found: Vec<CheckRow> = steps
        .into_iter()
        .filter(|step| step.verdict != StepResult::Good)
        .map(|step| {
            let result =
                if step.verdict == StepResult::Bad { finding::CheckResult::Bad } else { finding::CheckResult::Note };
            CheckRow { check: "s3", result, what: format!("{}: {}", step.name, step.what), next: step.next }
        })
        .collect();
    found.insert(0, CheckRow::ok("s3", format!("{good} checks of the bucket passed")));
    Ok(found)
}

/// The source of settings and environment, which may differ between server and command.
fn settings(place: &SnapshotContext) -> CheckStep {
    let (what, verdict) = if place.is_of_server() {
        ("from the running server, with its credentials and proxy", StepResult::Good)
    } else {
        (
            "no server is running: from the configuration, with credentials and proxy from the environment of this command; a server that systemd starts has another environment",
            StepResult::Note,
        )
    };
    CheckStep { name: "settings", what: what.into(), verdict, next: None }
}

fn word(verdict: StepResult) -> &'static str {
    match verdict {
        StepResult::Good => "good",
        StepResult::Note => "note",
        StepResult::Bad => "BAD",
    }
}

fn table(steps: &[CheckStep], place: &str, policy: &str, is_good: bool) -> String {
    let mut text = String::new();
    for step in steps {
        let head = format!("{:<12}{}", step.name, word(step.verdict));
        let _ = writeln!(text, "{head:<COLUMN$}{}", wrap_text(&escape_control(&step.what), COLUMN, WIDTH));
        if let Some(next) = &step.next {
            let _ = writeln!(text, "{:<COLUMN$}next: {}", "", wrap_text(&escape_control(next), COLUMN, WIDTH));
        }
    }
    let verdict = if is_good { "snapshots can be stored in" } else { "snapshots CANNOT be stored in" };
    let _ = writeln!(text, "\n{verdict} {}\n\nMinimum permissions of the key:\n{policy}", escape_control(place));
    text
}
