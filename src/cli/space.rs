//! `quorate space`: what uses space in the database, and how to reclaim it.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::boltdb::page::ReadError;
use crate::cli::defrag::summary;
use crate::cli::locate::{Intent, locate};
use crate::cli::output::{self, Format, WIDTH, truncate, wrap_text};
use crate::cli::request::call_server;
use crate::cli::runtime::block_on;
use crate::cli::status;
use crate::config::{Config, RawOptions};
use crate::control::api::maintenance::MaintenanceRequest;
use crate::control::api::maintenance::Reclaimed;
use crate::control::api::status::ServerStatus;
use crate::datadir::DataDir;
use crate::error::{AppError, Code, Diagnostic, Exit};
use crate::etcd::client::{EtcdClient, Size};
use crate::plan::defrag;
use crate::snapshot::live::{PinnedDatabase, PinnedDatabaseError};
use crate::snapshot::usage::{self, PrefixShare, Usage};
use crate::text::{escape_control, format_bytes};

/// The timeout of the status request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Where the second column begins.
const COLUMN: usize = 13;

/// Shows how much of the database keys, history and free pages use, and which prefixes use the most. With --free:
/// compacts the history, returns the free pages to the disk, and disarms NOSPACE if there is space again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quorate space
  quorate space --top 30 -o json
  quorate space --free")]
pub(super) struct Args {
    /// Compact the history up to now, defragment (this member serves no requests meanwhile), and disarm NOSPACE
    #[arg(long)]
    free: bool,
    /// With --free: wait while a snapshot is being taken
    #[arg(long, requires = "free")]
    wait: bool,
    /// How many prefixes to show
    #[arg(long, default_value_t = 10, value_name = "N")]
    top: usize,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// The space usage. Fields are added, never renamed.
#[derive(Debug, Serialize)]
struct Report {
    size: u64,
    in_use: u64,
    quota: u64,
    disk_free: Option<u64>,
    revision: i64,
    compact_revision: Option<i64>,
    keys: u64,
    key_bytes: u64,
    records: u64,
    bytes: u64,
    alarms: Vec<String>,
    prefixes: Vec<Prefix>,
}

#[derive(Debug, Serialize)]
struct Prefix {
    #[serde(rename = "prefix")]
    name: String,
    keys: u64,
    key_bytes: u64,
    records: u64,
    bytes: u64,
}

impl Prefix {
    fn of(name: &[u8], share: &PrefixShare) -> Self {
        let PrefixShare { keys, key_bytes, records, bytes } = *share;
        Self { name: escape_control(&String::from_utf8_lossy(name)), keys, key_bytes, records, bytes }
    }
}

/// The live database cannot be read.
#[derive(Debug, thiserror::Error)]
enum SpaceError {
    #[error("cannot read the database")]
    Damaged(#[source] ReadError),
    #[error("internal error: a worker thread panicked")]
    Lost,
    /// The keys alone are too many.
    #[error("the database is still at its quota: {} of {}; the alarm stays", format_bytes(*size), format_bytes(*quota))]
    StillFull { size: u64, quota: u64 },
}

impl Diagnostic for SpaceError {
    fn code(&self) -> Code {
        match self {
            Self::Damaged(_) => Code::DatabaseDamaged,
            Self::Lost => Code::InternalError,
            Self::StillFull { .. } => Code::QuotaStillFull,
        }
    }

