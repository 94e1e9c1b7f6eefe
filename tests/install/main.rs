//! Installing, on a Debian that is booted for the purpose: the script, the package, the unit, and every command of README.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, missing_docs)]

#[path = "../kit/mod.rs"]
mod kit;
#[allow(dead_code, reason = "nothing goes wrong with it here")]
#[path = "../kit/s3.rs"]
mod store;

mod machine;
mod package;
mod readme;

mod script;
mod service;
