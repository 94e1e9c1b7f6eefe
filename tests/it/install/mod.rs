//! Installing, on a Debian that is booted for the purpose: the script, the package, the unit, and every command of README.md.

mod machine;
mod package;
mod readme;
mod script;
mod service;
