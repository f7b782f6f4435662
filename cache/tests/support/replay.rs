//! What a power cut may leave of a recorded run: everything that was synced, and of the rest nothing, all, or any
//! part.

#![allow(unreachable_pub, dead_code, reason = "each test binary uses a part")]

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::recording::{Node, Operation, Recording, Tree};
use crate::support::Random;

const PAGE: usize = 4096;

/// What a file system promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// What POSIX says, and no more: bytes need a sync of the file, names one of their directory.
    Strict,
    /// Like ext4: any sync takes all earlier changes of names with it, and those that are kept are the first.
    Ext4,
}

/// What is kept of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    Nothing,
    Everything,
    /// Names and lengths, and zeros for bytes.
    LengthsOnly,
    /// Pages and names at random.
    Some(u64),
}

/// The state after a power cut when the first `count` operations were done.
pub fn after_power_cut(recording: &Recording, count: usize, system: FileSystem, kept: Kept) -> Tree {
    let done = &recording.operations[..count];
    let durable = Durable::of(done, system);
    let mut chooser = Chooser::new(kept, system, done, &durable);
    let mut tree = recording.before.clone();
    let mut link_is_kept = true;
    for (at, operation) in done.iter().enumerate() {
        match operation {
            Operation::Link { directory, name, node } => {
                link_is_kept = durable.names[at] || chooser.name(at);
                if link_is_kept {
                    tree.directories.entry(*directory).or_default().insert(name.clone(), *node);
                }
            }
            Operation::Unlink { directory, name, renamed } => {
                let kept = durable.names[at] || chooser.name(at);
                // No file system loses what is renamed.
                if kept && (!renamed || link_is_kept) {
                    tree.directories.entry(*directory).or_default().remove(name);
                }
            }
            Operation::Write { node, offset, bytes } => {
                let file = tree.files.entry(*node).or_default();
                let mut from = *offset;
                let end = offset + bytes.len();
                while from < end {
                    let to = (from / PAGE * PAGE + PAGE).min(end);
                    match durable.bytes[at] {
                        true => write(file, from, &bytes[from - offset..to - offset]),
                        false => match chooser.page(*node, from / PAGE) {
                            Page::Kept => write(file, from, &bytes[from - offset..to - offset]),
                            Page::LengthOnly => file.resize(file.len().max(to), 0),
                            Page::Lost => {}
                        },
                    }
                    from = to;
                }
            }
            Operation::Truncate { node, length } => {
                let file = tree.files.entry(*node).or_default();
                if durable.bytes[at] || chooser.length() {
                    file.resize(*length, 0);
                }
            }
            Operation::Sync { .. } | Operation::Say(_) => {}
        }
    }
    // A name may be kept of something of which nothing else is: it is empty.
    let linked: Vec<Node> = tree.directories.values().flat_map(|names| names.values().copied()).collect();
    for node in linked {
        match recording.directories.contains(&node) {
            true => _ = tree.directories.entry(node).or_default(),
            false => _ = tree.files.entry(node).or_default(),
        }
    }
    tree
}

/// What the process had said by then.
pub fn said(recording: &Recording, count: usize) -> String {
    let mut text = Vec::new();
    for operation in &recording.operations[..count] {
        if let Operation::Say(bytes) = operation {
            text.extend_from_slice(bytes);
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The same for the same files with the same names and bytes.
pub fn fingerprint(tree: &Tree) -> u64 {
    let mut hasher = DefaultHasher::new();
    hash_directory(tree, 0, &mut hasher);
    hasher.finish()
}

fn hash_directory(tree: &Tree, node: Node, hasher: &mut DefaultHasher) {
    for (name, node) in &tree.directories[&node] {
        name.hash(hasher);
        match tree.files.get(node) {
            Some(bytes) => bytes.hash(hasher),
            None => hash_directory(tree, *node, hasher),
        }
    }
    OsStr::new("/").hash(hasher);
}

fn write(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    file.resize(file.len().max(at + bytes.len()), 0);
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Which operations were synced, by their places.
struct Durable {
    names: Vec<bool>,
    bytes: Vec<bool>,
}

impl Durable {
    fn of(done: &[Operation], system: FileSystem) -> Self {
        // Looked through from the end: what was synced later.
        let (mut names, mut bytes) = (vec![false; done.len()], vec![false; done.len()]);
        let (mut synced, mut any) = (HashSet::<Node>::new(), false);
        for (at, operation) in done.iter().enumerate().rev() {
            match operation {
                Operation::Sync { node } => {
                    synced.insert(*node);
                    any = true;
                }
                Operation::Link { directory, .. } | Operation::Unlink { directory, .. } => {
                    names[at] = match system {
                        FileSystem::Strict => synced.contains(directory),
                        FileSystem::Ext4 => any,
                    };
                }
                Operation::Write { node, .. } | Operation::Truncate { node, .. } => {
                    bytes[at] = synced.contains(node);
                }
                Operation::Say(_) => {}
            }
        }
        Self { names, bytes }
    }
}

enum Page {
    Kept,
    LengthOnly,
    Lost,
}

/// Decides about what was not synced.
struct Chooser {
    kept: Kept,
    random: Random,
    // With ext4's promise: names are kept up to here.
    names_until: Option<usize>,
    // How many more writes of a page are kept.
    pages: BTreeMap<(Node, usize), u32>,
}

impl Chooser {
    fn new(kept: Kept, system: FileSystem, done: &[Operation], durable: &Durable) -> Self {
        let mut random = Random::new(match kept {
            Kept::Some(seed) => seed,
            _ => 0,
        });
        let names_until = (system == FileSystem::Ext4).then(|| {
            let first = durable.names.iter().rposition(|durable| *durable).map_or(0, |at| at + 1);
            first + random.below((done.len() - first + 1) as u32) as usize
        });
        Self { kept, random, names_until, pages: BTreeMap::new() }
    }

    fn name(&mut self, at: usize) -> bool {
        match (self.kept, self.names_until) {
            (Kept::Nothing, _) => false,
            (Kept::Everything | Kept::LengthsOnly, _) => true,
            (Kept::Some(_), Some(until)) => at < until,
            (Kept::Some(_), None) => self.random.below(2) == 0,
        }
    }

    fn length(&mut self) -> bool {
        match self.kept {
            Kept::Nothing => false,
            Kept::Everything | Kept::LengthsOnly => true,
            Kept::Some(_) => self.random.below(2) == 0,
        }
    }

    /// Writes of one page are kept in their order: up to some, and none after that.
    fn page(&mut self, node: Node, page: usize) -> Page {
        match self.kept {
            Kept::Nothing => Page::Lost,
            Kept::Everything => Page::Kept,
            Kept::LengthsOnly => Page::LengthOnly,
            Kept::Some(_) => {
                let random = &mut self.random;
                let left = self.pages.entry((node, page)).or_insert_with(|| random.below(4));
                match left.checked_sub(1) {
                    Some(fewer) => {
                        *left = fewer;
                        Page::Kept
                    }
                    None if random.below(3) == 0 => Page::LengthOnly,
                    None => Page::Lost,
                }
            }
        }
    }
}
