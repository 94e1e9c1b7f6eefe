//! Manual pages, generated from the clap definitions.

use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;
use roff::{Roff, bold, roman};

use crate::cli::output;
use crate::durable;
use crate::error::{AppError, Exit};

/// `quorate man`, for packages.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Output directory; created if it does not exist
    dir: PathBuf,
}

/// Mode of manual pages.
const READABLE: u32 = 0o644;

/// The exit codes of every command, as in README.md.
const EXIT_STATUS: [(&str, &str); 8] = [
    ("0", "done, also when asked to stop"),
    ("1", "failed; the message says what, why and what to do"),
    ("2", "usage or configuration"),
    ("3", "the data directory is in use"),
    ("4", "refused to protect data"),
    ("5", "a named file, snapshot or program does not exist"),
    ("6", "the server is not running or not reachable"),
    ("75", "busy, try again"),
];

const FILES: [(&str, &str); 3] = [
    ("/etc/quorate/config.yaml", "the configuration; /etc/quorate/config.yaml.d/*.yaml is read after it"),
    ("/var/lib/quorate", "the data directory, unless data-dir says otherwise"),
    ("/var/lib/quorate/server/db/snapshots", "the snapshots, unless etcd-snapshot-dir says otherwise"),
];

pub(super) fn write(args: &Args, command: Command) -> Result<Exit, AppError> {
    durable::create_dir_all(&args.dir, durable::EXECUTABLE)?;
    let mut command = command;
    command.build();
    let mut names = Vec::new();
    collect("quorate", &command, &mut names);
    page("quorate", &command, &names, &args.dir)?;
    Ok(Exit::Done)
}

fn verbs(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
}

fn collect(name: &str, command: &Command, names: &mut Vec<String>) {
    names.push(name.to_owned());
    for verb in verbs(command) {
        collect(&format!("{name}-{}", verb.get_name()), verb, names);
    }
}

/// The page of a command, and those of its subcommands.
fn page(name: &str, command: &Command, names: &[String], dir: &Path) -> Result<(), AppError> {
    let text = render(name, command, names).map_err(output::OutputError)?;
    durable::write_file(&dir.join(format!("{name}.1")), &text, READABLE)?;
    for verb in verbs(command) {
        page(&format!("{name}-{}", verb.get_name()), verb, names, dir)?;
    }
    Ok(())
}

fn render(name: &str, command: &Command, names: &[String]) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    // A short title in the page header: the names of pages are long.
    let man = Man::new(command.clone().name(name.to_owned()));
    let version = concat!("quorate ", env!("CARGO_PKG_VERSION"));
    Roff::new().control("TH", [name, "1", "", version, "quorate"]).to_writer(&mut text)?;
    man.render_name_section(&mut text)?;
    let mut synopsis = Roff::new();
    synopsis.control("SH", ["SYNOPSIS"]);
    let usage = command.clone().render_usage().to_string();
    for line in usage.trim_start_matches("Usage:").lines().map(str::trim).filter(|line| !line.is_empty()) {
        synopsis.text([bold(line)]);
    }
    synopsis.to_writer(&mut text)?;
    man.render_description_section(&mut text)?;
    if command.get_arguments().any(|arg| !arg.is_hide_set()) {
        man.render_options_section(&mut text)?;
    }
    if verbs(command).next().is_some() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut rest = Roff::new();
    if let Some(examples) = command.get_after_help().map(ToString::to_string) {
        rest.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in examples.lines().filter(|line| *line != "Examples:") {
            rest.text([roman(line.trim_end())]);
        }
        rest.control("fi", []);
    }
    for (title, rows) in [("EXIT STATUS", EXIT_STATUS.as_slice()), ("FILES", FILES.as_slice())] {
        rest.control("SH", [title]);
        for (word, meaning) in rows {
            rest.control("TP", []).text([bold(*word)]).text([roman(*meaning)]);
        }
    }
    rest.control("SH", ["SEE ALSO"]);
    rest.text([roman(see_also(name, names).join(", "))]);
    rest.to_writer(&mut text)?;
    Ok(text)
}

/// The parent page, subcommands and siblings; the main page has all subcommands.
fn see_also(name: &str, names: &[String]) -> Vec<String> {
    let parent = |page: &str| -> Option<String> {
        names.iter().filter(|other| page.starts_with(&format!("{other}-"))).max_by_key(|other| other.len()).cloned()
    };
    let above = parent(name);
    let is_near = |other: &&String| {
        let of_other = parent(other);
        Some(*other) == above.as_ref() || of_other.as_deref() == Some(name) || (of_other == above && above.is_some())
    };
    let mut pages: Vec<String> =
        names.iter().filter(|other| *other != name).filter(is_near).map(|page| format!("{page}(1)")).collect();
    pages.push("etcdctl(1)".into());
    pages
}
