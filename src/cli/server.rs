//! `quorate server`.

use super::{ServerOptions, output, reset};
use crate::config::{self, Given, Loaded, LogFormat};
use crate::error::{Exit, Failure};
use crate::host::HostFacts;
use crate::server::reload::Reloader;
use crate::server::reset::Asked;
use crate::server::{self, logging};

/// Options of `quorate server`; each is also a key of the configuration file, but for those that are only meant once.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Args {
    /// Print the effective configuration and where each value comes from, and end
    #[arg(long)]
    print_config: bool,
    /// Go back to the data that the last reset or restore set aside, and end
    #[arg(long, conflicts_with_all = ["cluster-reset", "cluster-reset-restore-path"])]
    undo_reset: bool,
    /// With --cluster-reset or --undo-reset: say what would be done, and touch nothing
    #[arg(long)]
    dry_run: bool,
    /// With --cluster-reset-restore-path: take a plain copy of `member/snap/db`, which has no hash at its end
    #[arg(long)]
    skip_hash_check: bool,
    /// With --cluster-reset: take no snapshot of the data that are there first
    #[arg(long)]
    no_pre_restore_snapshot: bool,
    #[command(flatten)]
    options: ServerOptions,
}

pub(super) fn run(global: Given, args: &Args) -> Result<Exit, Failure> {
    let given = args.options.joined(global);
    let Loaded { config, resolved, warnings, .. } = config::load(&given, &HostFacts::observe());
    let config = config?;
    if args.print_config {
        for warning in &warnings {
            output::talk(&format!("quorate: warning: {warning}\n"));
        }
        output::data(&config::print::print(&resolved, &config))?;
        return Ok(Exit::Done);
    }
    let is_reset = config.cluster_reset || args.undo_reset;
    if !is_reset && (args.dry_run || args.skip_hash_check || args.no_pre_restore_snapshot) {
        return Err(reset::Pointless.into());
    }
    let log_format = config.log_format;
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
        let asked = Asked {
            undo: args.undo_reset,
            dry_run: args.dry_run,
            skip_hash: args.skip_hash_check,
            no_safety_net: args.no_pre_restore_snapshot,
        };
        let done = runtime.block_on(server::reset::run(&config, &asked, reset::progress()));
        done.map(|report| Some((report, asked)))
    } else {
        runtime.block_on(server::run(config, Reloader { given, running: resolved, logging })).map(|()| None)
    };
    // Nothing that is still running matters any more.
    runtime.shutdown_background();
    drop(last_lines);
    match done {
        Ok(None) => Ok(Exit::Done),
        Ok(Some((report, asked))) => reset::tell(&report, &asked, log_format),
        Err(failure) if log_format == LogFormat::Json => {
            output::talk(&failure.json_line());
            Ok(failure.exit())
        }
        Err(failure) => Err(failure),
    }
}
