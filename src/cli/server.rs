//! `quorate server`.

use crate::cli::options::ServerOptions;
use crate::cli::{output, reset};
use crate::config::{self, Loaded, LogFormat, RawOptions};
use crate::error::{AppError, Exit};
use crate::host::HostFacts;
use crate::launcher;
use crate::launcher::reload::ConfigReloader;
use crate::logging;
use crate::recovery::report::ResetOptions;

/// Starts etcd under the data directory and supervises it until SIGTERM or SIGINT; SIGHUP reloads the configuration.
/// Each option is also a key of the configuration file and an environment variable, except one-time actions.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quorate server --print-config
  quorate server --cluster-reset --dry-run
  quorate server --cluster-reset --cluster-reset-restore-path=latest
  quorate server --undo-reset")]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Args {
    /// Print the effective configuration and the source of each value, then exit
    #[arg(long)]
    print_config: bool,
    /// Return to the data before the last reset or restore, then exit
    #[arg(long, conflicts_with_all = ["cluster-reset", "cluster-reset-restore-path"])]
    undo_reset: bool,
    /// With --cluster-reset or --undo-reset: show what would be done, without changing anything
    #[arg(long)]
    dry_run: bool,
    /// With --cluster-reset-restore-path: accept a raw copy of `member/snap/db` (no trailing hash)
    #[arg(long)]
    skip_hash_check: bool,
    /// With --cluster-reset-restore-path: restore a snapshot even if it has no keys
    #[arg(long)]
    allow_empty: bool,
    /// With --cluster-reset: do not take a snapshot of the existing data first
    #[arg(long)]
    no_pre_restore_snapshot: bool,
    #[command(flatten)]
    options: ServerOptions,
}

pub(super) fn run(global: RawOptions, args: &Args) -> Result<Exit, AppError> {
    let given = args.options.joined(global);
    let Loaded { config, resolved, warnings, .. } = config::load(&given, &HostFacts::observe());
    let config = config?;
    if args.print_config {
        for warning in &warnings {
            output::print_stderr(&format!("quorate: warning: {warning}\n"));
        }
        output::print_stdout(&config::print::print(&resolved, &config))?;
        return Ok(Exit::Done);
    }
    let is_reset = config.cluster_reset || args.undo_reset;
    if !is_reset && (args.dry_run || args.skip_hash_check || args.allow_empty || args.no_pre_restore_snapshot) {
        return Err(reset::FlagsRequireReset.into());
    }
    let log_format = config.log_format;
    if log_format == LogFormat::Json {
        output::print_failures_as_json();
    }
    let (logging, last_lines) = logging::start(log_format, config.debug)?;
    for warning in warnings {
        tracing::warn!(origin = %warning.origin, "{}", warning.message);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(output::RuntimeError)?;
    let done = if is_reset {
        let asked = ResetOptions {
            undo: args.undo_reset,
            dry_run: args.dry_run,
            skip_hash: args.skip_hash_check,
            allow_empty: args.allow_empty,
            no_pre_restore_snapshot: args.no_pre_restore_snapshot,
        };
        let done = runtime.block_on(launcher::reset::run(&config, &asked, reset::progress()));
        done.map(|report| Some((report, asked)))
    } else {
        runtime.block_on(launcher::run(config, ConfigReloader { given, running: resolved, logging })).map(|()| None)
    };
    // Running threads do not matter any more.
    runtime.shutdown_background();
    drop(last_lines);
    match done {
        Ok(None) => Ok(Exit::Done),
        Ok(Some((report, asked))) => reset::print_report(&report, &asked, log_format),
        Err(failure) => Err(failure),
    }
}
