//! Finds the newest record of each key in bounded memory.
//!
//! [`Newest`] keeps the newest record of each key of a share of all keys, by a keyed hash that an attacker cannot
//! predict: 16 bytes per key. Keys that do not fit are left for another walk through the database. [`Superseded`] keeps
//! one bit per record for those that are not the newest, and [`Once`] finds duplicate keys where each must be unique,
//! in 8 bytes per key.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of newest records, of 16 bytes each.
    pub newest: usize,
    /// Maximum number of unique keys, of 8 bytes each.
    pub once: usize,
}

impl Limits {
    /// 64 MiB each: enough for four million keys changed since the last compaction and eight million others without
    /// additional walks.
    pub const USUAL: Self = Self { newest: 4 << 20, once: 8 << 20 };
}

/// A keyed hash of keys, which an attacker cannot predict.
#[derive(Clone, Debug, Default)]
pub struct Keys(RandomState);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    /// 64 bits.
    pub high: u64,
    /// 16 more.
    pub low: u16,
}

impl Keys {
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> Hash {
        let mut hasher = self.0.build_hasher();
        hasher.write(key);
        let high = hasher.finish();
        // The inner state has 256 bits, so these are independent of the first 64.
        hasher.write_u8(0);
        let [low, second, ..] = hasher.finish().to_le_bytes();
        Hash { high, low: u16::from_le_bytes([low, second]) }
    }
}

/// A share of all keys: those with hashes in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    from: u64,
    /// Of 2^32.
    width: u64,
}

impl Share {
    pub const ALL: Self = Self { from: 0, width: 1 << 32 };
    pub const NONE: Self = Self { from: 1 << 32, width: 0 };

    /// Whether the key with this hash is in it.
    #[must_use]
    pub fn has(self, hash: Hash) -> bool {
        self.has_high(hash.high)
    }

    fn has_high(self, high: u64) -> bool {
        (self.from..self.from + self.width).contains(&(high >> 32))
    }

    fn halve(&mut self) {
        self.width = (self.width / 2).max(1);
    }

    /// The next share of the same width; `None` after the last one.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        let from = self.from + self.width;
        (from < 1 << 32).then_some(Self { from, width: self.width.min((1u64 << 32).saturating_sub(from)) })
    }
}

#[derive(Clone, Debug, Default)]
pub struct Superseded {
    bits: Vec<u64>,
    count: u64,
}

impl Superseded {
    /// Marks the record in this place.
    pub fn mark(&mut self, place: u64) {
        let Ok(word) = usize::try_from(place / 64) else { return };
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        let bit = 1 << (place % 64);
        self.count += u64::from(self.bits[word] & bit == 0);
        self.bits[word] |= bit;
    }

