//! Answers of requests that take a while: one JSON object a line, of which the last one says how it ended.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::error::ErrorReport;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event<T> {
    /// The present step, bytes done, and total.
    Progress(Cow<'static, str>, u64, u64),
    Done(T),
    Failed(ErrorReport),
}
