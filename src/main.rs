//! The `quorate` executable: parse, run, report, exit.

use std::process::ExitCode;

fn main() -> ExitCode {
    quorate::cli::run(std::env::args_os())
}
