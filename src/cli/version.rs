//! `quorate version`: the versions of this executable and of the etcd inside it.

use serde::Serialize;

use crate::cli::output::{self, Format};
use crate::error::{AppError, Exit};
use crate::etcd::embedded;

/// `quorate version`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quorate version
  quorate version -o json")]
pub(super) struct Args {
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// The `-o json` output. Fields are added, never renamed.
#[derive(Debug, Serialize)]
struct Versions {
    version: &'static str,
    /// The commit that it was built from, if known.
    commit: Option<&'static str>,
    etcd: Option<Embedded>,
}

#[derive(Debug, Serialize)]
struct Embedded {
    version: &'static str,
    sha256: &'static str,
}

pub(super) fn run(args: &Args) -> Result<Exit, AppError> {
    let etcd = embedded::facts("etcd").map(|(version, sha256)| Embedded { version, sha256 });
    let versions = Versions { version: env!("CARGO_PKG_VERSION"), commit: option_env!("QUORATE_COMMIT"), etcd };
    if !output::structured(&versions, args.output)? {
        let commit = versions.commit.map(|commit| format!(" ({commit})")).unwrap_or_default();
        let etcd =
            versions.etcd.map_or_else(|| "no etcd inside".into(), |etcd| format!("etcd {} inside", etcd.version));
        output::print_stdout(&format!("quorate {}{commit}, {etcd}\n", versions.version))?;
    }
    Ok(Exit::Done)
}
