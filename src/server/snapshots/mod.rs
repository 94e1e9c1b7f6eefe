//! Snapshots of the running server: saved one at a time, on request or by `schedule`; uploaded, pruned and rehearsed. `service` has what all of
//! that needs and the history for status and metrics; `on_failure` runs the operator's command.

pub mod drill;
pub mod history;
pub mod known;
pub(crate) mod metrics;
mod on_failure;
pub mod request;
pub mod save;
pub mod schedule;
pub mod service;
pub mod uploads;
