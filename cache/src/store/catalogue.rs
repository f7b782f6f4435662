//! What is known of entries beyond their files, kept in sled: how often and when each was used, and the
//! statistics of the store.
//!
//! All of it is derived. What the entry files tell is only remembered here, with what identifies the file, so
//! that a file that was replaced is read again. A lost catalogue loses statistics, never an object.

use std::collections::{HashMap, HashSet};
use std::io;

use objcache_signature::Signature;
use serde::{Deserialize, Serialize};

use crate::admin::EntryInfo;
use crate::known::Known;
use crate::signature_hash::SignatureMap;
use crate::sled_guard::{Database, DatabaseError, Keyspace, Segment};
use crate::store::counters::Counter;
use crate::store::directory::{CATALOGUE, Directory};
use crate::store::entries::{self, Description, FileFacts, Listed};
use crate::store::journal::{Event, Summary, Use};
use crate::store::records;
use crate::store::totals::{self, Totals};

const STATISTICS: Keyspace = Keyspace(1);

/// What is known of one entry, and of which file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EntryKnowledge {
    file_length: u64,
    file_modified_ns: i64,
    file_inode: u64,
    entry: Known,
}

impl EntryKnowledge {
    pub(crate) fn of(description: Description) -> Self {
        let Description { facts, trailer, namespace } = description;
        let entry = Known {
            object_bytes: trailer.object as u64,
            stored_bytes: trailer.stored as u64,
            codec: trailer.codec.number(),
            disk_bytes: facts.disk_bytes,
            created_unix_us: trailer.created_unix_us,
            last_used_unix_us: trailer.created_unix_us,
            hits: 0,
            compile_time_us: trailer.compile_time_us,
            namespace,
            pinned: false,
        };
        Self {
            file_length: facts.length,
            file_modified_ns: facts.modified_ns,
            file_inode: facts.inode,
            entry,
        }
    }

    /// Whether it tells of the file that is there now.
    fn fits(&self, facts: &FileFacts) -> bool {
        (self.file_length, self.file_modified_ns, self.file_inode)
            == (facts.length, facts.modified_ns, facts.inode)
    }

    fn keep_history_of(mut self, older: Option<&Self>) -> Self {
        if let Some(Self { entry: older, .. }) = older {
            self.entry.hits = older.hits;
            self.entry.last_used_unix_us = self.entry.last_used_unix_us.max(older.last_used_unix_us);
        }
        self
    }

    fn add_use(&mut self, used: &Use) {
        self.entry.hits = self.entry.hits.saturating_add(used.hits);
        self.entry.last_used_unix_us = self.entry.last_used_unix_us.max(used.last_used_unix_us);
    }

    /// `disk_bytes` and `pinned` are as the directory has them now.
    pub(crate) fn info(self, signature: Signature, disk_bytes: u64, pinned: bool) -> EntryInfo {
        EntryInfo { disk_bytes, pinned, ..self.entry.info(signature) }
    }
}

/// Where catalogue and entry files disagree.
#[derive(Default)]
pub(crate) struct Differences {
    /// Entries without a record.
    pub(crate) uncatalogued: Vec<Signature>,
    /// Records of entries that are gone or were replaced.
    pub(crate) stale: Vec<Signature>,
}

/// What is to be known of an entry from now on; `None`: nothing.
type Change = (Signature, Option<EntryKnowledge>);

/// What would be lost with a catalogue.
#[derive(Default)]
pub(crate) struct History {
    entries: Vec<(Signature, EntryKnowledge)>,
    counts: Vec<(Counter, u64)>,
}

pub(crate) struct Catalogue(Database);

impl Catalogue {
    /// Opens it, and begins a fresh one when it is damaged: then the flag is set.
    pub(crate) fn open(directory: &Directory) -> Result<(Self, bool), DatabaseError> {
        let path = directory.path().join(CATALOGUE);
        let (database, rebuilt) =
            Database::open(&path, &["entries", "statistics", "totals"], Segment::SMALL)?;
        Ok((Self(database), rebuilt))
    }

