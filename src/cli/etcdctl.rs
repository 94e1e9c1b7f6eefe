//! `quorate etcdctl`: the real etcdctl with this server's address and certificates. It replaces this process (exec), so
//! standard input, output and the exit code are those of etcdctl.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::cli::env::{Access, variable};
use crate::cli::locate::{Intent, locate};
use crate::config::RawOptions;
use crate::datadir::DataDir;
use crate::error::{AppError, Code, Diagnostic, Exit};
use crate::etcd::binary;

/// Runs the etcdctl inside quorate, next to etcd-binary, or in PATH. All arguments after quorate's options, or after
/// `--`, are passed to etcdctl.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quorate etcdctl put hello world
  quorate etcdctl get / --prefix --keys-only
  quorate etcdctl -- --write-out=table endpoint status")]
pub(super) struct Args {
    /// Arguments passed through to etcdctl
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot run {path}")]
struct CannotRun {
    path: String,
    source: io::Error,
}

impl Diagnostic for CannotRun {
    fn code(&self) -> Code {
        Code::EtcdctlFailed
    }
}

pub(super) fn run(given: &RawOptions, args: &Args) -> Result<Exit, AppError> {
    // It may change data.
    let config = locate(given, Intent::Write)?;
    let data = DataDir::new(&config.data_dir);
    let access = Access::find(&config)?;
    // The etcd of the server may be set on its command line.
    let etcd = access.etcd_binary.as_deref().or(config.etcd.binary.as_deref());
    let program = binary::find_etcdctl(etcd, &data)?;
    let mut command = Command::new(&program.path);
    let is_given = |flag: &str| own_arguments(&args.args).any(|arg| is_flag(arg, flag));
    let is_identity_given = is_given("cert") || is_given("key");
    for (flag, value) in access.settings() {
        // etcdctl rejects a flag whose variable is also set, and the user's flag must win.
        command.env_remove(variable(flag));
        // Certificate and key belong together.
        let is_overridden = is_given(flag) || (is_identity_given && matches!(flag, "cert" | "key"));
        if !is_overridden {
            command.arg(format!("--{flag}={value}"));
        }
    }
    command.env_remove("ETCDCTL_API").env_remove("QUORATE_TOKEN").args(&args.args);
    let source = command.exec();
    Err(CannotRun { path: program.path.display().to_string(), source }.into())
}

/// The arguments that may be options: after `--` there are only keys and values.
fn own_arguments(args: &[OsString]) -> impl Iterator<Item = &OsString> {
    args.iter().take_while(|arg| *arg != "--")
}

fn is_flag(arg: &OsStr, flag: &str) -> bool {
    let text = arg.to_string_lossy();
    let Some(name) = text.strip_prefix("--") else { return false };
    name == flag || name.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_of_the_user_is_seen_in_both_forms() {
        for (arg, expected) in [
            ("--endpoints", true),
            ("--endpoints=x", true),
            ("--endpointsx", false),
            ("endpoints", false),
            ("--cert", false),
        ] {
            assert_eq!(is_flag(OsStr::new(arg), "endpoints"), expected, "{arg}");
        }
        assert!(!is_flag(OsStr::new("--cert-x"), "cert"));
        let args = ["put", "--", "k", "--cert"].map(OsString::from);
        assert_eq!(own_arguments(&args).count(), 1, "a value may look like an option");
    }
}
