//! `pack mount`, `pack unmount` and `pack layers`: packs and directories that are used where they are.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use objcache::cache::{LayerInfo, LayerKind, Pack, Store};
use serde::Serialize;

use crate::commands::entry::entries;
use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::output::table::{Column, table};
use crate::output::{Report, Text};
use crate::units;

/// Use a pack, or the directory of another cache, where it is
///
/// From now on everybody who uses this cache looks there for what the cache itself does not have. Nothing is
/// written into it. It must belong to you or to root, and nobody else may be able to write into it. For one run
/// only there is OBJCACHE_LAYERS.
#[derive(Debug, Args)]
pub(crate) struct MountOptions {
    /// The pack or directory
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    path: PathBuf,
}

/// Use a mounted pack or directory no more
#[derive(Debug, Args)]
pub(crate) struct UnmountOptions {
    /// The pack or directory; it may be gone
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    path: PathBuf,
}

/// List what is mounted or named by OBJCACHE_LAYERS, in the order in which it is asked
///
/// Exit code 1 when one cannot be used, and so is left out.
#[derive(Debug, Args)]
pub(crate) struct ListOptions {}

pub(crate) fn mount(options: &MountOptions, context: &Context) -> Result<Status, Failure> {
    let store = context.store()?;
    let changed = store.mount(&options.path)?;
    let trusted = is_trusted(&store, &options.path)?;
    let path = options.path.display().to_string();
    context.output.report(&MountReport { path, mounted: true, changed, trusted })?;
    Ok(Status::Fine)
}

/// Whether somebody the cache believes signed the pack; `None`: it is a directory, or nobody has to.
fn is_trusted(store: &Store, path: &Path) -> Result<Option<bool>, Failure> {
    match path.is_dir() {
        true => Ok(None),
        false => Ok(store.options().trust.trusts_one_of(&Pack::open(path)?.signed_by()?)),
    }
}

pub(crate) fn unmount(options: &UnmountOptions, context: &Context) -> Result<Status, Failure> {
    if !context.store()?.unmount(&options.path)? {
        let message = format!("{} is not mounted", options.path.display());
        return Err(Failure::finding("not_mounted", message).hint("`objcache pack layers` lists what is"));
    }
    let path = options.path.display().to_string();
    context.output.report(&UnmountReport { path, mounted: false, changed: true })?;
    Ok(Status::Fine)
}

#[derive(Serialize)]
struct MountReport {
    path: String,
    mounted: bool,
    changed: bool,
    trusted: Option<bool>,
}

impl Report for MountReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        let verb = if self.changed { "mounted" } else { "already mounted:" };
        text.line(format!("{verb} {}", self.path))?;
        match self.trusted {
            Some(false) => text.line(
                "signed by nobody who is trusted: only entries are used that are vouched for themselves",
            ),
            Some(true) | None => Ok(()),
        }
    }
}

#[derive(Serialize)]
struct UnmountReport {
    path: String,
    mounted: bool,
    changed: bool,
}

impl Report for UnmountReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        text.line(format!("unmounted {}", self.path))
    }
}

pub(crate) fn list(_options: &ListOptions, context: &Context) -> Result<Status, Failure> {
    let layers: Vec<Layer> = context.store()?.layers()?.into_iter().map(Layer::from).collect();
    let usable = layers.iter().all(|layer| layer.reason.is_none());
    context.output.report(&LayersReport { layers })?;
    Ok(if usable { Status::Fine } else { Status::Findings })
}

#[derive(Serialize)]
struct LayersReport {
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct Layer {
    path: String,
    mounted: bool,
    kind: Option<&'static str>,
    entries: Option<u64>,
    pack_bytes: Option<u64>,
    reason: Option<&'static str>,
    #[serde(skip)]
    words: String,
}

impl From<LayerInfo> for Layer {
    fn from(layer: LayerInfo) -> Self {
        let LayerInfo { path, mounted, kind } = layer;
        let none = Self {
            path: path.display().to_string(),
            mounted,
            kind: None,
            entries: None,
            pack_bytes: None,
            reason: None,
            words: String::new(),
        };
        match kind {
            Ok(LayerKind::Directory) => {
                Self { kind: Some("directory"), words: "a directory".to_owned(), ..none }
            }
            Ok(LayerKind::Pack(pack)) => Self {
                kind: Some("pack"),
                entries: Some(pack.entries),
                pack_bytes: Some(pack.bytes),
                words: format!("{}, {}", entries(pack.entries), units::size(pack.bytes)),
                ..none
            },
            Err(error) => {
                Self { reason: Some(error.reason().as_str()), words: format!("left out: {error}"), ..none }
            }
        }
    }
}

const COLUMNS: [Column; 3] = [Column::Left("PATH"), Column::Left("BY"), Column::Left("WHAT")];

impl Report for LayersReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        if self.layers.is_empty() {
            return Ok(());
        }
        let rows = self.layers.iter().map(|layer| {
            let by = if layer.mounted { "mount" } else { "OBJCACHE_LAYERS" };
            vec![layer.path.clone(), by.to_owned(), layer.words.clone()]
        });
        text.laid_out(&table(&COLUMNS, rows, text.styled))
    }
}
