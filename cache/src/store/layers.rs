//! Read-only layers: store directories and packs of others, asked when the store itself has nothing.
//!
//! The store comes first, then the layers in their order. So a hit of one's own costs nothing more, and what
//! was compiled afresh because a layer has it damaged is found from then on. Layers are opened by the first
//! look-up that needs them. One that cannot be used is left out with a warning, and nothing is ever written
//! into any: somebody else owns them.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use objcache_signature::Signature;
use rustix::fs::Mode;

use crate::buffer::Buffer;
use crate::clock;
use crate::entry::Trailer;
use crate::error::{CacheError, Reason};
use crate::pack::{self, Pack};
use crate::store::directory::{Directory, LAYERS, LOCKS, is_in_the_way};
use crate::store::entries;
use crate::store::lock_file::LockFile;
use crate::store::parents;
use crate::trust::Gate;

/// After so many I/O errors in a row a layer is not asked any more.
const ERRORS_IN_A_ROW: u32 = 3;
/// The longest list of mounted layers that is read, in bytes.
const LONGEST_LIST: u64 = 1 << 20;
/// How long to wait for another who changes that list.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// A layer of a store, as [`Store::layers`](crate::Store::layers) tells of it.
#[derive(Debug)]
pub struct LayerInfo {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it was mounted for good. Otherwise the options or the environment name it.
    pub mounted: bool,
    /// What it is, or why it is left out.
    pub kind: Result<LayerKind, CacheError>,
}

/// What a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// The directory of another store.
    Directory,
    /// A pack.
    Pack(pack::PackSummary),
}

pub(super) struct Layers {
    opened: OnceLock<Vec<Layer>>,
    // None is given up: each look-up that one fails is to be told of.
    strict: bool,
}

struct Layer {
    path: PathBuf,
    source: Source,
    errors_in_a_row: AtomicU32,
}

enum Source {
    Directory(Directory),
    Pack(Pack),
}

/// What a layer has.
pub(super) enum Found {
    Absent,
    Whole(Buffer, Trailer),
    Damaged(Reason),
}

impl Layers {
    pub(super) fn new(strict: bool) -> Self {
        Self { opened: OnceLock::new(), strict }
    }

    /// Looks for an entry in one layer after the other. What is wrong with them is told to `complain`.
    pub(super) fn find(
        &self,
        paths: impl FnOnce() -> Vec<PathBuf>,
        signature: &Signature,
        gate: &Gate,
        complain: &mut dyn FnMut(CacheError),
    ) -> Option<(Buffer, Trailer)> {
        let opened;
        let layers = match self.opened.get() {
            Some(layers) => layers,
            None => match open_all(paths(), complain) {
                (layers, false) => self.opened.get_or_init(|| layers),
                // Another look-up may find them all.
                (layers, true) => {
                    opened = layers;
                    &opened
                }
            },
        };
        let mut asked = layers.iter().filter(|layer| self.strict || !layer.is_given_up());
        asked.find_map(|layer| layer.find(signature, gate, complain))
    }
}

/// The layers that can be opened, and whether some of the others lacked what may be there the next time.
fn open_all(paths: Vec<PathBuf>, complain: &mut dyn FnMut(CacheError)) -> (Vec<Layer>, bool) {
    let (mut layers, mut passes) = (Vec::new(), false);
    for path in paths {
        match Layer::open(&path) {
            Ok(layer) => layers.push(layer),
            Err(error) => {
                passes |= error.reason() == Reason::OutOfResources;
                let what = format!("layer {}", path.display());
                complain(CacheError::new(Reason::LayerUnusable, what).with_source(error));
            }
        }
    }
    (layers, passes)
}

impl Layer {
    fn open(path: &Path) -> Result<Self, CacheError> {
        let metadata =
            fs::metadata(path).map_err(|error| CacheError::io(path.display().to_string(), error))?;
        let source = if metadata.is_dir() {
            Source::Directory(Directory::open_layer(path)?)
        } else {
            Source::Pack(open_pack(path)?)
        };
        Ok(Self { path: path.to_owned(), source, errors_in_a_row: AtomicU32::new(0) })
    }

    fn is_given_up(&self) -> bool {
        self.errors_in_a_row.load(Ordering::Relaxed) >= ERRORS_IN_A_ROW
    }

