//! Completion scripts and manual pages, made from the same definitions as the command line.

use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;

use super::output;
use crate::durable;
use crate::error::{Exit, Failure};

/// `quorate completion`.
#[derive(Debug, clap::Args)]
pub(super) struct Completion {
    /// Which shell
    #[arg(value_parser = clap::builder::EnumValueParser::<Shell>::new())]
    shell: Shell,
}

/// `quorate man`, for packages.
#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// Where to; made if it is not there
    dir: PathBuf,
}

/// Mode of manual pages.
const READABLE: u32 = 0o644;

pub(super) fn complete(args: &Completion, command: &mut Command) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "quorate", &mut script);
    output::data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

pub(super) fn write(args: &Man, command: Command) -> Result<Exit, Failure> {
    durable::create_dir_all(&args.dir, durable::EXECUTABLE)?;
    let mut command = command;
    command.build();
    page("quorate", &command, &args.dir)?;
    Ok(Exit::Done)
}

/// The page of a command, and those of its verbs.
fn page(name: &str, command: &Command, dir: &Path) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone().name(name.to_owned())).render(&mut text).map_err(output::OutputError)?;
    durable::write_file(&dir.join(format!("{name}.1")), &text, READABLE)?;
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        page(&format!("{name}-{}", verb.get_name()), verb, dir)?;
    }
    Ok(())
}
