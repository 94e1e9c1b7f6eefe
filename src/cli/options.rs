//! Converts the option table into clap arguments, and collects their values.
//!
//! The environment is read elsewhere (`config::raw`): clap would treat a variable like a typed argument, in usage lines
//! and when it decides whether to print the help, and an empty one like a value.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::options::{Arity, CONFIG, CONFIG_VARIABLE, DEFAULT_CONFIG, OPTIONS, OptionKind, Scope, Spec};
use crate::config::{OptionOrigin, RawOptions};

/// The options of every command.
#[derive(Clone, Debug, Default)]
pub(super) struct GlobalOptions(RawOptions);

impl GlobalOptions {
    pub(super) fn given(&self) -> RawOptions {
        self.0.clone()
    }
}

/// The options of `quorate server`.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerOptions(RawOptions);

impl ServerOptions {
    /// Merged with the global options and the environment, with precedence over both.
    pub(super) fn joined(&self, global: RawOptions) -> RawOptions {
        global.overridden_by(self.0.clone())
    }
}

/// The options of every `quorate etcd-snapshot` subcommand.
#[derive(Clone, Debug, Default)]
pub(super) struct S3Options(RawOptions);

impl S3Options {
    /// Merged with the global options and the environment, with precedence over both.
    pub(super) fn joined(&self, global: RawOptions) -> RawOptions {
        global.overridden_by(self.0.clone())
    }
}

/// `etcd-s3-bucket` without `etcd-`, as in RKE2.
pub(super) fn short_name(spec: &'static Spec) -> Option<&'static str> {
    spec.name.strip_prefix("etcd-").filter(|_| spec.scope == Scope::Snapshots)
}

fn argument(spec: &'static Spec) -> Arg {
    let default = match (spec.default, spec.default_note) {
        ("", "") => String::new(),
        ("", note) => format!(" [default: {note}]"),
        (default, _) => format!(" [default: {default}]"),
    };
    let help = format!("{}{default} [env: {}]", spec.help, spec.variable());
    let argument = Arg::new(spec.name)
        .long(spec.name)
        .value_name(value_name(spec.kind))
        .allow_hyphen_values(spec.kind == OptionKind::KeyValue)
        .help(help);
    let argument =
        if spec.scope == Scope::Global { argument.global(true).help_heading("Global options") } else { argument };
    match (spec.kind, spec.arity) {
        // `--debug`, and `--debug=false` to override a file.
        (OptionKind::Switch, _) => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
        (_, Arity::One) => argument.action(ArgAction::Set),
        (_, Arity::Commas | Arity::Words) => argument.action(ArgAction::Append),
    }
}

fn value_name(kind: OptionKind) -> &'static str {
    match kind {
        OptionKind::Switch => "BOOL",
        OptionKind::Endpoint => "HOST-OR-URL",
        OptionKind::Snapshot => "NAME-OR-PATH",
        OptionKind::Text => "TEXT",
        OptionKind::Path => "PATH",
        OptionKind::Port => "PORT",
        OptionKind::Millis => "MS",
        OptionKind::Bytes => "BYTES",
        OptionKind::Address => "IP",
        OptionKind::DnsLabel | OptionKind::SnapshotName => "NAME",
        OptionKind::HostName => "NAME-OR-IP",
        OptionKind::KeyValue => "KEY=VALUE",
        OptionKind::Cron => "CRON",
        OptionKind::Count | OptionKind::Number => "N",
        OptionKind::Duration => "TIME",
        OptionKind::Retention => "RULES",
        OptionKind::Compression => "BOOL|zstd|zip",
        OptionKind::Choice(_) => "WORD",
    }
}

fn collect(matches: &ArgMatches, scopes: &[Scope]) -> RawOptions {
    let mut given = RawOptions::default();
    for spec in OPTIONS.iter().filter(|spec| scopes.contains(&spec.scope)) {
        let Ok(Some(values)) = matches.try_get_many::<String>(spec.name) else { continue };
        given.options.insert(spec.name, (values.cloned().collect(), OptionOrigin::CommandLine(spec.name.to_owned())));
    }
    given
}

impl Args for GlobalOptions {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG)
            .long(CONFIG)
            .short('c')
            .value_name("PATH")
            .value_parser(clap::value_parser!(PathBuf))
            .global(true)
            .help_heading("Global options")
            .help(format!(
                "The configuration file; drop-ins are read from PATH.d/*.yaml [default: {DEFAULT_CONFIG}] [env: {CONFIG_VARIABLE}]"
            ));
        let options = OPTIONS.iter().filter(|spec| spec.scope == Scope::Global).map(argument);
        command.arg(config).args(options)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for GlobalOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = collect(matches, &[Scope::Global]);
        let path = matches.get_one::<PathBuf>(CONFIG).cloned();
        given.config = path.map(|path| (path, OptionOrigin::CommandLine(CONFIG.to_owned())));
        Ok(Self(given))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for S3Options {
    fn augment_args(command: Command) -> Command {
        // The sections of the help are in the order of their first options: these come last.
        let command = GlobalOptions::augment_args(command);
        let options = OPTIONS.iter().filter(|spec| spec.scope == Scope::Snapshots).map(|spec| {
            let argument = argument(spec).global(true).help_heading("Object storage (S3)").hide_short_help(true);
            // One name in the help, both on the command line.
            match short_name(spec) {
                Some(short) => argument.long(short).alias(spec.name),
                None => argument,
            }
        });
        command.args(options)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for S3Options {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(collect(matches, &[Scope::Snapshots])))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The commands that have an option of the server.
const OF_SERVERS: [Scope; 2] = [Scope::Server, Scope::Snapshots];

impl Args for ServerOptions {
    fn augment_args(command: Command) -> Command {
        command.args(OPTIONS.iter().filter(|spec| OF_SERVERS.contains(&spec.scope)).map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServerOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(collect(matches, &OF_SERVERS)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
