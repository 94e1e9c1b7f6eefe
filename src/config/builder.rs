//! Takes the texts of single options and makes values of them.

use std::path::PathBuf;

use crate::config::layers::Resolved;
use crate::config::options::Spec;
use crate::config::problem::{ConfigProblem, OptionOrigin};
use crate::config::value_types::switch;

pub(super) struct Builder<'a> {
    pub(super) resolved: &'a Resolved,
    pub(super) problems: &'a mut Vec<ConfigProblem>,
}

impl Builder<'_> {
    /// The texts were checked by kind before, so parse errors here are reported already.
    pub(super) fn one<T>(&self, spec: &Spec, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.resolved.one(spec).and_then(|(text, _)| parse(text))
    }

    pub(super) fn list<T>(&self, spec: &Spec, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
        self.resolved.all(spec).iter().filter_map(|(text, _)| parse(text)).collect()
    }

    pub(super) fn port(&self, spec: &Spec) -> u16 {
        self.one(spec, |text| text.parse().ok()).unwrap_or_default()
    }

    pub(super) fn switch(&self, spec: &Spec) -> bool {
        self.one(spec, switch).unwrap_or(false)
    }

    pub(super) fn problem(&mut self, origin: OptionOrigin, message: impl Into<String>) {
        self.problems.push(ConfigProblem { origin, message: message.into() });
    }

    pub(super) fn path(&mut self, spec: &Spec) -> Option<PathBuf> {
        let name = spec.name;
        let path = self.one(spec, |text| Some(PathBuf::from(text)))?;
        match std::path::absolute(&path) {
            // etcd accepts paths as text.
            Ok(path) if path.to_str().is_none() => {
                let message = format!("`{name}` is {}, which is not UTF-8 text", path.display());
                self.problem(self.resolved.origin(spec), message);
                None
            }
            Ok(path) => Some(path),
            Err(error) => {
                self.problem(self.resolved.origin(spec), format!("cannot make `{name}` absolute: {error}"));
                None
            }
        }
    }
}
