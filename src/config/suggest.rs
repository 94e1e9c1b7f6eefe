//! Suggests the known name that a wrong one was probably meant to be.
//!
//! Given a word and the known names, returns the only one that differs in a letter or two, or that has the same words
//! and a few more (`s3-bucket`: `etcd-s3-bucket`). Case, `_` and `camelCase` are ignored. A name that destroys, exposes
//! or disables something is suggested only for its own misspelling: a user who follows a suggestion may not have read
//! what it does.

/// The name that `wrong` was probably meant to be.
#[must_use]
pub fn closest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = kebab(wrong);
    let mut near: Option<(usize, &str)> = None;
    let mut wider: Option<(usize, &str)> = None;
    let mut is_tied = false;
    for name in names {
        if let Some(distance) = letters_apart(&wrong, name) {
            if near.is_none_or(|(least, _)| distance < least) {
                near = Some((distance, name));
            }
        } else if let Some(more) = words_more(&wrong, name).filter(|_| !is_destructive(name)) {
            is_tied = wider.is_some_and(|(least, _)| least == more)
                || (is_tied && wider.is_some_and(|(least, _)| least < more));
            if wider.is_none_or(|(least, _)| more < least) {
                wider = Some((more, name));
            }
        }
    }
    near.or(wider.filter(|_| !is_tied)).map(|(_, name)| name)
}

/// True if `name` may be suggested for `wrong`.
#[must_use]
pub fn is_fair(wrong: &str, name: &str) -> bool {
    closest(wrong, std::iter::once(name)).is_some()
}

/// Options, flags and subcommands that destroy, expose or disable something.
fn is_destructive(name: &str) -> bool {
    const DESTRUCTIVE: [&str; 15] = [
        "new-cluster",
        // Flags of etcd.
        "force-new-cluster",
        "unsafe-no-fsync",
        "undo-reset",
        "skip-hash-check",
        "no-pre-restore-snapshot",
        "force",
        "free",
        "delete",
        "prune",
        "release",
        "etcd-disable-snapshots",
        "etcd-s3-only",
        "etcd-s3-insecure",
        "etcd-s3-skip-ssl-verify",
    ];
    name.starts_with("cluster-reset")
        || DESTRUCTIVE.contains(&name)
        || DESTRUCTIVE.contains(&format!("etcd-{name}").as_str())
}

/// The edit distance (with transpositions), if it is one or two; in a short word one.
fn letters_apart(wrong: &str, name: &str) -> Option<usize> {
    let most = match wrong.chars().count().min(name.chars().count()) {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    };
    Some(strsim::osa_distance(wrong, name)).filter(|distance| *distance <= most)
}

/// The number of additional words of `name`, if it has all words of `wrong` in order and is not much longer.
fn words_more(wrong: &str, name: &str) -> Option<usize> {
    const MAX_DISTANCE: usize = 2;
    let mut words = name.split('-');
    let has_all = wrong.split('-').all(|word| words.any(|other| other == word));
    let more = name.split('-').count().checked_sub(wrong.split('-').count())?;
    (has_all && more <= MAX_DISTANCE).then_some(more)
}

/// `backupConfig`, `BACKUP_CONFIG` and `backup-config` are `backup-config`.
#[must_use]
pub fn kebab(text: &str) -> String {
    let mut kebab = String::new();
    let mut was_lower = false;
    for letter in text.chars() {
        if letter.is_uppercase() && was_lower {
            kebab.push('-');
        }
        was_lower = letter.is_lowercase() || letter.is_ascii_digit();
        kebab.extend(if letter == '_' { '-' } else { letter }.to_lowercase());
    }
    kebab
}

#[cfg(test)]
mod tests {
    use super::super::options::OPTIONS;
    use super::*;

    fn meant(wrong: &str) -> Option<&'static str> {
        closest(wrong, OPTIONS.iter().map(|spec| spec.name))
    }

    #[test]
    fn a_misspelt_name_finds_the_right_one() {
        for (wrong, right) in [
            ("data-dirr", "data-dir"),
            ("data_dir", "data-dir"),
            ("dataDir", "data-dir"),
            ("DATA_DIR", "data-dir"),
            ("etcd-args", "etcd-arg"),
            ("nodename", "node-name"),
            ("node-nmae", "node-name"),
            ("tls-sans", "tls-san"),
            ("etcd-quota-backend-byte", "etcd-quota-backend-bytes"),
            ("etcd-snapshot-schedule", "etcd-snapshot-schedule-cron"),
            ("s3-bucket", "etcd-s3-bucket"),
            ("snapshot-dir", "etcd-snapshot-dir"),
            ("cluster-rest", "cluster-reset"),
            ("cluster_reset_restore_path", "cluster-reset-restore-path"),
            ("new-clusters", "new-cluster"),
            ("etcd-s3-insecur", "etcd-s3-insecure"),
        ] {
            assert_eq!(meant(wrong), Some(right), "{wrong}");
        }
    }

    #[test]
    fn what_destroys_is_not_suggested_for_another_word() {
        for wrong in [
            "cluster-init",
            "cluster-cidr",
            "cluster-dns",
            "cluster-domain",
            "cluster-name",
            "cluster",
            "new",
            "reset",
            "restore-path",
            "new-node",
            "etcd-s3-insecure-skip-verify",
            "disable-snapshots",
            "etcd-disable",
            "s3-only",
            "skip-ssl-verify",
            "zzz",
            "",
            "-",
            // Ambiguous: no suggestion.
            "retention",
            "etcd-snapshot-cron",
            "etcd",
        ] {
            assert_eq!(meant(wrong), None, "{wrong}");
        }
        for (wrong, name) in [
            ("purge", "prune"),
            ("remove", "delete"),
            ("no-fsync", "unsafe-no-fsync"),
            ("new-cluster", "force-new-cluster"),
            ("cluster-init", "cluster-reset"),
            ("forced", "free"),
        ] {
            assert!(!is_fair(wrong, name), "{wrong}");
        }
        for (wrong, name) in [("pruen", "prune"), ("snapshot", "etcd-snapshot"), ("undo-rest", "undo-reset")] {
            assert!(is_fair(wrong, name), "{wrong}");
        }
    }
}
