//! How an object is split into parts for upload or download.

/// Smallest part, in bytes. S3 accepts no part below 5 MiB except the last (Amazon S3 user guide, "multipart upload
/// limits").
const MIN_PART_BYTES: u64 = 8 << 20;
/// S3 accepts 10,000 parts; a reserve is left for a file that grows unexpectedly.
const MAX_PARTS: u64 = 9_000;
/// Bytes in memory at a time.
const MEMORY_BUDGET: u64 = 48 << 20;
const MAX_CONCURRENCY: u64 = 4;

/// How an object of a given size is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    pub total: u64,
    /// Bytes of each but the last.
    pub size: u64,
    pub count: u64,
    pub concurrency: usize,
}

impl Parts {
    #[must_use]
    pub fn of(total: u64) -> Self {
        let size = MIN_PART_BYTES.max(total.div_ceil(MAX_PARTS).next_multiple_of(1 << 20));
        let count = total.div_ceil(size).max(1);
        let fit = (MEMORY_BUDGET / size).saturating_sub(1).clamp(1, MAX_CONCURRENCY);
        Self { total, size, count, concurrency: usize::try_from(fit.min(count)).unwrap_or(1) }
    }

    /// Offset and length of a part; `index` starts at 0.
    #[must_use]
    pub fn range(&self, index: u64) -> (u64, u64) {
        let start = index.saturating_mul(self.size).min(self.total);
        (start, self.size.min(self.total - start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_things_are_one_part_and_large_ones_fit_the_limits() {
        for (total, size, count, concurrency) in [
            (0, 8 << 20, 1, 1),
            (1, 8 << 20, 1, 1),
            (8 << 20, 8 << 20, 1, 1),
            ((8 << 20) + 1, 8 << 20, 2, 2),
            (1 << 30, 8 << 20, 128, 4),
            (100 << 30, 12 << 20, 8534, 3),
        ] {
            assert_eq!(Parts::of(total), Parts { total, size, count, concurrency }, "{total}");
        }
    }

    proptest! {
        #[test]
        fn the_parts_cover_everything_once_within_the_limits_and_the_memory(total in 0u64..(5 << 40)) {
            let parts = Parts::of(total);
            prop_assert!(parts.count <= 10_000 && parts.size >= 5 << 20 && parts.size <= 5 << 30);
            prop_assert!(parts.concurrency >= 1);
            let mut at = 0;
            for index in 0..parts.count {
                let (start, length) = parts.range(index);
                prop_assert_eq!(start, at);
                at += length;
            }
            prop_assert_eq!(at, total);
        }
    }
}
