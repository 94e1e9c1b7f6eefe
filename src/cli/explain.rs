//! `quorate explain`: explains an error code. docs/errors.md is the output of `quorate explain`.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::output::{self, Format};
use crate::config::suggest;
use crate::error::{AppError, Code, Diagnostic, Exit};

/// `quorate explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  quorate explain data-lost
  quorate explain | less")]
pub(super) struct Args {
    /// The code in the line `code:` of an error, or in `quorate status`
    ///
    /// Without it, prints all codes, as in docs/errors.md
    code: Option<String>,
    /// Output format
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// The `-o json` output. Fields are added, never renamed.
#[derive(Debug, Serialize)]
struct Explanation {
    code: Code,
    exit_code: u8,
    cause: &'static str,
    remedy: &'static str,
}

impl From<Code> for Explanation {
    fn from(code: Code) -> Self {
        Self { code, exit_code: code.exit() as u8, cause: code.cause(), remedy: code.remedy() }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("unknown error code {given}")]
struct NoSuchCode {
    given: String,
    similar: Option<&'static str>,
}

impl Diagnostic for NoSuchCode {
    fn code(&self) -> Code {
        Code::Usage
    }

    fn next_step(&self) -> Option<String> {
        Some(match self.similar {
            Some(similar) => format!("did you mean {similar}? quorate explain lists every code"),
            None => "quorate explain lists every code".into(),
        })
    }
}

pub(super) fn run(args: &Args) -> Result<Exit, AppError> {
    let Some(given) = &args.code else {
        let all: Vec<Explanation> = Code::ALL.iter().copied().map(Explanation::from).collect();
        if !output::structured(&serde_json::json!({ "items": all }), args.output)? {
            output::print_stdout(&markdown())?;
        }
        return Ok(Exit::Done);
    };
    let names = || Code::ALL.iter().map(|code| code.name());
    let code = Code::named(given).ok_or_else(|| NoSuchCode {
        given: crate::text::escape_control(given),
        similar: suggest::closest(given, names()),
    })?;
    if !output::structured(&Explanation::from(code), args.output)? {
        let paragraph = |text: &str| output::wrap_text(text, 0, output::WIDTH);
        let (cause, remedy) = (paragraph(code.cause()), paragraph(code.remedy()));
        output::print_stdout(&format!(
            "{code} (exit code {})\n\n{cause}\n\nWhat to do:\n{remedy}\n",
            code.exit() as u8
        ))?;
    }
    Ok(Exit::Done)
}

/// docs/errors.md.
fn markdown() -> String {
    let mut text = String::from(INTRODUCTION);
    for code in Code::ALL {
        let _ = writeln!(text, "| `{code}` | {} | {} | {} |", code.exit() as u8, code.cause(), code.remedy());
    }
    text
}

const INTRODUCTION: &str = "\
# Error codes

Every failure has a code that never changes, while its message may be reworded. It is the last line of an error on the terminal, the
field `code` of an error with `-o json` or `--log-format json`, and the field `code` of log lines about failures. The problems that
`quorate status` shows have codes of the same table. `quorate explain CODE` prints one of them.

An error in JSON has the fields `code`, `message`, `because` (the causes, the nearest first), `next` (what to do or type, or null) and
`exit_code`. A wrapped failure, such as a restore that was not begun because the snapshot is corrupt, has the code of its cause.

This page is made by `quorate explain`.

| code | exit | what has happened | what to do |
|---|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_error_codes_is_that_of_the_table() {
        assert_eq!(include_str!("../../docs/errors.md"), markdown(), "update it: quorate explain > docs/errors.md");
    }

    #[test]
    fn codes_are_unique_words_and_each_is_explained() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(
                code.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'),
                "{code}"
            );
            assert!(code.cause().ends_with('.') && !code.remedy().is_empty(), "{code}");
            assert_ne!(code.exit(), Exit::Done, "{code}");
            assert_eq!(Code::named(code.name()), Some(*code));
        }
    }
}
