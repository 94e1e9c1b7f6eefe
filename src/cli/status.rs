//! `quorate status`: the status of the server on this node.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cli::locate::{Intent, locate};
use crate::cli::output::{self, Format, WIDTH, plural, truncate, wrap_text};
use crate::cli::runtime::block_on;
use crate::clock;
use crate::config::RawOptions;
use crate::control::api::status::{Drills, ServerStatus, Snapshots};
use crate::control::client::{self, ControlError};
use crate::datadir::DataDir;
use crate::error::{AppError, Exit};
use crate::etcd::log_line::short;
use crate::plan::condition::Condition;
use crate::text::{age, escape_control, format_bytes};
use console::Style;

/// `quorate status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quorate status
  quorate status -o json | jq .problems
  quorate status >/dev/null || echo 'not healthy'")]
pub(super) struct Args {
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// The timeout of the launcher, which answers at once unless it hangs.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Where the second column begins.
const COLUMN: usize = 13;
/// Certificates with fewer days left are marked.
const FEW_DAYS: u64 = 30;

pub(super) fn run(given: &RawOptions, args: &Args) -> Result<Exit, AppError> {
    let config = locate(given, Intent::Read)?;
    let status = block_on(fetch(&DataDir::new(&config.data_dir), REQUEST_TIMEOUT))??;
    if !output::structured(&status, args.output)? {
        output::print_stdout(&table(&status))?;
    }
    Ok(if status.healthy { Exit::Done } else { Exit::Failed })
}

/// The status of the server that runs on `data`.
pub(super) async fn fetch(data: &DataDir, timeout: Duration) -> Result<ServerStatus, ControlError> {
    let body = client::get(data, "/v1/status", timeout).await?;
    serde_json::from_slice(&body).map_err(|error| ControlError::NoAnswer {
        path: data.root().to_path_buf(),
        source: std::io::Error::other(error),
    })
}

/// Colored, if standard output is a terminal and `NO_COLOR` is not set.
fn painted(text: &str, style: &Style) -> String {
    style.apply_to(text).to_string()
}

/// A local time, and its age.
fn past(rfc3339: &str) -> String {
    let now = clock::unix_seconds(clock::now());
    match clock::parse_rfc3339(rfc3339) {
        Some(at) => format!("{} ({})", clock::local(at), age::ago(clock::unix_seconds(at), now)),
        None => escape_control(rfc3339),
    }
}

/// A local time, and the time until then.
fn future(rfc3339: &str) -> String {
    let now = clock::unix_seconds(clock::now());
    match clock::parse_rfc3339(rfc3339) {
        Some(at) => format!("{} (in {})", clock::local(at), age::short(clock::unix_seconds(at).saturating_sub(now))),
        None => escape_control(rfc3339),
    }
}

/// The results of restore drills, and when the next one is due.
fn drilled(drill: &Drills) -> String {
    let last = match &drill.last {
        None => "none yet".to_owned(),
        Some(last) if last.passed => format!("passed {}: {}", past(&last.at), escape_control(&last.snapshot)),
        Some(last) => {
            let failed = painted("FAILED", &Style::new().red().bold());
            let why = escape_control(last.failure.as_deref().unwrap_or("?"));
            let before = drill.last_success.as_deref().map_or_else(|| "never".into(), past);
            format!("{failed} {}: {}: {why}; passed last: {before}", past(&last.at), escape_control(&last.snapshot))
        }
    };
    match &drill.next {
        Some(at) => format!("{last}; next {}", future(at)),
        None => last,
    }
}

/// Two columns, of which the second wraps.
#[derive(Default)]
struct Rows(String);

impl Rows {
    fn row(&mut self, name: &str, value: impl AsRef<str>) {
        let _ = writeln!(self.0, "{name:<COLUMN$}{}", wrap_text(value.as_ref(), COLUMN, WIDTH));
    }

    fn health(&mut self, status: &ServerStatus) {
        let why = || status.reason.as_deref().unwrap_or("?");
        self.row(
            "health",
            match status.health {
                Condition::Healthy => painted("healthy", &Style::new().green()),
                Condition::Degraded => format!("{}: {}", painted("DEGRADED", &Style::new().yellow().bold()), why()),
                Condition::Unhealthy => format!("{}: {}", painted("NOT HEALTHY", &Style::new().red().bold()), why()),
            },
        );
        for (index, problem) in status.problems.iter().enumerate() {
            if index > 0 {
                self.row("", format!("{}: {}", problem.condition.word(), problem.message));
            }
            if let Some(next) = &problem.next {
                self.row("", format!("next: {next}"));
            }
        }
    }

