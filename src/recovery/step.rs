//! The named steps of a recovery, at which tests inject faults.

use std::path::Path;

use crate::durable::{OnPath as _, WriteError};
use crate::faults;

/// Passes the step `restore::NAME` of doing `act` at `path`.
pub(super) fn step(name: &str, act: &'static str, path: &Path) -> Result<(), WriteError> {
    faults::point(&format!("restore::{name}")).on(act, path)
}
