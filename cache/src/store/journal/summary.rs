//! Events added up.

use std::collections::HashMap;

use objcache_signature::Signature;

use super::event::Event;
use crate::store::counters::Counter;

/// What the events say of one entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) hits: u64,
    pub(crate) last_used_unix_us: u64,
    /// It was put: what the catalogue knows of its file may be out of date.
    pub(crate) put: bool,
}

impl Use {
    /// The entry was put, or is only named: it was removed.
    pub(crate) fn may_have_changed(&self) -> bool {
        self.put || self.hits == 0
    }
}

/// Events, added up.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) uses: HashMap<Signature, Use>,
    pub(crate) counts: HashMap<Counter, u64>,
}

impl Summary {
    pub(crate) fn of(events: impl IntoIterator<Item = Event>) -> Self {
        let mut summary = Self::default();
        for event in events {
            summary.add(event);
        }
        summary
    }

    /// The other way round: one event per entry and counter, `limit` entries at most.
    pub(super) fn into_events(self, limit: usize) -> Vec<Event> {
        let mut uses: Vec<(Signature, Use)> = self.uses.into_iter().collect();
        uses.sort_unstable_by_key(|(signature, used)| {
            (std::cmp::Reverse(used.last_used_unix_us), *signature)
        });
        uses.truncate(limit);
        let uses = uses.into_iter().map(|(signature, used)| Event::Hits {
            signature,
            count: used.hits,
            at: used.last_used_unix_us,
        });
        let counts = self.counts.into_iter().map(|(counter, by)| Event::Count { counter, by });
        uses.chain(counts).collect()
    }

    fn add(&mut self, event: Event) {
        match event {
            Event::Put { signature, at } => {
                let entry = self.uses.entry(signature).or_default();
                entry.put = true;
                entry.last_used_unix_us = entry.last_used_unix_us.max(at);
            }
            Event::Hits { signature, count, at } => {
                let entry = self.uses.entry(signature).or_default();
                entry.hits = entry.hits.saturating_add(count);
                entry.last_used_unix_us = entry.last_used_unix_us.max(at);
            }
            Event::Count { counter, by } => {
                let count = self.counts.entry(counter).or_default();
                *count = count.saturating_add(by);
            }
        }
    }
}
