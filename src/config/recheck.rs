//! Builds the commands in messages that read the same configuration again.

use std::fmt::Write as _;

use crate::config::options::{self, OPTIONS, Spec};
use crate::config::problem::OptionOrigin;
use crate::config::raw::RawOptions;
use crate::plan::command::Invocation;
use crate::shell::quote;

/// `quorate server --print-config` with the given file, variables and flags, but without secrets.
pub(super) fn command(given: &RawOptions) -> String {
    let mut variables = Vec::new();
    let mut flags = Vec::new();
    let mut say = |name: &str, text: &str, origin: &OptionOrigin| match origin {
        OptionOrigin::Environment(variable) => variables.push(format!("{variable}={} ", quote(text))),
        _ => flags.push(format!(" --{name}={}", quote(text))),
    };
    if let Some((path, origin)) = &given.config {
        say(options::CONFIG, &path.to_string_lossy(), origin);
    }
    for spec in OPTIONS.iter().filter(|spec| !spec.secret) {
        let Some((texts, origin)) = given.options.get(spec.name) else { continue };
        for text in texts {
            say(spec.name, text, origin);
        }
    }
    if let Some(filter) = &given.log_filter {
        variables.push(format!("{}={} ", options::LOG_VARIABLE, quote(filter)));
    }
    format!("{}quorate server --print-config{}", variables.concat(), flags.concat())
}

const ONCE: [&str; 2] = [options::NEW_CLUSTER.name, options::CLUSTER_RESET.name];

/// How to invoke commands for the same server. Variables are repeated as flags: the reader of the message does not have
/// the environment of the service.
pub(super) fn invocation(given: &RawOptions) -> Invocation {
    let mut invocation = Invocation::default();
    if let Some((path, _)) = &given.config {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let _ = write!(invocation.common, " --{}={}", options::CONFIG, quote(&path.to_string_lossy()));
    }
    let is_repeated = |spec: &&Spec| !spec.secret && !ONCE.iter().any(|once| spec.name.starts_with(once));
    for spec in OPTIONS.iter().filter(is_repeated) {
        let Some((texts, _)) = given.options.get(spec.name) else { continue };
        for text in texts {
            let flag = format!(" --{}={}", spec.name, quote(text));
            if *spec == options::DATA_DIR {
                invocation.common.push_str(&flag);
            } else if ![options::DEBUG, options::LOG_FORMAT].contains(spec) {
                // Logging options do not affect what a command does.
                invocation.server.push_str(&flag);
            }
        }
    }
    invocation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_is_repeated_but_for_secrets() {
        let mut given = RawOptions {
            config: Some(("my c.yaml".into(), OptionOrigin::CommandLine("config".into()))),
            ..RawOptions::default()
        };
        let by_flag = |name: &str| OptionOrigin::CommandLine(name.to_owned());
        given.options.insert("tls-san", (vec!["a".into(), "b c".into()], by_flag("tls-san")));
        given.options.insert("token", (vec!["hunter2".into()], by_flag("token")));
        given.options.insert("debug", (vec!["maybe".into()], OptionOrigin::Environment("QUORATE_DEBUG".into())));
        assert_eq!(
            command(&given),
            "QUORATE_DEBUG=maybe quorate server --print-config --config='my c.yaml' --tls-san=a --tls-san='b c'"
        );
    }
}