    fn next_step(&self) -> Option<String> {
        Some(match self {
            Self::Damaged(_) => "run quorate etcd-snapshot save, which checks the whole database, and see journalctl -u quorate-server -e".into(),
            Self::Lost => "try again".into(),
            Self::StillFull { .. } => "delete keys (quorate space shows which use the most; deleting works in spite of the alarm) \
                                       and run quorate space --free again, or raise etcd-quota-backend-bytes and restart"
                .into(),
        })
    }
}

pub(super) fn run(given: &RawOptions, args: &Args) -> Result<Exit, AppError> {
    let config = locate(given, if args.free { Intent::Write } else { Intent::Read })?;
    if args.free {
        return free(&config, args);
    }
    let data = DataDir::new(&config.data_dir).with_etcd_user(config.etcd.user.clone());
    let (status, size, alarms, usage) = block_on(async {
        let status = status::fetch(&data, REQUEST_TIMEOUT).await?;
        let mut client =
            EtcdClient::connect(&data, &status.local_client_url).await.map_err(PinnedDatabaseError::Stream)?;
        let size = client.size().await.map_err(PinnedDatabaseError::Stream)?;
        // Current values: the status may be some seconds old.
        let alarms = client.source().await.map(|source| source.alarms);
        let live = PinnedDatabase::pin(&mut client, &data).await?;
        // The connection lives on this thread's runtime and pins the pages; another thread reads them.
        let read = tokio::task::spawn_blocking(move || {
            let usage = usage::measure(&live, live.size()).map_err(SpaceError::Damaged);
            live.check().map(|()| usage)
        });
        let usage = read.await.map_err(|_| SpaceError::Lost)???;
        Ok::<_, AppError>((status, size, alarms.unwrap_or_default(), usage))
    })??;
    let report = report(&status, size, alarms, &usage, args.top);
    if !output::structured(&report, args.output)? {
        output::print_stdout(&table(&report))?;
    }
    Ok(Exit::Done)
}

fn free(config: &Config, args: &Args) -> Result<Exit, AppError> {
    let request = MaintenanceRequest { wait: args.wait };
    let freed: Reclaimed = call_server(config, "/v1/free", &request, "quorate space", |_, _, _| {})?;
    if !output::structured(&freed, args.output)? {
        let what = if freed.is_compacted { "old revisions were removed" } else { "there were no old revisions" };
        output::print_stdout(&format!(
            "compacted at revision {}: {what}\n{}",
            freed.compact_revision,
            summary(&freed.defragmented)
        ))?;
    }
    let done = &freed.defragmented;
    if !defrag::has_room(done.after.file, done.quota) {
        return Err(SpaceError::StillFull { size: done.after.file, quota: done.quota }.into());
    }
    Ok(Exit::Done)
}

fn report(status: &ServerStatus, size: Size, alarms: Vec<String>, usage: &Usage, top: usize) -> Report {
    let mut prefixes: Vec<Prefix> =
        usage.prefixes.iter().take(top).map(|(name, share)| Prefix::of(name, share)).collect();
    let mut others = usage.others.clone();
    for (_, share) in usage.prefixes.iter().skip(top) {
        others.add(share);
    }
    if others.records > 0 {
        prefixes.push(Prefix::of(b"(others)", &others));
    }
    Report {
        size: size.file,
        in_use: size.in_use,
        quota: status.member.as_ref().map_or(0, |member| member.db_quota),
        disk_free: status.disk.free,
        revision: usage.revision,
        compact_revision: usage.compact_revision,
        keys: usage.total.keys,
        key_bytes: usage.total.key_bytes,
        records: usage.total.records,
        bytes: usage.total.bytes,
        alarms,
        prefixes,
    }
}

fn table(report: &Report) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<COLUMN$}{}", wrap_text(&value, COLUMN, WIDTH));
    };
    let quota = if report.quota == 0 { "none".into() } else { format_bytes(report.quota) };
    let unused = report.size.saturating_sub(report.in_use);
    row(
        "database",
        format!(
            "{} of quota {quota}; {} of it are free pages, which defragmentation reclaims",
            format_bytes(report.size),
            format_bytes(unused)
        ),
    );
    row("keys", format!("{} with {}, at revision {}", report.keys, format_bytes(report.key_bytes), report.revision));
    let since =
        report.compact_revision.map_or_else(|| "from the beginning".into(), |at| format!("since revision {at}"));
    row(
        "history",
        format!(
            "{} older values and deletions with {}, {since}; compaction removes them",
            report.records - report.keys,
            format_bytes(report.bytes - report.key_bytes)
        ),
    );
    if let Some(free) = report.disk_free {
        row("disk", format!("{} free", format_bytes(free)));
    }
    if !report.alarms.is_empty() {
        row("alarms", report.alarms.join(", "));
    }
    if !report.prefixes.is_empty() {
        let _ =
            writeln!(text, "\n{:<32} {:>10} {:>10} {:>10} {:>10}", "PREFIX", "BYTES", "RECORDS", "KEYS", "THEIR SIZE");
    }
    for prefix in &report.prefixes {
        let Prefix { name, keys, key_bytes, records, bytes } = prefix;
        let (bytes, key_bytes) = (format_bytes(*bytes), format_bytes(*key_bytes));
        let _ = writeln!(text, "{:<32} {bytes:>10} {records:>10} {keys:>10} {key_bytes:>10}", truncate(name, 32));
    }
    if report.alarms.iter().any(|alarm| alarm == "NOSPACE") {
        text.push_str("\nnext: quorate space --free (compacts, defragments, disarms the alarm)\n");
    }
    text
}
