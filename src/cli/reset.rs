//! Output of a reset or restore: progress, and a summary at the end.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cli::output;
use crate::cli::progress::Progress;
use crate::config::LogFormat;
use crate::error::{AppError, Code, Diagnostic, Exit};
use crate::recovery::journal::OperationKind;
use crate::recovery::report::{ProgressReporter, RecoveryReport, ResetOptions};
use crate::text::{escape_control, format_bytes};

/// Flags of a reset without one.
#[derive(Debug, thiserror::Error)]
#[error(
    "--dry-run, --skip-hash-check, --allow-empty and --no-pre-restore-snapshot belong to --cluster-reset or --undo-reset; nothing was started"
)]
pub(super) struct FlagsRequireReset;

impl Diagnostic for FlagsRequireReset {
    fn code(&self) -> Code {
        Code::FlagsRequireReset
    }

    fn next_step(&self) -> Option<String> {
        Some("add --cluster-reset, or omit them".into())
    }
}

/// A bar for each long step.
pub(super) fn progress() -> ProgressReporter {
    let shown: Mutex<Option<(&'static str, Progress)>> = Mutex::new(None);
    Arc::new(move |what, done, all| {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.as_ref().is_none_or(|(before, _)| *before != what) {
            *shown = Some((what, Progress::new(what)));
        }
        if done >= all {
            *shown = None;
        } else if let Some((_, progress)) = shown.as_mut() {
            progress.set(done, all);
        }
    })
}

/// Says it.
pub(super) fn print_report(report: &RecoveryReport, asked: &ResetOptions, format: LogFormat) -> Result<Exit, AppError> {
    let text = if asked.dry_run { print_dry_run(report) } else { print_done(report) };
    if asked.dry_run {
        output::print_stdout(&text)?;
    } else if format == LogFormat::Json {
        let line = serde_json::json!({
            "level": "info",
            "target": "quorate",
            "message": text.split_whitespace().collect::<Vec<_>>().join(" "),
            "act": report.kind.map(OperationKind::word),
            "old_data": report.old,
            "pre_restore_snapshot": report.pre_restore_snapshot,
            "revision": report.revision.map(|(_, after)| after),
            "keys": report.keys,
        });
        output::print_stderr(&format!("{line}\n"));
    } else {
        // Separated from the log lines before it.
        output::print_stderr(&format!("\n{text}"));
    }
    Ok(Exit::Done)
}

fn path(path: &Path) -> String {
    escape_control(&path.display().to_string())
}

fn print_done(report: &RecoveryReport) -> String {
    let act = report.kind.unwrap_or(OperationKind::Reset);
    let mut text = String::new();
    let mut line = |words: String| {
        let _ = writeln!(text, "{}", output::wrap_text(&words, 2, output::WIDTH));
    };
    let members = match report.members_before {
        0 | 1 => String::new(),
        n => format!(", which had {n} members,"),
    };
    let from = report.from.as_deref().map(path).unwrap_or_default();
    line(match act {
        OperationKind::Reset => format!(
            "The cluster{members} is reset: this server is the only member of a new cluster with the same data."
        ),
        OperationKind::Restore => {
            format!("The snapshot {from} is restored: this server is the only member of a new cluster with its data.")
        }
        OperationKind::Undo => format!("The data of {from} is back in use."),
    });
    if report.is_verified {
        let these = if act == OperationKind::Undo { "this data" } else { "the new data" };
        line(format!(
            "It was verified: an isolated etcd ran on {these}{}, and was stopped again.",
            if act == OperationKind::Undo { "" } else { ", held every key, and took a write" }
        ));
    }
    line("Done. quorate can be restarted without the flags: systemctl start quorate-server".into());
    if let Some((before, after)) = report.revision {
        let keys = output::plural(usize::try_from(report.keys.unwrap_or_default()).unwrap_or(usize::MAX), "key");
        line(if after > before + 1_000 {
            format!(
                "{keys}; the revision was {before} and is {after} now, and everything before it is compacted, so that watchers and \
                 informers re-list."
            )
        } else {
            format!("{keys}, revision {after}.")
        });
    }
    if !report.cleared_alarms.is_empty() {
        line(format!("Cleared alarms: {}.", report.cleared_alarms.join(", ")));
    }
    for note in &report.notes {
        line(format!("Note: {note}."));
    }
    if let Some(old) = &report.old {
        line(format!("The previous data is kept in {}. Undo: quorate server --undo-reset", path(old)));
    }
    if let Some(net) = &report.pre_restore_snapshot {
        line(format!("A snapshot of it is {}", path(net)));
    }
    if report.members_before > 1 && act != OperationKind::Undo {
        line(
            "The other servers are not members any more. On each of them stop quorate and move its server/db/etcd away before it joins this one; until then, keep them stopped."
                .into(),
        );
    }
    text
}

fn print_dry_run(report: &RecoveryReport) -> String {
    let act = report.kind.unwrap_or(OperationKind::Reset);
    let mut text = format!("Dry run of the {}: nothing was changed. What would be done:\n", act.word());
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<10}{}", output::wrap_text(&value, 12, output::WIDTH));
    };
    if let Some(from) = &report.from {
        row(if act == OperationKind::Undo { "back" } else { "restore" }, path(from));
    }
    row("database", format_bytes(report.size));
    if let Some(keys) = report.keys {
        row("keys", keys.to_string());
    }
    if let Some((before, after)) = report.revision {
        row("revision", if before == after { before.to_string() } else { format!("{before}, bumped to {after}") });
    }
    row("members", format!("{} before, 1 after", report.members_before));
    if !report.cleared_alarms.is_empty() {
        row("alarms", format!("{}, cleared", report.cleared_alarms.join(", ")));
    }
    match &report.old {
        Some(old) => row("kept", format!("the data in use, in {}", path(old))),
        None => row("kept", "nothing: there is no data in use".into()),
    }
    if let Some((needed, free)) = report.space {
        row("room", format!("{} needed, {} free", format_bytes(needed), format_bytes(free)));
    }
    for note in &report.notes {
        row("note", note.clone());
    }
    text
}
