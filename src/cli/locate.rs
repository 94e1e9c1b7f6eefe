//! The configuration for a verb other than `server`, and what its mistakes mean to the verb.

use crate::cli::output;
use crate::config::{self, Config, Loaded, Origin, Problem, RawOptions, options};
use crate::error::AppError;
use crate::host::HostFacts;

/// What a verb does to what it finds. Each verb has to say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// It reads only. At three in the morning a broken file must not keep anyone from looking: mistakes are reported, and what
    /// can be made of the rest is used.
    Read,
    /// It writes or deletes: never in a directory that was guessed, nor by rules of which some could not be read.
    Write,
}

/// The configuration. With mistakes in it, an error for what writes or deletes, and a warning for what reads.
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
        "quorate: warning: the configuration has mistakes; looking in {}{guess}\n{problems}",
        config.data_dir.display()
    ));
    Ok(config)
}

/// A flag that was typed just now is a usage error. Which file was named says nothing about what is in it.
fn is_typed(problem: &Problem) -> bool {
    matches!(&problem.origin, Origin::CommandLine(name) if name != options::CONFIG)
}
