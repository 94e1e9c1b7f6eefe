//! `quorate server`.

use super::{ServerOptions, output};
use crate::config::{self, Given, Loaded, LogFormat};
use crate::error::{Exit, Failure};
use crate::host::HostFacts;
use crate::server::reload::Reloader;
use crate::server::{self, logging};

/// Options of `quorate server`; each is also a key of the configuration file.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the effective configuration and where each value comes from, and end
    #[arg(long)]
    print_config: bool,
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
    let done = runtime.block_on(server::run(config, Reloader { given, running: resolved, logging }));
    // Nothing that is still running matters any more.
    runtime.shutdown_background();
    drop(last_lines);
    match done {
        Ok(()) => Ok(Exit::Done),
        Err(failure) if log_format == LogFormat::Json => {
            output::talk(&failure.json_line());
            Ok(failure.exit())
        }
        Err(failure) => Err(failure),
    }
}
