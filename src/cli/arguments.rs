//! Parses the command line with clap, a little more strictly.
//!
//! An empty value is a usage error for every option and positional: an unset shell variable, or a `$(…)` without
//! output, must never look like an omitted option. It is accepted only if the definition has an empty default, and in
//! arguments that are passed to another program. clap's suggestions are kept only if `config::suggest` would make them,
//! too, which never suggests anything destructive.

use std::ffi::{OsStr, OsString};

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches};

use crate::config::{kubernetes, suggest};
use crate::error::{Code, Diagnostic};

/// A usage error, with clap's message.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UsageError(String);

impl UsageError {
    /// The first line and the usage of clap's output.
    pub(super) fn of(error: &clap::Error) -> Self {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default();
        Self(message.strip_prefix("error: ").unwrap_or(message).to_owned())
    }
}

impl Diagnostic for UsageError {
    fn code(&self) -> Code {
        Code::Usage
    }

    fn next_step(&self) -> Option<String> {
        Some("quorate --help, or --help of the command".into())
    }
}

/// True if the result is to be printed as JSON. Works for an invalid command line, too, so that a program that
/// requested JSON can read the error.
pub(super) fn asks_for_json(argv: &[OsString]) -> bool {
    let words = || argv.iter().map(|word| word.to_str().unwrap_or_default()).take_while(|word| *word != "--");
    let is_pair =
        words().zip(words().skip(1)).any(|(option, value)| matches!(option, "-o" | "--output") && value == "json");
    is_pair || words().any(|word| matches!(word, "-ojson" | "-o=json" | "--output=json"))
}

/// Parses `argv` as `T` is defined.
///
/// # Errors
/// clap's error; also for a request for help or the version.
pub(super) fn parse<T: CommandFactory + FromArgMatches>(argv: &[OsString]) -> Result<T, clap::Error> {
    let mut command = T::command();
    let matches = command.try_get_matches_from_mut(argv).map_err(with_fair_suggestions)?;
    reject_empty_values(&mut command, &matches)?;
    T::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Checks the values of the subcommand, then of the command: global options occur in both, and belong to the usage of
/// the subcommand.
fn reject_empty_values(command: &mut Command, matches: &ArgMatches) -> Result<(), clap::Error> {
    if let Some((name, matches)) = matches.subcommand()
        && let Some(command) = command.find_subcommand_mut(name)
    {
        reject_empty_values(command, matches)?;
    }
    let empty = command.get_arguments().find(|argument| {
        let id = argument.get_id().as_str();
        // The order matters: clap panics when asked for the source of a value that the subcommand does not have.
        let Ok(Some(mut values)) = matches.try_get_raw(id) else { return false };
        !accepts_empty(argument)
            && values.any(|value| is_empty(argument, value))
            && matches.value_source(id) == Some(ValueSource::CommandLine)
    });
    match empty.map(ToString::to_string) {
        Some(argument) => Err(no_value(command, argument)),
        None => Ok(()),
    }
}

/// White space alone is not a valid option value. A positional may be an etcd key, which may be a space.
fn is_empty(argument: &Arg, value: &OsStr) -> bool {
    value.is_empty() || (!argument.is_positional() && value.to_str().is_some_and(|text| text.trim().is_empty()))
}

fn accepts_empty(argument: &Arg) -> bool {
    argument.is_trailing_var_arg_set() || argument.get_default_values().iter().any(|value| value.is_empty())
}

fn no_value(command: &mut Command, argument: String) -> clap::Error {
    let usage = command.render_usage();
    let mut error = clap::Error::new(ErrorKind::InvalidValue).with_cmd(command);
    error.insert(ContextKind::InvalidArg, ContextValue::String(argument));
    error.insert(ContextKind::InvalidValue, ContextValue::String(String::new()));
    let tip = "the value is empty: is a shell variable not set, or did a $(command) print nothing?";
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
    error
}

/// Removes bad suggestions, and explains flags of k3s and RKE2.
fn with_fair_suggestions(mut error: clap::Error) -> clap::Error {
    let wrong =
        [ContextKind::InvalidArg, ContextKind::InvalidSubcommand].into_iter().find_map(|kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(plain(text)),
            _ => None,
        });
    let Some(wrong) =
        wrong.filter(|_| matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand))
    else {
        return error;
    };
    for kind in [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand] {
        let fair = match error.get(kind) {
            Some(ContextValue::String(name)) => vec![name.clone()],
            Some(ContextValue::Strings(names)) => names.clone(),
            _ => continue,
        };
        let fair: Vec<String> = fair.into_iter().filter(|name| suggest::is_fair(&wrong, &plain(name))).collect();
        error.remove(kind);
        if !fair.is_empty() {
            error.insert(kind, ContextValue::Strings(fair));
        }
    }
    if let Some(tip) = of_kubernetes(&wrong).filter(|_| error.kind() == ErrorKind::UnknownArgument) {
        error.remove(ContextKind::Suggested);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    }
    error
}

fn of_kubernetes(flag: &str) -> Option<String> {
    if flag == kubernetes::CLUSTER_INIT {
        return Some(kubernetes::CLUSTER_INIT_NOTE.into());
    }
    let instead = kubernetes::counterpart(flag).map(|ours| format!("here it is `--{ours}`"));
    instead.or_else(|| kubernetes::is_key(flag).then(|| format!("`--{flag}` is for Kubernetes and has no effect here")))
}

