//! `link`: objects linked for some address, on this machine or for another, without running anything.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueHint};
use objcache::loader::{AbsoluteSymbols, FixedMemory, LinkMap, LoadedImage, Loader, PhonySymbols, chain};

use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::files;
use crate::link::image::image_bytes;
use crate::link::inputs::{Input, Inputs};
use crate::link::layout::Layout;
use crate::link::options::{Definition, SectionAddress, address};
use crate::link::placement::SectionPlacement;
use crate::link::target::Target;

/// Link objects without running them, for any machine
///
/// Several objects become one image. Sections follow each other from the base address unless they are mapped one by
/// one. What the image holds and where is written as JSON (--layout) and as plain bytes (--image).
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Objects, linked in this order
    #[arg(value_name = "OBJ", required = true, value_hint = ValueHint::FilePath)]
    objects: Vec<PathBuf>,

    /// Where the image begins [default: out of reach of the lowest 4 GiB; for code that must be low, 4 MiB]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    base: Option<u64>,

    /// Put a section of a file, named by its last path component, at an address of its own
    #[arg(long = "map-section", value_name = "FILE,SECTION=ADDR")]
    sections: Vec<SectionAddress>,

    /// Define a symbol
    #[arg(long = "define", value_name = "NAME=ADDR")]
    definitions: Vec<Definition>,

    /// Give names that nobody defines addresses of their own, in reach, where nothing is
    #[arg(long)]
    phony_externals: bool,

    /// Take members that define missing names from this archive
    #[arg(long = "archive", value_name = "LIB", value_hint = ValueHint::FilePath)]
    archives: Vec<PathBuf>,

    /// Make accesses through the GOT direct where the target is in reach [default: unless sections are mapped]
    #[arg(long, overrides_with = "no_relax")]
    relax: bool,

    /// Leave accesses through the GOT as the compiler wrote them
    #[arg(long, overrides_with = "relax")]
    no_relax: bool,

    /// Write the layout as JSON; - for standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    layout: Option<PathBuf>,

    /// Write the bytes of the image, from its lowest address on
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    image: Option<PathBuf>,
}

/// Where images go whose place does not matter: as far from the lowest 4 GiB as what runs in a process is.
const BASE: u64 = 0x7f00_0000_0000;

/// The same for images that must be low.
const LOW_BASE: u64 = 0x40_0000;

/// Distance of made-up symbols below the image: no page of it is near.
const PHONY_GAP: u64 = 0x1000;

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let is_defined = |name: &str| options.definitions.iter().any(|definition| definition.name == name);
    let inputs = Inputs::read(&options.objects, &options.archives, &is_defined)?;
    let target = Target::of(&inputs.first().bytes);
    let is_free = options.base.is_none() && options.sections.is_empty();
    let linked = match link(options, &inputs, if target.is_64_bit { BASE } else { LOW_BASE }) {
        // Made-up symbols were beside the image that nobody asked to be low; now they are where it must be.
        Err(Failure { code: "load", .. }) if is_free && options.phony_externals => {
            link(options, &inputs, LOW_BASE)
        }
        linked => linked,
    };
    let (image, map) = linked?;
    let layout = Layout::new(&image, &map, target);
    if let Some(path) = &options.layout {
        files::write(path, layout.to_json()?.as_bytes(), context)?;
    }
    if let Some(path) = &options.image {
        files::write(path, &image_bytes(&layout)?, context)?;
    }
    if options.layout.is_none() && (context.output.json || options.image.is_none()) {
        context.output.report(&layout)?;
    }
    Ok(Status::Fine)
}

/// Links with everything where the options say, otherwise at `base`.
fn link(options: &Options, inputs: &Inputs, base: u64) -> Result<(LoadedImage, LinkMap), Failure> {
    let placement = SectionPlacement::new(&inputs.names(), &options.sections)?;
    let mapped = placement.highest();
    let base = options.base.or(mapped.map(behind)).unwrap_or(base);
    let lowest = placement.lowest().map_or(base, |lowest| lowest.min(base));
    let is_fixed = options.base.is_some() || mapped.is_some();
    let memory = match mapped {
        Some(_) => FixedMemory::placed(base, placement),
        None => FixedMemory::at(base),
    };
    let memory = memory.or_low(if is_fixed { base } else { LOW_BASE });
    let relax = options.relax || !options.no_relax && mapped.is_none();
    let loader = Loader::builder().memory(Arc::new(memory)).relax(relax).build();

    let mut defined = AbsoluteSymbols::new();
    for Definition { name, address } in &options.definitions {
        defined.define(name, *address);
    }
    let below = lowest.checked_sub(PHONY_GAP).filter(|below| *below >= PHONY_GAP);
    let phony = PhonySymbols::below(below.unwrap_or(behind(base.max(mapped.unwrap_or(0)))));
    let objects: Vec<_> = inputs.objects.iter().map(Input::as_object).collect();
    let linked = match options.phony_externals {
        true => loader.load_all(&objects, &chain(defined, phony)),
        false => loader.load_all(&objects, &defined),
    };
    Ok(linked?)
}

/// The next megabyte but one behind an address: clear of a section of ordinary size that begins there.
fn behind(address: u64) -> u64 {
    const MEGABYTE: u64 = 1 << 20;
    address.saturating_add(2 * MEGABYTE) & !(MEGABYTE - 1)
}
