//! The command that checks the same configuration again.

use super::options::{self, OPTIONS};
use super::texts::{Given, Origin};
use crate::shell::quoted;

/// `quorate server --print-config` with the file, the variables and the flags that were given. Secrets are left out.
pub(super) fn command(given: &Given) -> String {
    let mut variables = Vec::new();
    let mut flags = Vec::new();
    let mut say = |name: &str, text: &str, origin: &Origin| match origin {
        Origin::Environment(variable) => variables.push(format!("{variable}={} ", quoted(text))),
        _ => flags.push(format!(" --{name}={}", quoted(text))),
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
        variables.push(format!("{}={} ", options::LOG_VARIABLE, quoted(filter)));
    }
    format!("{}quorate server --print-config{}", variables.concat(), flags.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_is_repeated_but_for_secrets() {
        let mut given =
            Given { config: Some(("my c.yaml".into(), Origin::CommandLine("config".into()))), ..Given::default() };
        let by_flag = |name: &str| Origin::CommandLine(name.to_owned());
        given.options.insert("tls-san", (vec!["a".into(), "b c".into()], by_flag("tls-san")));
        given.options.insert("token", (vec!["hunter2".into()], by_flag("token")));
        given.options.insert("debug", (vec!["maybe".into()], Origin::Environment("QUORATE_DEBUG".into())));
        assert_eq!(
            command(&given),
            "QUORATE_DEBUG=maybe quorate server --print-config --config='my c.yaml' --tls-san=a --tls-san='b c'"
        );
    }
}
