//! Shell completion: the scripts, and the candidates, which come from the clap definitions and the snapshots on this
//! node.

use std::ffi::OsStr;

use clap::{Arg, Command};
use clap_complete::Shell;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};

use crate::cli::output;
use crate::clock;
use crate::config::options::CLUSTER_RESET_RESTORE_PATH;
use crate::config::{self, RawOptions};
use crate::datadir::DataDir;
use crate::error::{AppError, Exit};
use crate::host::HostFacts;
use crate::plan::select::LATEST;
use crate::snapshot::list;
use crate::text::age;

/// The environment variable with which the script requests candidates.
const VARIABLE: &str = "_QUORATE_COMPLETE";
/// Maximum number of snapshot names.
const MAX_NAMES: usize = 200;

/// `quorate completion`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  source <(quorate completion bash)
  quorate completion zsh >\"${fpath[1]}/_quorate\"
  quorate completion fish >~/.config/fish/completions/quorate.fish")]
pub(super) struct Args {
    /// Shell
    #[arg(value_parser = clap::builder::EnumValueParser::<Shell>::new())]
    shell: Shell,
}

/// Prints the candidates if a shell requests them, and exits then.
pub(super) fn answer(command: fn() -> Command) {
    CompleteEnv::with_factory(move || with_snapshot_names(command())).var(VARIABLE).complete();
}

/// Prints the script.
pub(super) fn run(args: &Args) -> Result<Exit, AppError> {
    let mut script = Vec::new();
    if let Some(shell) = Shells::builtins().completer(&args.shell.to_string()) {
        shell
            .write_registration(VARIABLE, "quorate", "quorate", "quorate", &mut script)
            .map_err(output::OutputError)?;
    }
    output::write_stdout(&script)?;
    Ok(Exit::Done)
}

/// The clap command, with snapshot names as candidates.
fn with_snapshot_names(command: Command) -> Command {
    let is_snapshot = |arg: &Arg| {
        let words = arg.get_value_names().unwrap_or_default();
        arg.is_positional() && words.iter().any(|word| ["SNAPSHOT", "NAME", "A", "B"].contains(&word.as_str()))
    };
    let complete = || ArgValueCompleter::new(names);
    let with_names = |arg: Arg| if is_snapshot(&arg) { arg.add(complete()) } else { arg };
    command
        .mut_subcommand("etcd-snapshot", |verbs| verbs.mut_subcommands(|verb| verb.mut_args(with_names)))
        .mut_subcommand("server", |server| server.mut_arg(CLUSTER_RESET_RESTORE_PATH.name, |arg| arg.add(complete())))
}

/// `latest`, and the names of the snapshots on this node that begin with `current`, the newest first. An unreadable
/// configuration or directory yields none.
fn names(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let given = RawOptions::from_environment();
    let Some(config) = config::load_for_command(&given, &HostFacts::observe()).tentative else { return Vec::new() };
    let dir = config.snapshot.place(&DataDir::new(&config.data_dir));
    let mut listed = list::list(&dir).unwrap_or_default();
    listed.reverse();
    let now = clock::unix_seconds(clock::now());
    let known = listed.into_iter().map(|listed| {
        let help = format!("{}, {}", listed.status.word(), age::ago(listed.created, now));
        (listed.name, help)
    });
    let latest = (LATEST.to_owned(), "the newest good one".to_owned());
    std::iter::once(latest)
        .chain(known)
        .filter(|(name, _)| name.starts_with(current))
        .take(MAX_NAMES)
        .map(|(name, help)| CompletionCandidate::new(name).help(Some(help.into())))
        .collect()
}