    fn etcd(&mut self, status: &ServerStatus) {
        let etcd = &status.etcd;
        let pid = etcd.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
        let started = etcd.started.as_ref().filter(|_| etcd.pid.is_some());
        let since = started.map(|at| format!(", since {}", past(at))).unwrap_or_default();
        self.row("etcd", format!("{} {}{pid}{since}", etcd.version, etcd.state));
        self.row("clients", &status.client_url);
        self.row("peers", &status.peer_url);
        let Some(member) = &status.member else { return };
        let role = if member.is_leader { "leader" } else { "follower" };
        self.row("member", format!("{} ({}), {role} of {}", member.name, member.id, plural(member.members, "member")));
        self.row("cluster", format!("{}, epoch {}", member.cluster_id, member.epoch));
        self.row("revision", member.revision.to_string());
        let quota = match member.db_quota {
            0 => "no quota".to_owned(),
            quota => format!("quota {}", format_bytes(quota)),
        };
        let size = |bytes: i64| format_bytes(u64::try_from(bytes).unwrap_or(0));
        self.row("database", format!("{}, {} in use, {quota}", size(member.db_size), size(member.db_in_use)));
        if !member.alarms.is_empty() {
            self.row("alarms", member.alarms.join(", "));
        }
    }

    fn snapshots(&mut self, snapshots: &Snapshots) {
        let last = snapshots.last_good.as_ref().map_or_else(
            || "no good snapshot known".into(),
            |last| {
                format!("last good {}, revision {}, {}", past(&last.created), last.revision, format_bytes(last.size))
            },
        );
        let next = snapshots.next.as_ref().map_or_else(|| "no schedule".into(), |at| format!("next {}", future(at)));
        self.row("snapshots", format!("{last}; {next}"));
        if let (Some(failure), count @ 1..) = (&snapshots.last_failure, snapshots.failures) {
            let failed = plural(usize::try_from(count).unwrap_or(usize::MAX), "snapshot");
            self.row("", format!("{failed} FAILED since, the last: {failure}"));
        }
        if let Some(drill) = &snapshots.drill {
            self.row("drill", drilled(drill));
        }
        let Some(s3) = &snapshots.s3 else { return };
        let last = s3.last.as_ref().map_or_else(
            || "nothing uploaded yet".to_owned(),
            |last| format!("last {}, revision {}, {}", past(&last.created), last.revision, format_bytes(last.size)),
        );
        self.row("s3", format!("{}: {last}", escape_control(&s3.place)));
        if let Some(first) = s3.pending.iter().max_by_key(|pending| pending.failures) {
            let why = first.last_failure.as_ref().map_or_else(String::new, |why| {
                format!("; the last failure: {}", escape_control(&why.replace("\n  because: ", ": ")))
            });
            self.row("", format!("{} STILL TO BE UPLOADED{why}", plural(s3.pending.len(), "snapshot")));
        }
    }

    fn host(&mut self, status: &ServerStatus) {
        if let Some(free) = status.disk.free {
            let p99 = status.disk.fsync_p99_ms;
            let fsync = p99.map(|p99| format!(", fsync p99 {p99:.1} ms at the start")).unwrap_or_default();
            self.row("disk", format!("{} free{fsync}", format_bytes(free)));
        }
        for (index, old) in status.old_data.iter().enumerate() {
            let path = escape_control(&old.path.display().to_string());
            self.row(if index == 0 { "old data" } else { "" }, format!("{}, in {path}", format_bytes(old.bytes)));
        }
        let etcd = &status.etcd;
        if etcd.restarts > 0 || etcd.last_exit.is_some() {
            let last = etcd.last_exit.as_deref().map(|exit| format!("; last exit: {exit}")).unwrap_or_default();
            self.row("restarts", format!("{}{last}", etcd.restarts));
        }
        if let Some(first) = status.certificates.iter().min_by_key(|certificate| certificate.days_left) {
            let note = if first.days_left < FEW_DAYS { "  (soon)" } else { "" };
            self.row("certificates", format!("valid for {} more days ({}){note}", first.days_left, first.name));
        }
        self.row("data", &status.data_dir);
        let launcher = &status.launcher;
        self.row("quorate", format!("{}, pid {}, since {}", launcher.version, launcher.pid, past(&launcher.started)));
        if !etcd.last_lines.is_empty() {
            self.0.push_str("last lines of etcd:\n");
            for line in &etcd.last_lines {
                let _ = writeln!(self.0, "  {}", truncate(&short(line), WIDTH - 2));
            }
        }
    }
}

fn table(status: &ServerStatus) -> String {
    let mut rows = Rows::default();
    rows.health(status);
    rows.etcd(status);
    rows.snapshots(&status.snapshots);
    rows.host(status);
    rows.0
}
