//! Options of every command.

use crate::config::options::spec::{OptionKind, Spec, global, live, spec};

/// The default of `data-dir`.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/quorate";

pub const DEBUG: Spec =
    live(global(spec("debug", OptionKind::Switch, "false", "Enable debug logging for quorate and etcd.")));

pub const LOG_FORMAT: Spec = live(global(spec(
    "log-format",
    OptionKind::Choice(&["text", "json"]),
    "text",
    "Format of log lines: text, or json with one object per line.",
)));

pub const DATA_DIR: Spec = global(spec("data-dir", OptionKind::Path, DEFAULT_DATA_DIR, "Data directory."));