/// `--data-dir <PATH>` is `data-dir`.
fn plain(flag: &str) -> String {
    let name = flag.trim_start_matches('-');
    name.split([' ', '=']).next().unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    /// Every subcommand with its path.
    fn commands(command: &Command, path: &[String], found: &mut Vec<(Vec<String>, Command)>) {
        found.push((path.to_vec(), command.clone()));
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            commands(sub, &[path, &[sub.get_name().to_owned()]].concat(), found);
        }
    }

    fn kind_of(argv: &[String]) -> Option<ErrorKind> {
        parse::<Cli>(&argv.iter().map(OsString::from).collect::<Vec<_>>()).err().map(|error| error.kind())
    }

    #[test]
    fn every_option_of_every_verb_refuses_an_empty_value() {
        let mut command = Cli::command();
        command.build();
        let mut all = Vec::new();
        commands(&command, &["quorate".to_owned()], &mut all);
        let mut tried = 0;
        for (path, command) in all.iter().filter(|(_, command)| !command.has_subcommands()) {
            let sample = |argument: &Arg| {
                argument.get_possible_values().first().map_or("1".to_owned(), |value| value.get_name().to_owned())
            };
            let takes_value = |argument: &&Arg| argument.get_action().takes_values() && argument.get_id() != "help";
            let is_needed = |argument: &&Arg| argument.is_required_set() || argument.get_id() == "names";
            for empty in command.get_arguments().filter(takes_value).filter(|argument| !accepts_empty(argument)) {
                let mut argv = path.clone();
                for argument in command.get_arguments().filter(takes_value) {
                    let is_it = argument.get_id() == empty.get_id();
                    let value = if is_it { String::new() } else { sample(argument) };
                    match argument.get_long() {
                        Some(long) if is_it || is_needed(&argument) => argv.push(format!("--{long}={value}")),
                        None if is_it || is_needed(&argument) => argv.push(value),
                        _ => {}
                    }
                }
                let kind = kind_of(&argv);
                assert!(
                    matches!(kind, Some(ErrorKind::InvalidValue | ErrorKind::ValueValidation)),
                    "{argv:?} is {kind:?}"
                );
                tried += 1;
            }
        }
        assert!(tried > 400, "{tried}");
    }

    #[test]
    fn what_may_be_empty_stays_so() {
        for (line, expected) in [
            ("quorate|etcd-snapshot|ls|file|", None),
            ("quorate|etcd-snapshot|get|file| ", None),
            ("quorate|etcdctl|put|key|", None),
            ("quorate|status|--debug=", Some(ErrorKind::InvalidValue)),
            ("quorate|status|--debug", None),
            ("quorate|--config=|status", Some(ErrorKind::InvalidValue)),
            ("quorate|etcd-snapshot|--s3-bucket=|ls", Some(ErrorKind::InvalidValue)),
            ("quorate|etcd-snapshot|delete|a|", Some(ErrorKind::InvalidValue)),
        ] {
            let argv: Vec<String> = line.split('|').map(str::to_owned).collect();
            assert_eq!(kind_of(&argv), expected, "{line}");
        }
    }

    /// Bugs F4.
    #[test]
    fn the_command_line_suggests_nothing_that_destroys() {
        for (line, expected, never) in [
            ("quorate|server|--cluster-init", Some("is not needed and does nothing"), "reset"),
            ("quorate|server|--cluster-domain=x", Some("is for Kubernetes"), "reset"),
            ("quorate|server|--cluster", None, "reset"),
            ("quorate|server|--new", None, "new-cluster"),
            ("quorate|server|--new-node", None, "new-cluster"),
            ("quorate|server|--undo", None, "undo-reset"),
            (
                "quorate|server|--etcd-s3-insecure-skip-verify",
                Some("`--etcd-s3-skip-ssl-verify`"),
                "'--etcd-s3-insecure'",
            ),
            ("quorate|server|--etcd-s3-insecur", Some("'--etcd-s3-insecure'"), "tip: here"),
            ("quorate|server|--cluster-rest", Some("'--cluster-reset'"), "restore-path"),
            ("quorate|server|--data-dri=x", Some("'--data-dir'"), "reset"),
            ("quorate|etcd-snapshot|purge", None, "'prune'"),
            ("quorate|etcd-snapshot|dele", None, "'delete'"),
            ("quorate|etcd-snapshot|prun", Some("'prune'"), "delete"),
            ("quorate|space|--freeze", None, "'--free'"),
            ("quorate|stats", Some("'status'"), "tip: here"),
        ] {
            let argv: Vec<OsString> = line.split('|').map(OsString::from).collect();
            let error = parse::<Cli>(&argv).unwrap_err().to_string();
            let tips: String = error.lines().filter(|line| line.contains("tip:")).collect();
            match expected {
                Some(expected) => assert!(tips.contains(expected), "{line}: {error}"),
                None => assert_eq!(tips, "", "{line}"),
            }
            assert!(!tips.contains(never), "{line}: {tips}");
        }
    }
}
