//! The commands in messages: they must work on this server exactly as printed.

use std::path::Path;

use crate::shell::quote;

/// How to invoke `quorate` so that it reads the same configuration as this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invocation {
    /// Flags for every command, each with a leading space: the configuration file and the data directory, if given.
    pub common: String,
    /// Flags for `quorate server` only: all others that were given, except secrets and one-time actions.
    pub server: String,
}

impl Invocation {
    /// `quorate VERB` with the flags of every command.
    #[must_use]
    pub fn command(&self, verb: &str) -> String {
        format!("quorate {verb}{}", self.common)
    }

    /// `quorate server` with the flags of this server, and `more`.
    #[must_use]
    pub fn server(&self, more: &str) -> String {
        format!("quorate server{}{} {more}", self.common, self.server)
    }

    /// The command that restores a snapshot, by its name or path.
    #[must_use]
    pub fn restore(&self, snapshot: &str) -> String {
        self.server(&format!("--cluster-reset --cluster-reset-restore-path={}", quote(snapshot)))
    }
}

/// A path as one word of a shell command line.
#[must_use]
pub fn shell_word(path: &Path) -> String {
    quote(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_repeat_what_was_given() {
        let plain = Invocation::default();
        assert_eq!(plain.command("space"), "quorate space");
        assert_eq!(plain.server("--new-cluster"), "quorate server --new-cluster");
        let given = Invocation { common: " --config=/c.yaml".into(), server: " --debug=true".into() };
        assert_eq!(given.command("space"), "quorate space --config=/c.yaml");
        assert_eq!(
            given.restore("it's"),
            r"quorate server --config=/c.yaml --debug=true --cluster-reset --cluster-reset-restore-path='it'\''s'"
        );
    }
}
