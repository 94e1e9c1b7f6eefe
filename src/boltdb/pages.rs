//! The pages that were visited: a bit for each.

use crate::boltdb::page::{Corruption, Meta, ReadError};

/// A bit for each visited page.
#[derive(Clone, Debug)]
pub struct Pages {
    bits: Vec<u64>,
    count: u64,
    end: u64,
}

impl Pages {
    pub(super) fn new(meta: Meta) -> Result<Self, ReadError> {
        // A bound against meta pages that promise more than any file holds.
        const MAX_PAGES: u64 = 1 << 34;
        let words =
            usize::try_from(meta.high_water_mark.div_ceil(64)).ok().filter(|_| meta.high_water_mark <= MAX_PAGES);
        let words = words.ok_or_else(|| Corruption::new(0, "the meta page promises too many pages"))?;
        let mut pages = Self { bits: vec![0; words], count: 0, end: meta.high_water_mark };
        for head in 0..2.min(pages.end) {
            pages.mark(head, 0, 0)?;
        }
        Ok(pages)
    }

    /// Marks the page `first` and `further` pages after it; `offset` is the position of the reference.
    pub(super) fn mark(&mut self, first: u64, further: u32, offset: u64) -> Result<(), Corruption> {
        let last = first.saturating_add(u64::from(further));
        if last >= self.end {
            let what = format!("page {last} is referenced, but the last page is {}", self.end.saturating_sub(1));
            return Err(Corruption::new(offset, what));
        }
        (first..=last).try_for_each(|id| self.mark_one(id, offset))
    }

    fn mark_one(&mut self, id: u64, offset: u64) -> Result<(), Corruption> {
        let word = usize::try_from(id / 64).ok().and_then(|index| self.bits.get_mut(index));
        let word = word.ok_or_else(|| Corruption::new(offset, format!("page {id} is out of range")))?;
        let bit = 1 << (id % 64);
        if *word & bit != 0 {
            return Err(Corruption::new(offset, format!("page {id} is referenced twice")));
        }
        *word |= bit;
        self.count += 1;
        Ok(())
    }

    #[must_use]
    pub fn is_marked(&self, id: u64) -> bool {
        usize::try_from(id / 64)
            .ok()
            .and_then(|index| self.bits.get(index))
            .is_some_and(|word| word & (1 << (id % 64)) != 0)
    }

    pub(super) fn cleared(&self) -> Self {
        Self { bits: vec![0; self.bits.len()], count: 0, end: self.end }
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// One more than the last page.
    pub(super) fn end(&self) -> u64 {
        self.end
    }
}
