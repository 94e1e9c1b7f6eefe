//! Values as given: their origin, their check, and the splitting of one text into several.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::config::options::{Arity, CONFIG_VARIABLE, LOG_VARIABLE, OPTIONS, OptionKind, Spec};
use crate::config::problem::{ConfigProblem, OptionOrigin};
use crate::environment;

/// The values from the command line and the environment, before any file is read.
#[derive(Clone, Debug, Default)]
pub struct RawOptions {
    /// `--config` or `QUORATE_CONFIG`, with its origin.
    pub config: Option<(PathBuf, OptionOrigin)>,
    /// By option name: the texts and their origin.
    pub options: BTreeMap<&'static str, (Vec<String>, OptionOrigin)>,
    /// `QUORATE_LOG`.
    pub log_filter: Option<String>,
    pub problems: Vec<ConfigProblem>,
}

impl RawOptions {
    #[must_use]
    pub fn from_environment() -> Self {
        Self::of_variables(|name| environment::value(name).map(OsStr::to_os_string))
    }

    /// Reads environment variables. An empty one counts as not set, as in environment files, except where that would
    /// turn a restore into something else.
    fn of_variables(look: impl Fn(&str) -> Option<OsString>) -> Self {
        let mut given = Self::default();
        let is_set = |value: &OsString| !value.is_empty();
        if let Some(path) = look(CONFIG_VARIABLE).filter(is_set) {
            given.config = Some((path.into(), OptionOrigin::Environment(CONFIG_VARIABLE.to_owned())));
        }
        given.log_filter =
            look(LOG_VARIABLE).and_then(|value| value.into_string().ok()).filter(|text| !text.trim().is_empty());
        for spec in OPTIONS {
            let variable = spec.variable();
            let Some(value) = look(&variable).filter(|value| is_set(value) || spec.kind == OptionKind::Snapshot) else {
                continue;
            };
            let origin = OptionOrigin::Environment(variable);
            match value.into_string() {
                Ok(text) => drop(given.options.insert(spec.name, (vec![text], origin))),
                Err(_) => {
                    given.problems.push(ConfigProblem { origin, message: "this variable is not UTF-8 text".into() });
                }
            }
        }
        given
    }

    /// Merged with `more`, which has precedence.
    #[must_use]
    pub fn overridden_by(mut self, more: Self) -> Self {
        self.config = more.config.or(self.config);
        self.options.extend(more.options);
        self.log_filter = more.log_filter.or(self.log_filter);
        self.problems.extend(more.problems);
        self
    }
}

pub(super) fn check(spec: &Spec, text: &str, origin: &OptionOrigin, problems: &mut Vec<ConfigProblem>) {
    if let Err(requirement) = spec.kind.check(text) {
        let shown = if spec.secret { "***" } else { text };
        let message = match text.trim() {
            "" => format!("`{}` {requirement}, and is empty", spec.name),
            // The wrong part is reported already, and another part may be a password.
            _ if spec.kind == OptionKind::Endpoint => format!("`{}` {requirement}", spec.name),
            _ => format!("`{}` {requirement}, not `{}`", spec.name, crate::text::escape_control(shown)),
        };
        problems.push(ConfigProblem { origin: origin.clone(), message });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueSource {
    File,
    Environment,
    CommandLine,
}

pub(super) fn split(spec: &Spec, text: &str, source: ValueSource) -> impl Iterator<Item = String> {
    let parts: Vec<String> = match spec.arity {
        Arity::Commas => text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect(),
        Arity::Words if source == ValueSource::Environment => text.split_whitespace().map(str::to_owned).collect(),
        Arity::One | Arity::Words => vec![text.to_owned()],
    };
    parts.into_iter()
}
