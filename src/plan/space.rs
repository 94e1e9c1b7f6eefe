//! Whether there is enough disk space to start.

/// etcd preallocates its log in files of 64 MiB, and a first start needs one and the next.
pub const NEW_CLUSTER_BYTES: u64 = 160 << 20;
/// Below this even a resumed etcd cannot write another page.
pub const RESUME_BYTES: u64 = 8 << 20;
pub const LOW_SPACE_BYTES: u64 = 1 << 30;

/// The assessment of the free space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeSpace {
    Enough,
    /// It starts, but not for long.
    Low,
    /// It would fail at once; this many bytes are needed.
    TooLittle(u64),
}

/// Judges `free` bytes.
#[must_use]
pub fn assess(free: u64, is_new: bool) -> FreeSpace {
    let needed = if is_new { NEW_CLUSTER_BYTES } else { RESUME_BYTES };
    match free {
        free if free < needed => FreeSpace::TooLittle(needed),
        free if free < LOW_SPACE_BYTES => FreeSpace::Low,
        _ => FreeSpace::Enough,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_cluster_needs_more_than_a_resumed_one() {
        assert_eq!(assess(100 << 20, true), FreeSpace::TooLittle(NEW_CLUSTER_BYTES));
        assert_eq!(assess(100 << 20, false), FreeSpace::Low);
        assert_eq!(assess(0, false), FreeSpace::TooLittle(RESUME_BYTES));
        assert_eq!(assess(2 << 30, true), FreeSpace::Enough);
    }
}