    /// Takes in what the journal tells.
    pub(crate) fn fold(&self, directory: &Directory, events: Vec<Event>) -> Result<(), DatabaseError> {
        let Summary { uses, counts } = Summary::of(events);
        let mut writes = Vec::new();
        for (signature, used) in &uses {
            match self.known_after(directory, signature, used)? {
                Some(mut known) => {
                    known.add_use(used);
                    writes.push((*signature, Some(known)));
                }
                None => writes.push((*signature, None)),
            }
        }
        let changed = uses.iter().filter(|(_, used)| used.may_have_changed()).map(|(signature, _)| signature);
        totals::forget(&self.0, changed)?;
        records::write(&self.0, writes)?;
        self.add_counts(&counts)?;
        self.0.flush()
    }

    fn known_after(
        &self,
        directory: &Directory,
        signature: &Signature,
        used: &Use,
    ) -> Result<Option<EntryKnowledge>, DatabaseError> {
        let known = self.known(signature)?;
        if known.is_some() && !used.may_have_changed() {
            return Ok(known);
        }
        let Ok(described) = entries::describe(directory, signature) else { return Ok(known) };
        Ok(described.map(|it| EntryKnowledge::of(it).keep_history_of(known.as_ref())))
    }

    pub(crate) fn known(&self, signature: &Signature) -> Result<Option<EntryKnowledge>, DatabaseError> {
        records::get(&self.0, signature)
    }

    fn add_counts(&self, counts: &HashMap<Counter, u64>) -> Result<(), DatabaseError> {
        let old: HashMap<Counter, u64> = self.counts()?.into_iter().collect();
        let writes = counts.iter().map(|(counter, by)| {
            let count = old.get(counter).copied().unwrap_or(0).saturating_add(*by);
            (vec![counter.number()], Some(count.to_le_bytes().to_vec()))
        });
        self.0.write(STATISTICS, writes)
    }

    /// The statistics.
    pub(crate) fn counts(&self) -> Result<Vec<(Counter, u64)>, DatabaseError> {
        let mut counts = Vec::new();
        self.0.scan(STATISTICS, |key, value| {
            if let ([number], Ok(value)) = (key, <[u8; 8]>::try_from(value))
                && let Some(counter) = Counter::from_number(*number)
            {
                counts.push((counter, u64::from_le_bytes(value)));
            }
        })?;
        Ok(counts)
    }

    /// Compares with the entry files, corrects what is out of date, and tells of every entry.
    ///
    /// A file of the same number is the same file: entries are replaced, never changed. So nothing is asked of
    /// files that are known, unless it is to be `thorough`: then what somebody else did to them is seen, too.
    pub(crate) fn survey(
        &self,
        directory: &Directory,
        listed: &[Listed],
        thorough: bool,
        is_pinned: impl Fn(&Signature) -> bool,
    ) -> Result<Vec<EntryInfo>, DatabaseError> {
        let mut changes = Vec::new();
        let infos = compare(directory, listed, self.all_known()?, thorough, is_pinned, &mut changes)?;
        if !changes.is_empty() {
            self.correct(changes)?;
            self.0.flush()?;
        }
        Ok(infos)
    }

    /// What all entries come to. Only those in directories that were changed are compared with their files.
    pub(crate) fn totals(&self, directory: &Directory) -> Result<Totals, DatabaseError> {
        let kept = totals::kept(&self.0)?;
        let (mut sum, mut anew, mut changes) = (Totals::default(), Vec::new(), Vec::new());
        for (fan, stamp) in totals::fans(directory)? {
            if let Some((_, totals)) = kept[usize::from(fan)].filter(|(of, _)| *of == stamp) {
                sum = sum.plus(totals);
                continue;
            }
            let listed = entries::list_in(directory, &totals::name(fan))?;
            let known = records::beginning_with(&self.0, fan)?.into_iter().collect();
            let infos = compare(directory, &listed, known, false, |_| false, &mut changes)?;
            let totals = Totals::of(&infos);
            sum = sum.plus(totals);
            // What cannot be told of now may be without a change of its directory.
            if infos.len() == listed.len() {
                anew.push((fan, stamp, totals));
            }
        }
        if !changes.is_empty() {
            self.correct(changes)?;
        }
        if !anew.is_empty() {
            totals::keep(&self.0, directory, &anew)?;
        }
        Ok(sum)
    }

