//! Whether there is room to start.

/// etcd writes its log in files of 64 MiB that it reserves beforehand, and a first start needs one and the next.
pub const NEEDED_BY_A_NEW_CLUSTER: u64 = 160 << 20;
/// Below this even a resumed etcd cannot write a page more.
pub const NEEDED_TO_RESUME: u64 = 8 << 20;
/// Below this it is time to say so.
pub const COMFORTABLE: u64 = 1 << 30;

/// What to think of the free space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Enough.
    Enough,
    /// It starts, but not for long.
    Low,
    /// It would break right away; this much is needed.
    TooLittle(u64),
}

/// Judges `free` bytes.
#[must_use]
pub fn judge(free: u64, is_new: bool) -> Room {
    let needed = if is_new { NEEDED_BY_A_NEW_CLUSTER } else { NEEDED_TO_RESUME };
    match free {
        free if free < needed => Room::TooLittle(needed),
        free if free < COMFORTABLE => Room::Low,
        _ => Room::Enough,
    }
}

/// `1.5 GiB`, `300 MiB`, `12 B`: for people.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_cluster_needs_more_than_a_resumed_one() {
        assert_eq!(judge(100 << 20, true), Room::TooLittle(NEEDED_BY_A_NEW_CLUSTER));
        assert_eq!(judge(100 << 20, false), Room::Low);
        assert_eq!(judge(0, false), Room::TooLittle(NEEDED_TO_RESUME));
        assert_eq!(judge(2 << 30, true), Room::Enough);
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (160 << 20, "160 MiB"), (8 << 30, "8.0 GiB")]
        {
            assert_eq!(human(bytes), text);
        }
    }
}
