//! How much an object may ask for. Checked before anything is allocated on its word.

use crate::error::LoadError;

/// Bounds on what a single object may make the loader do. An object past one of them is refused with
/// [`LoadError::Limit`](crate::LoadError::Limit) before memory of that size is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one image in memory: all loaded sections, zero-filled ones, tables, stubs and padding.
    pub image_bytes: u64,
    /// Section headers.
    pub sections: u64,
    /// Symbol table entries.
    pub symbols: u64,
    /// Relocations of all loaded sections together.
    pub relocations: u64,
    /// Alignment of a section or a common symbol, in bytes. At most [`Limits::MAX_ALIGNMENT`] whatever is set here.
    pub alignment: u64,
    /// Bytes of one symbol or section name that is looked at.
    pub name_bytes: u64,
    /// Bytes of names that are looked at for one purpose: all names of sections, all of groups, all that a resolver is
    /// asked for. Names may overlap in the object, so its size is no bound on this.
    pub all_name_bytes: u64,
}

impl Limits {
    /// The largest alignment any memory manager of this crate honours: a huge page, 2 MiB.
    pub const MAX_ALIGNMENT: u64 = 2 << 20;

    /// What `image_bytes` comes to: no more than there is address space, so that sums of sizes and alignments stay far
    /// from overflowing.
    pub(crate) fn bounded_image_bytes(&self) -> u64 {
        self.image_bytes.min(1 << 47)
    }
}

/// Counts the bytes of names that are looked at for one purpose.
pub(crate) struct NameBudget {
    used: u64,
    limit: u64,
}

impl NameBudget {
    pub(crate) fn of(limits: &Limits) -> Self {
        NameBudget { used: 0, limit: limits.all_name_bytes }
    }

    #[inline]
    pub(crate) fn spend(&mut self, name: &[u8]) -> Result<(), LoadError> {
        self.used = self.used.saturating_add(name.len() as u64);
        if self.used > self.limit {
            return Err(LoadError::limit("the length of all names together", self.used, self.limit));
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            image_bytes: 1 << 30,
            sections: 1 << 20,
            symbols: 1 << 22,
            relocations: 1 << 24,
            alignment: Self::MAX_ALIGNMENT,
            name_bytes: 64 << 10,
            all_name_bytes: 64 << 20,
        }
    }
}