    fn correct(&self, changes: Vec<Change>) -> Result<(), DatabaseError> {
        totals::forget(&self.0, changes.iter().map(|(signature, _)| signature))?;
        records::write(&self.0, changes)
    }

    fn all_known(&self) -> Result<SignatureMap<EntryKnowledge>, DatabaseError> {
        Ok(records::all(&self.0)?.into_iter().collect())
    }

    /// Where it and the entry files disagree. Entries that are `announced` by the journal will be looked at.
    pub(crate) fn differences(
        &self,
        directory: &Directory,
        announced: &HashSet<Signature>,
    ) -> Result<Differences, DatabaseError> {
        let mut known = self.all_known()?;
        let mut differences = Differences::default();
        for signature in entries::signatures(directory)? {
            let known = known.remove(&signature);
            let described = entries::describe(directory, &signature)?;
            match (known, described) {
                // It is damaged, or gone by now: its record is not the matter.
                (_, None) => {}
                _ if announced.contains(&signature) => {}
                (None, Some(_)) => differences.uncatalogued.push(signature),
                (Some(known), Some(described)) if known.fits(&described.facts) => {}
                (Some(_), Some(_)) => differences.stale.push(signature),
            }
        }
        differences.stale.extend(known.into_keys().filter(|signature| !announced.contains(signature)));
        Ok(differences)
    }

    /// What cannot be told by entry files.
    pub(crate) fn history(&self) -> Result<History, DatabaseError> {
        Ok(History { entries: records::all(&self.0)?, counts: self.counts()? })
    }

    /// Begins a fresh catalogue with it.
    pub(crate) fn begin_with(&self, history: History) -> Result<(), DatabaseError> {
        records::write(&self.0, history.entries.into_iter().map(|(of, known)| (of, Some(known))))?;
        self.add_counts(&history.counts.into_iter().collect())?;
        self.0.flush()
    }

    /// Removes the files of a catalogue that nobody has open.
    pub(crate) fn remove(directory: &Directory) -> io::Result<()> {
        Database::remove(&directory.path().join(CATALOGUE))
    }

    /// Forgets entries that are gone.
    pub(crate) fn forget<'a>(
        &self,
        signatures: impl Iterator<Item = &'a Signature>,
    ) -> Result<(), DatabaseError> {
        records::write(&self.0, signatures.map(|signature| (*signature, None)))?;
        self.0.flush()
    }
}

/// Tells of every listed entry, and notes what is out of date in what is `known`: that may be of no others.
fn compare(
    directory: &Directory,
    listed: &[Listed],
    mut known: SignatureMap<EntryKnowledge>,
    thorough: bool,
    is_pinned: impl Fn(&Signature) -> bool,
    changes: &mut Vec<Change>,
) -> Result<Vec<EntryInfo>, DatabaseError> {
    let mut infos = Vec::with_capacity(listed.len());
    for Listed { signature, inode } in listed {
        let current = match known.remove(signature) {
            Some(older) if older.file_inode == *inode && !thorough => older,
            older => {
                // Some file systems list other numbers than they tell of files.
                let Some(facts) = entries::facts(directory, signature)? else { continue };
                match older {
                    Some(older) if older.fits(&facts) => older,
                    older => {
                        let Some(described) = describe_or_skip(directory, signature)? else { continue };
                        let current = EntryKnowledge::of(described).keep_history_of(older.as_ref());
                        changes.push((*signature, Some(current.clone())));
                        current
                    }
                }
            }
        };
        let disk_bytes = current.entry.disk_bytes;
        infos.push(current.info(*signature, disk_bytes, is_pinned(signature)));
    }
    changes.extend(known.into_keys().map(|gone| (gone, None)));
    Ok(infos)
}

/// One entry that cannot be read must not hide the others.
fn describe_or_skip(directory: &Directory, signature: &Signature) -> io::Result<Option<Description>> {
    match entries::describe(directory, signature) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        described => described,
    }
}