    fn find(
        &self,
        signature: &Signature,
        gate: &Gate,
        complain: &mut dyn FnMut(CacheError),
    ) -> Option<(Buffer, Trailer)> {
        let what = || format!("entry {signature} in layer {}", self.path.display());
        match self.read(signature, gate) {
            Ok(found) => {
                if self.errors_in_a_row.load(Ordering::Relaxed) != 0 {
                    self.errors_in_a_row.store(0, Ordering::Relaxed);
                }
                match found {
                    Found::Whole(bytes, trailer) => return Some((bytes, trailer)),
                    Found::Absent => {}
                    // Sound, but nobody we believe vouches for it.
                    Found::Damaged(reason) if reason.is_ours_alone() => {
                        complain(CacheError::new(reason, what()));
                    }
                    Found::Damaged(reason) => {
                        let why = CacheError::new(reason, "entry");
                        complain(CacheError::new(Reason::LayerDamaged, what()).with_source(why));
                    }
                }
            }
            Err(error) => {
                self.errors_in_a_row.fetch_add(1, Ordering::Relaxed);
                complain(CacheError::new(Reason::LayerUnusable, what()).with_source(error));
            }
        }
        None
    }

    fn read(&self, signature: &Signature, gate: &Gate) -> io::Result<Found> {
        Ok(match &self.source {
            Source::Directory(directory) => match entries::read(directory, signature, gate)? {
                entries::Found::Absent => Found::Absent,
                entries::Found::Whole((bytes, trailer)) => Found::Whole(bytes, trailer),
                entries::Found::Refused(reason) => Found::Damaged(reason),
                entries::Found::Damaged(damage) => Found::Damaged(damage.reason),
            },
            Source::Pack(pack) => match pack.find(signature, gate)? {
                pack::Found::Absent => Found::Absent,
                pack::Found::Whole(bytes, trailer) => Found::Whole(bytes, trailer),
                pack::Found::Damaged(reason) => Found::Damaged(reason),
            },
        })
    }

    fn kind(&self) -> LayerKind {
        match &self.source {
            Source::Directory(_) => LayerKind::Directory,
            Source::Pack(pack) => LayerKind::Pack(pack.summary()),
        }
    }
}

/// Opens a pack whose code is going to be run: it must be ours or the system's, and nobody else may change it.
fn open_pack(path: &Path) -> Result<Pack, CacheError> {
    let pack = Pack::open(path)?;
    let named = || path.display().to_string();
    let (owner, mode) = pack.owner_and_mode().map_err(|error| CacheError::io(named(), error))?;
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(CacheError::new(Reason::ForeignOwner, named()));
    }
    if Mode::from_raw_mode(mode).intersects(Mode::WGRP | Mode::WOTH) {
        return Err(CacheError::new(Reason::InsecureMode, named()));
    }
    if !parents::of_file_are_safe(path).map_err(|error| CacheError::io(named(), error))? {
        return Err(CacheError::new(Reason::InsecureParent, named()));
    }
    Ok(pack)
}

/// What is at `path`, if it can be used as a layer.
pub(super) fn kind(path: &Path) -> Result<LayerKind, CacheError> {
    Ok(Layer::open(path)?.kind())
}

/// The layers mounted on a store: a line each in a file of its directory. What is no file there is replaced by the next list.
pub(super) fn mounted(directory: &Directory) -> io::Result<Vec<PathBuf>> {
    let file = match directory.open_file(LAYERS) {
        Err(error) if is_in_the_way(&error) => None,
        opened => opened?,
    };
    let Some(file) = file else { return Ok(Vec::new()) };
    let mut text = Vec::new();
    file.take(LONGEST_LIST).read_to_end(&mut text)?;
    let lines = text.split(|byte| *byte == b'\n').map(|line| Path::new(OsStr::from_bytes(line)));
    Ok(lines.filter(|path| path.is_absolute()).map(Path::to_owned).collect())
}

/// Changes the list of mounted layers; returns whether `change` did.
pub(super) fn change_mounted(
    directory: &Arc<Directory>,
    change: impl FnOnce(&mut Vec<PathBuf>) -> bool,
) -> io::Result<bool> {
    let lock = LockFile::acquire_until(directory, &format!("{LOCKS}/{LAYERS}"), clock::deadline(LOCK_WAIT))?;
    let Some(_lock) = lock else { return Err(io::ErrorKind::TimedOut.into()) };
    let mut paths = mounted(directory)?;
    if !change(&mut paths) {
        return Ok(false);
    }
    let mut text = Vec::new();
    for path in paths {
        text.extend_from_slice(path.as_os_str().as_bytes());
        text.push(b'\n');
    }
    directory.replace_file(LAYERS, &text)?;
    Ok(true)
}
