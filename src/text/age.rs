//! Ages in the format of kubectl.

/// At most two units, and one where the smaller is negligible (Kubernetes `apimachinery/pkg/util/duration`,
/// `HumanDuration`): `45s`, `3m20s`, `90m`, `5h30m`, `20h`, `2d4h`, `300d`, `2y10d`.
#[must_use]
pub fn short(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 3600;
    const DAY: u64 = 86_400;
    const YEAR: u64 = 365 * DAY;
    let two = |large: u64, unit: char, small: u64, lesser: char| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{lesser}") }
    };
    match seconds {
        ..120 => format!("{seconds}s"),
        120..600 => two(seconds / MINUTE, 'm', seconds % MINUTE, 's'),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two(seconds / HOUR, 'h', seconds % HOUR / MINUTE, 'm'),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two(seconds / DAY, 'd', seconds % DAY / HOUR, 'h'),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => two(seconds / YEAR, 'y', seconds % YEAR / DAY, 'd'),
        _ => format!("{}y", seconds / YEAR),
    }
}

/// The age at `now`, both in seconds since 1970: `3m20s ago`.
#[must_use]
pub fn ago(at: u64, now: u64) -> String {
    match now.checked_sub(at) {
        Some(seconds) => format!("{} ago", short(seconds)),
        None => format!("{} in the future", short(at - now)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_those_of_kubectl() {
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (19_800, "5h30m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (187_200, "2d4h"),
            (691_200, "8d"),
            (63_071_999, "729d"),
            (63_072_000, "2y"),
            (63_936_000, "2y10d"),
            (252_288_000, "8y"),
            (u64::MAX, "584942417355y"),
        ] {
            assert_eq!(short(seconds), expected, "{seconds}");
        }
        assert_eq!((ago(100, 112), ago(112, 100)), ("12s ago".into(), "12s in the future".into()));
    }
}
