//! Hides secrets in the output of `ps`: in the argument list and the environment of this process.
//!
//! The kernel reads both from the memory of the process, so they are overwritten there, through /proc/self/mem. If that
//! fails, only the masking is missing; prefer `token-file`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};

use crate::cli::options::short_name;
use crate::config::options::OPTIONS;

/// Overwrites the values of all secret options.
pub(super) fn secrets() {
    let (flags, variables): (Vec<String>, Vec<String>) = OPTIONS
        .iter()
        .filter(|spec| spec.secret)
        .map(|spec| (format!("--{}", spec.name), format!("{}=", spec.variable())))
        .unzip();
    let short = OPTIONS.iter().filter(|spec| spec.secret).filter_map(|spec| short_name(spec));
    let flags: Vec<String> = flags.into_iter().chain(short.map(|name| format!("--{name}"))).collect();
    let arguments = fs::read("/proc/self/cmdline").unwrap_or_default();
    let environment = fs::read("/proc/self/environ").unwrap_or_default();
    let in_arguments = secret_ranges(&arguments, &flags);
    let in_environment: Vec<_> = entries(&environment)
        .filter_map(|(start, entry)| {
            let name = variables.iter().find(|name| entry.starts_with(name.as_bytes()))?;
            Some((start + name.len(), start + entry.len()))
        })
        .collect();
    if in_arguments.is_empty() && in_environment.is_empty() {
        return;
    }
    // Errors are ignored, see above.
    let _ = overwrite(&in_arguments, &in_environment);
}

fn entries(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut start = 0;
    bytes.split(|byte| *byte == 0).map(move |entry| {
        let at = start;
        start += entry.len() + 1;
        (at, entry)
    })
}

/// The positions of the values of `flags`: `--flag=value` and `--flag`, `value`.
fn secret_ranges(arguments: &[u8], flags: &[String]) -> Vec<(usize, usize)> {
    let mut ranges = Vec::new();
    let mut is_value = false;
    for (start, entry) in entries(arguments) {
        if std::mem::take(&mut is_value) {
            ranges.push((start, start + entry.len()));
            continue;
        }
        for flag in flags {
            match entry.strip_prefix(flag.as_bytes()) {
                Some([]) => is_value = true,
                Some([b'=', value @ ..]) => ranges.push((start + entry.len() - value.len(), start + entry.len())),
                _ => {}
            }
        }
    }
    ranges
}

#[allow(clippy::disallowed_methods, reason = "this is memory, not a file")]
fn overwrite(in_arguments: &[(usize, usize)], in_environment: &[(usize, usize)]) -> io::Result<()> {
    let stat = procfs::process::Process::myself().and_then(|process| process.stat()).map_err(io::Error::other)?;
    let mut memory: File = OpenOptions::new().write(true).open("/proc/self/mem")?;
    for (base, ranges) in [(stat.arg_start, in_arguments), (stat.env_start, in_environment)] {
        let Some(base) = base else { continue };
        for (start, end) in ranges {
            memory.seek(SeekFrom::Start(base + *start as u64))?;
            memory.write_all(&vec![b'*'; end - start])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_in_both_forms() {
        let flags = ["--token".to_owned()];
        let arguments = b"quorate\0server\0--token=abc\0--token\0def\0--token-file\0/x\0";
        let found: Vec<&[u8]> =
            secret_ranges(arguments, &flags).into_iter().map(|(start, end)| &arguments[start..end]).collect();
        assert_eq!(found, [b"abc", b"def"]);
    }
}