    #[must_use]
    pub fn has(&self, place: u64) -> bool {
        let word = usize::try_from(place / 64).ok().and_then(|word| self.bits.get(word));
        word.is_some_and(|word| word & (1 << (place % 64)) != 0)
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// Bits of an entry for the position; one more for whether the key exists then.
const PLACE_BITS: u32 = 47;

/// The newest record of each key of a share.
#[derive(Debug)]
pub struct Newest {
    entries: Vec<u128>,
    share: Share,
    capacity: usize,
    /// The number of entries that triggers removing superseded ones.
    tidy_at: usize,
    /// The start of the entries whose hashes have the same first 16 bits.
    starts: Vec<u32>,
}

impl Newest {
    #[must_use]
    pub fn new(capacity: usize, share: Share) -> Self {
        Self { entries: Vec::new(), share, capacity, tidy_at: capacity.min(1 << 16), starts: Vec::new() }
    }

    /// The share that it covers, which shrinks when the entries exceed the limit.
    #[must_use]
    pub fn share(&self) -> Share {
        self.share
    }

    fn entry(hash: Hash, place: u64, is_alive: bool) -> u128 {
        u128::from(hash.high) << 64
            | u128::from(hash.low) << (PLACE_BITS + 1)
            | u128::from(place) << 1
            | u128::from(is_alive)
    }

    /// Adds a record that is newer than all before; superseded ones are marked, perhaps later.
    pub fn add(&mut self, hash: Hash, place: u64, is_alive: bool, superseded: &mut Superseded) {
        if !self.share.has(hash) {
            return;
        }
        self.entries.push(Self::entry(hash, place, is_alive));
        if self.entries.len() < self.tidy_at {
            return;
        }
        self.keep_newest(superseded);
        self.tidy_at = self.capacity.min(self.tidy_at.max(self.entries.len() * 2));
        while self.entries.len() > self.capacity / 4 * 3 && self.share.width > 1 {
            self.share.halve();
            let share = self.share;
            self.entries.retain(|entry| share.has_high(high(*entry)));
        }
    }

    fn keep_newest(&mut self, superseded: &mut Superseded) {
        self.entries.sort_unstable();
        let mut kept = 0;
        for index in 0..self.entries.len() {
            let entry = self.entries[index];
            let is_newest =
                self.entries.get(index + 1).is_none_or(|next| next >> (PLACE_BITS + 1) != entry >> (PLACE_BITS + 1));
            if is_newest {
                self.entries[kept] = entry;
                kept += 1;
            } else {
                superseded.mark(place(entry));
            }
        }
        self.entries.truncate(kept);
    }

    /// Call after all were added, before any query.
    pub fn resolve(&mut self, superseded: &mut Superseded) {
        self.keep_newest(superseded);
        self.starts = Vec::with_capacity((1 << 16) + 1);
        let mut at = 0;
        for begin in 0..=1u64 << 16 {
            at += self.entries[at..].partition_point(|entry| high(*entry) >> 48 < begin);
            self.starts.push(u32::try_from(at).unwrap_or(u32::MAX));
        }
    }

    /// Whether the key with this hash is in it.
    #[must_use]
    pub fn has(&self, hash: Hash) -> bool {
        let begin = usize::try_from(hash.high >> 48).unwrap_or_default();
        let at = |index: usize| self.starts.get(index).map_or(0, |start| *start as usize);
        let wanted = Self::entry(hash, 0, false) >> (PLACE_BITS + 1);
        let among = self.entries.get(at(begin)..at(begin + 1)).unwrap_or_default();
        among.binary_search_by_key(&wanted, |entry| entry >> (PLACE_BITS + 1)).is_ok()
    }

    #[must_use]
    pub fn alive(&self) -> u64 {
        self.entries.iter().filter(|entry| **entry & 1 == 1).count() as u64
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The first 64 bits of the hash.
#[allow(clippy::cast_possible_truncation, reason = "shifted by 64 of 128 bits")]
fn high(entry: u128) -> u64 {
    (entry >> 64) as u64
}

fn place(entry: u128) -> u64 {
    let low = entry & ((1 << (PLACE_BITS + 1)) - 1);
    u64::try_from(low >> 1).unwrap_or_default()
}

/// Keys of a share that must be unique.
#[derive(Debug)]
pub struct Once {
    hashes: Vec<u64>,
    share: Share,
    capacity: usize,
}

impl Once {
    #[must_use]
    pub fn new(capacity: usize, share: Share) -> Self {
        Self { hashes: Vec::new(), share, capacity }
    }

    /// The share that it covers, which shrinks when the entries exceed the limit.
    #[must_use]
    pub fn share(&self) -> Share {
        self.share
    }

    pub fn add(&mut self, hash: Hash) {
        if !self.share.has(hash) {
            return;
        }
        if self.hashes.len() >= self.capacity && self.share.width > 1 {
            self.share.halve();
            let share = self.share;
            self.hashes.retain(|high| share.has_high(*high));
        }
        self.hashes.push(hash.high);
    }

    /// Hashes that were added twice, at most this many.
    #[must_use]
    pub fn twice(mut self, most: usize) -> Vec<u64> {
        self.hashes.sort_unstable();
        let pairs = self.hashes.windows(2).filter(|pair| pair[0] == pair[1]);
        pairs.map(|pair| pair[0]).take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// With any number of shares, the result is that of a map of all keys.
        #[test]
        fn shares_together_know_the_newest_record_of_each_key(
            changes in proptest::collection::vec((0u16..60, any::<bool>()), 0..400), capacity in 8usize..80,
        ) {
            let keys = Keys::default();
            let mut expected = HashMap::new();
            for (place, (key, is_alive)) in changes.iter().enumerate() {
                expected.insert(*key, (place, *is_alive));
            }
            let mut superseded = Superseded::default();
            let (mut alive, mut known) = (0, 0);
            let mut share = Some(Share::ALL);
            while let Some(this) = share {
                let mut newest = Newest::new(capacity, this);
                for (place, (key, is_alive)) in changes.iter().enumerate() {
                    newest.add(keys.hash(&key.to_le_bytes()), place as u64, *is_alive, &mut superseded);
                }
                newest.resolve(&mut superseded);
                alive += newest.alive();
                known += (0..100u16).filter(|key| newest.has(keys.hash(&key.to_le_bytes()))).count();
                share = newest.share().next();
            }
            prop_assert_eq!(alive, expected.values().filter(|(_, is_alive)| *is_alive).count() as u64);
            prop_assert_eq!(known, expected.len());
            for (place, (key, _)) in changes.iter().enumerate() {
                prop_assert_eq!(superseded.has(place as u64), expected[key].0 != place);
            }
            prop_assert_eq!(superseded.count(), (changes.len() - expected.len()) as u64);
        }

        #[test]
        fn what_is_there_twice_is_found(keys in proptest::collection::vec(0u16..300, 0..60), capacity in 4usize..40) {
            let hashes = Keys::default();
            let mut twice = 0;
            let mut share = Some(Share::ALL);
            while let Some(this) = share {
                let mut once = Once::new(capacity, this);
                for key in &keys {
                    once.add(hashes.hash(&key.to_le_bytes()));
                }
                share = once.share().next();
                twice += once.twice(1000).len();
            }
            let distinct: std::collections::HashSet<_> = keys.iter().collect();
            prop_assert_eq!(twice, keys.len() - distinct.len());
        }
    }
}
