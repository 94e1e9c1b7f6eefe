//! `quorate defrag`.

use crate::cli::locate::{Intent, locate};
use crate::cli::output::{self, Format};
use crate::cli::request::call_server;
use crate::config::RawOptions;
use crate::control::api::maintenance::Defragmented;
use crate::control::api::maintenance::MaintenanceRequest;
use crate::error::{AppError, Exit};
use crate::text::format_bytes;

/// Rewrites the database file without its free pages. This member serves no requests meanwhile, which takes some seconds for each
/// gigabyte in use.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quorate defrag
  quorate defrag --wait -o json")]
pub(super) struct Args {
    /// Wait while a snapshot is being taken
    #[arg(long)]
    wait: bool,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(given: &RawOptions, args: &Args) -> Result<Exit, AppError> {
    let config = locate(given, Intent::Write)?;
    let request = MaintenanceRequest { wait: args.wait };
    let done: Defragmented = call_server(&config, "/v1/defrag", &request, "quorate status", |_, _, _| {})?;
    if !output::structured(&done, args.output)? {
        output::print_stdout(&summary(&done))?;
    }
    Ok(Exit::Done)
}

/// The result as text.
pub(super) fn summary(done: &Defragmented) -> String {
    let Defragmented { before, after, took_ms, is_disarmed, .. } = done;
    let seconds = took_ms / 1000;
    let mut text = format!(
        "defragmented in {seconds}.{:03} s: the database had {} and has {} now\n",
        took_ms % 1000,
        format_bytes(before.file),
        format_bytes(after.file)
    );
    if *is_disarmed {
        text.push_str("the alarm NOSPACE was disarmed; etcd accepts writes again\n");
    }
    text
}
