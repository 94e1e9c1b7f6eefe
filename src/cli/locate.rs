//! Loads the configuration for a command other than `server`, and decides whether its errors are fatal.

use crate::cli::output;
use crate::config::{self, Config, ConfigProblem, Loaded, OptionOrigin, RawOptions, options};
use crate::error::AppError;
use crate::host::HostFacts;

/// The access of a command to data. Every command declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// Read-only. A broken configuration must not prevent diagnosis: errors are reported, and the valid rest is used.
    Read,
    /// Writes or deletes: never in a guessed directory, nor with incomplete rules.
    Write,
}

/// The configuration. Errors in it are fatal for commands that write or delete, and a warning for others.
pub(super) fn locate(given: &RawOptions, intent: Intent) -> Result<Config, AppError> {
    let Loaded { config, tentative, resolved, .. } = config::load_for_command(given, &HostFacts::observe());
    let errors = match config {
        Ok(config) => return Ok(config),
        Err(errors) => errors,
    };
    let is_typed = errors.problems.iter().any(is_typed);
    let Some(config) = tentative.filter(|_| intent == Intent::Read && !is_typed) else { return Err(errors.into()) };
    let problems: String = errors.problems.iter().map(|problem| format!("  {problem}\n")).collect();
    let guess =
        if resolved.is_set(&options::DATA_DIR) { "" } else { ", which is a guess: the configuration may name another" };
    output::print_stderr(&format!(
        "quorate: warning: the configuration has errors; reading {}{guess}\n{problems}",
        config.data_dir.display()
    ));
    Ok(config)
}

/// An invalid flag is a usage error; `--config` itself is not the problem.
fn is_typed(problem: &ConfigProblem) -> bool {
    matches!(&problem.origin, OptionOrigin::CommandLine(name) if name != options::CONFIG)
}
