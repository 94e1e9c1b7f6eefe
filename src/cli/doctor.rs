//! `quorate doctor`: all checks of the server on this node in one table, with remedies.

use std::fmt::Write as _;
use std::time::Duration;

use console::Style;

use crate::cli::etcd_snapshot::s3_findings;
use crate::cli::locate::{Intent, locate};
use crate::cli::output::{self, Format, WIDTH, wrap_text};
use crate::cli::runtime::runtime;
use crate::cli::status;
use crate::config::{self, Config, Loaded, RawOptions};
use crate::datadir::DataDir;
use crate::error::{AppError, Exit};
use crate::host::HostFacts;
use crate::launcher::doctor;
use crate::plan::finding::{CheckResult, CheckRow};

/// Checks disk, clock, fsync, ports, modes, versions, certificates, the age of snapshots, object storage and the configuration, with and
/// without a running server. Changes nothing; writes a probe of the disk and, with S3, one of the bucket, and removes them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quorate doctor
  quorate doctor --no-s3
  quorate doctor -o json | jq '.items[] | select(.result != \"ok\")'")]
pub(super) struct Args {
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    /// Skip the checks of object storage
    #[arg(long)]
    no_s3: bool,
}

/// The timeout of the status request.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);
/// Where the second column begins.
const COLUMN: usize = 14;

pub(super) fn run(given: &RawOptions, args: &Args) -> Result<Exit, AppError> {
    let mut found = configuration(given);
    let config = locate(given, Intent::Read)?;
    let data = DataDir::new(&config.data_dir);
    found.extend(runtime()?.block_on(async {
        let running = status::fetch(&data, STATUS_TIMEOUT).await;
        doctor::examine(&config, &data, running.as_ref().ok()).await
    }));
    if config.snapshot.s3.is_on && !args.no_s3 {
        found.extend(s3_findings(&config, given).unwrap_or_else(|failure| vec![s3_failed(&failure, &config)]));
    }
    let bad = found.iter().filter(|finding| finding.result == CheckResult::Bad).count();
    let json = serde_json::json!({ "healthy": bad == 0, "items": found });
    if !output::structured(&json, args.output)? {
        output::print_stdout(&table(&found, bad))?;
    }
    Ok(if bad == 0 { Exit::Done } else { Exit::Failed })
}

fn configuration(given: &RawOptions) -> Vec<CheckRow> {
    let Loaded { config, warnings, .. } = config::load(given, &HostFacts::observe());
    let mut found: Vec<CheckRow> = match config {
        Ok(_) => vec![CheckRow::ok("configuration", "no mistakes")],
        Err(errors) => {
            let next = crate::error::Diagnostic::next_step(&errors);
            errors
                .problems
                .iter()
                .map(|problem| CheckRow::bad("configuration", problem.to_string(), next.clone()))
                .collect()
        }
    };
    let note = |problem: &config::ConfigProblem| CheckRow {
        check: "configuration",
        result: CheckResult::Note,
        what: problem.to_string(),
        next: None,
    };
    found.extend(warnings.iter().map(note));
    found
}

fn table(found: &[CheckRow], bad: usize) -> String {
    let mut text = String::new();
    for finding in found {
        let (word, style) = match finding.result {
            CheckResult::Ok => ("ok", Style::new().green()),
            CheckResult::Note => ("note", Style::new().yellow()),
            CheckResult::Bad => ("BAD", Style::new().red().bold()),
        };
        let head = format!("{:<COLUMN$}{}", finding.check, style.apply_to(format!("{word:<6}")));
        let what = crate::text::escape_control(&finding.what);
        let _ = writeln!(text, "{head}{}", wrap_text(&what, COLUMN + 6, WIDTH));
        if let Some(next) = &finding.next {
            let next = format!("next: {}", crate::text::escape_control(next));
            let _ = writeln!(text, "{:1$}{2}", "", COLUMN + 6, wrap_text(&next, COLUMN + 6, WIDTH));
        }
    }
    let notes = found.iter().filter(|finding| finding.result == CheckResult::Note).count();
    let _ = writeln!(text, "\n{}: {bad} bad, {}", output::plural(found.len(), "check"), output::plural(notes, "note"));
    text
}

/// A check that fails to run is a finding, too.
fn s3_failed(failure: &AppError, config: &Config) -> CheckRow {
    let mut finding = doctor::of_failure("s3", failure);
    finding.next = finding.next.or_else(|| Some(config.invocation.command("etcd-snapshot s3-check")));
    finding
}
