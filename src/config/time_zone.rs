//! The time zone of schedules. The C library and chrono silently treat an unknown one as UTC.

use std::path::Path;

use crate::config::problem::{ConfigProblem, OptionOrigin};
use crate::text::escape_control;

/// Directories of time zone files (chrono's list).
const DIRECTORIES: [&str; 3] = ["/usr/share/zoneinfo", "/share/zoneinfo", "/etc/zoneinfo"];

/// What is wrong with the value of `TZ`.
pub(super) fn problem(value: Option<&str>) -> Option<ConfigProblem> {
    let zone = value.filter(|zone| !zone.is_empty() && !is_known(zone, &DIRECTORIES.map(Path::new)))?;
    let message =
        format!("unknown time zone `{}`, so schedules use UTC; correct it, or install tzdata", escape_control(zone));
    Some(ConfigProblem { origin: OptionOrigin::Environment("TZ".into()), message })
}

fn is_known(zone: &str, directories: &[&Path]) -> bool {
    let name = zone.strip_prefix(':').unwrap_or(zone);
    let is_utc = ["UTC", "UTC0", "GMT", "Etc/UTC", "Zulu", "localtime"].contains(&name);
    // An absolute path replaces the directory.
    is_utc || is_rule(zone) || directories.iter().any(|directory| directory.join(name).is_file())
}

/// A POSIX rule such as `CET-1CEST,M3.5.0,M10.5.0/3` (XBD 8.3): a name of at least three letters, then the offset.
fn is_rule(zone: &str) -> bool {
    let rest = if let Some(quoted) = zone.strip_prefix('<') {
        quoted.split_once('>').map(|(_, rest)| rest)
    } else {
        let letters = zone.chars().take_while(char::is_ascii_alphabetic).count();
        (letters >= 3).then(|| &zone[letters..])
    };
    rest.is_some_and(|rest| rest.trim_start_matches(['+', '-']).starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_zone_is_detected() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("Europe")).unwrap();
        std::fs::write(dir.path().join("Europe/Berlin"), "TZif").unwrap();
        let absolute = dir.path().join("Europe/Berlin").display().to_string();
        for (zone, expected) in [
            ("Europe/Berlin", true),
            (":Europe/Berlin", true),
            (&absolute, true),
            ("UTC", true),
            ("CET-1CEST,M3.5.0,M10.5.0/3", true),
            ("<+03>-3", true),
            ("No/Where", false),
            ("Europe", false),
            ("Berlin", false),
            ("Nowhere", false),
            ("é", false),
        ] {
            assert_eq!(is_known(zone, &[dir.path()]), expected, "{zone}");
        }
        assert!(problem(None).is_none() && problem(Some("")).is_none());
        assert!(problem(Some("No/Where")).unwrap().message.contains("use UTC"));
    }
}
