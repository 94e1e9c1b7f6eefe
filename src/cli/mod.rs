//! The command line interface: one file for each command, without decisions.
//!
//! Data goes to standard output, messages to standard error. Options that are also configuration keys come from the
//! table in `config::options`; clap's derive defines the commands and their other arguments.

mod arguments;
mod completion;
mod defrag;
mod doctor;
mod env;
mod etcd_snapshot;
mod etcdctl;
mod explain;
mod interrupt;
mod locate;
mod manual;
mod mask;
mod options;
mod output;
mod progress;
mod request;
mod reset;
mod runtime;
mod server;
mod space;
mod status;
mod table;
mod version;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::RawOptions;
use crate::environment;
use crate::error::{Code, Exit};
use crate::faults;

use arguments::UsageError;
use options::GlobalOptions;

/// Run and operate an etcd on a node: TLS, health checks, snapshots, restore
#[derive(Debug, Parser)]
#[command(name = "quorate", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  quorate status
  quorate etcd-snapshot save --name before-upgrade
  quorate server --cluster-reset --cluster-reset-restore-path=latest --dry-run
  quorate doctor";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the server: start etcd and supervise it
    Server(server::Args),
    /// Take, list, verify, delete and prune snapshots of etcd
    EtcdSnapshot(etcd_snapshot::Args),
    /// Show what uses space in the etcd database; --free reclaims it (compact, defragment, disarm NOSPACE)
    Space(space::Args),
    /// Defragment the etcd database
    Defrag(defrag::Args),
    /// Show the status of the server on this node (exit 0: healthy, 1: degraded or unhealthy, 6: not running)
    Status(status::Args),
    /// Check everything that the server on this node needs; exit 1 if anything is bad
    Doctor(doctor::Args),
    /// Run etcdctl with this server's address and certificates
    Etcdctl(etcdctl::Args),
    /// Print this server's address and certificates as shell variables for etcdctl
    Env(env::Args),
    /// Explain an error code: what has happened, and what to do
    Explain(explain::Args),
    /// Print the versions of quorate and of the etcd inside it
    Version(version::Args),
    /// Print a completion script for a shell
    Completion(completion::Args),
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man(manual::Args),
}

/// Runs the program: parses the command line, executes it, reports errors, and returns the exit code.
pub fn run(argv: impl Iterator<Item = OsString>) -> ExitCode {
    // Before anything can overwrite it.
    environment::all();
    faults::arm();
    completion::answer(Cli::command);
    let argv: Vec<OsString> = argv.collect();
    let is_json = arguments::asks_for_json(&argv);
    if is_json {
        output::print_failures_as_json();
    }
    let cli: Cli = match arguments::parse(&argv) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(unparsed(&error, is_json) as u8),
    };
    // Before its secrets are overwritten.
    let global = RawOptions::from_environment().overridden_by(cli.global.given());
    mask::secrets();
    let done = match cli.verb {
        Verb::Server(args) => server::run(global, &args),
        Verb::EtcdSnapshot(args) => etcd_snapshot::run(&global, &args),
        Verb::Space(args) => space::run(&global, &args),
        Verb::Defrag(args) => defrag::run(&global, &args),
        Verb::Status(args) => status::run(&global, &args),
        Verb::Doctor(args) => doctor::run(&global, &args),
        Verb::Etcdctl(args) => etcdctl::run(&global, &args),
        Verb::Env(_) => env::run(&global),
        Verb::Explain(args) => explain::run(&args),
        Verb::Version(args) => version::run(&args),
        Verb::Completion(args) => completion::run(&args),
        Verb::Man(args) => manual::write(&args, Cli::command()),
    };
    match done {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => {
            output::failure(&failure);
            ExitCode::from(failure.exit() as u8)
        }
    }
}

/// Prints clap's usage error, or the requested help or version.
fn unparsed(error: &clap::Error, is_json: bool) -> Exit {
    if !error.use_stderr() {
        let _ = error.print();
        return Exit::Done;
    }
    if is_json {
        output::failure(&UsageError::of(error).into());
    } else {
        let _ = error.print();
        output::print_stderr(&format!("\ncode: {}\n", Code::Usage));
    }
    Exit::Usage
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    /// Every help page has examples; the short help omits the options of S3, which come last in the long help.
    #[test]
    fn the_pages_of_the_snapshot_verbs_have_examples_and_no_flood_of_options() {
        let mut command = Cli::command();
        command.build();
        let verbs = command.find_subcommand_mut("etcd-snapshot").unwrap();
        for verb in verbs.get_subcommands_mut().filter(|verb| verb.get_name() != "help") {
            let name = verb.get_name().to_owned();
            let (short, long) = (verb.render_help().to_string(), verb.render_long_help().to_string());
            for page in [&short, &long] {
                let examples = page.split_once("Examples:\n").unwrap_or_else(|| panic!("{name} has no examples")).1;
                let count = examples.lines().filter(|line| line.starts_with("  quorate etcd-snapshot ")).count();
                assert!((2..=4).contains(&count), "{name}: {count} examples");
                assert!(examples.lines().all(|line| line.chars().count() < 80), "{name}: {examples}");
            }
            let options = short.split("Examples:").next().unwrap();
            assert!(!options.lines().any(|line| line.trim_start().starts_with("--s3")), "{options}");
            assert!(!long.contains("--etcd-s3") && long.contains("--s3-bucket"), "{long}");
            let sections = ["Options:", "Global options:", "Object storage (S3):", "Examples:"];
            let order = sections.map(|section| long.find(section).unwrap_or_else(|| panic!("{name} lacks {section}")));
            assert!(order.is_sorted(), "{name}: {order:?}");
        }
    }

    #[test]
    fn the_example_configuration_lists_exactly_the_options_that_exist() {
        let example = include_str!("../../config.yaml.example");
        let listed: Vec<&str> = example
            .lines()
            .filter_map(|line| line.strip_prefix("# ").unwrap_or(line).split_once(':'))
            .map(|(key, _)| key)
            .filter(|key| {
                !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            })
            .collect();
        let existing: Vec<&str> = config::options::OPTIONS.iter().map(|spec| spec.name).collect();
        assert_eq!(listed, existing);
    }

    #[test]
    fn the_example_configuration_parses_with_every_line_switched_on() {
        let example = include_str!("../../config.yaml.example");
        let switched_on: String = example
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.split_once(':').is_some_and(|(key, _)| config::options::find(key).is_some()) => rest,
                Some(rest) if rest.starts_with("  - ") => rest,
                _ => line,
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let entries = config::yaml::read(&switched_on).unwrap();
        assert_eq!(entries.len(), config::options::OPTIONS.len());
        let defaults = config::yaml::read(example).unwrap();
        assert_eq!(defaults, [], "as shipped, the example changes nothing");
    }
}
