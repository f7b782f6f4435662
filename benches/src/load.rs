//! From an object's bytes to a callable address, against `dlopen` of the same code and the system's floor.

use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use objcache::loader::{LoadedImage, Loader, PageMemory, ProcessSymbols};

use crate::c_code::{self, Built};
use crate::measure::{Contender, compare};
use crate::native::{Pages, Shared, c_string, call_entry};

pub(crate) fn bench() {
    let folder = tempfile::tempdir().expect("a folder for the workloads");
    let workloads = [
        ("a tiny object", "tiny", c_code::TINY.to_owned(), 200, Duration::from_nanos(800)),
        ("420 functions", "medium", c_code::program(420), 10, Duration::from_micros(40)),
    ];
    for (title, name, source, batch, goal) in workloads {
        if let Some(built) = c_code::build(folder.path(), name, &source) {
            let copies = copies(&built, batch, folder.path());
            against_peers(title, &built, goal, &copies);
            if name == "medium" {
                to_the_first_results(title, &built, &copies);
            }
        }
    }
    many_sections(folder.path());
}

/// The ratios are the slope: four times the sections should take four times as long.
fn many_sections(folder: &Path) {
    let loader = Loader::new();
    let objects = [1_000, 4_000, 16_000].map(|count| {
        let source = c_code::sections(count);
        c_code::assemble(folder, &format!("sections{count}"), &source).map(|object| (count, object))
    });
    let contenders: Vec<_> = objects
        .iter()
        .flatten()
        .map(|(count, object)| Contender::new(format!("{count} sections"), |_| load(&loader, object)))
        .collect();
    if contenders.len() == objects.len() {
        let goal = Some(Duration::from_micros(200));
        compare("load of an object with a section for each function", goal, 3, contenders);
    }
}

/// dlopen of one path gives one image, however often; each image of a batch gets a file of its own.
fn copies(built: &Built, batch: usize, folder: &Path) -> Vec<CString> {
    let copy = |index| {
        let copy = folder.join(format!("copy{index}.so"));
        fs::copy(&built.shared, &copy).expect("a copy");
        c_string(&copy)
    };
    (0..batch).map(copy).collect()
}

/// dlopen maps, and reads what is called only when it is called: so also up to the results of some calls.
fn to_the_first_results(title: &str, built: &Built, shared: &[CString]) {
    let (loader, entry) = (Loader::new(), c"entry".to_owned());
    let use_it = |address| (0..8).map(|argument| call_entry(address, argument * 77)).sum::<i64>();
    compare(
        &format!("load of {title}, and eight calls into it"),
        None,
        shared.len(),
        vec![
            Contender::new("objcache: SlabMemory", |_| {
                let image = load(&loader, &built.object);
                let address = image.address("entry").expect("checked");
                (use_it(address as usize), image)
            }),
            Contender::new("dlopen of the linked code, -Bsymbolic -z now", |index| {
                let (opened, address) = Shared::open(&shared[index], &entry);
                (use_it(address), opened)
            }),
        ],
    );
}

fn against_peers(title: &str, built: &Built, goal: Duration, shared: &[CString]) {
    let batch = shared.len();
    let entry = c"entry".to_owned();
    let slab = Loader::new();
    let pages = Loader::builder().memory(Arc::new(PageMemory::new())).build();
    let (object, mut area) = (&built.object, vec![0; built.object.len()]);
    compare(
        &format!("load of {title}: {} bytes to a callable address, {batch} alive at once", object.len()),
        Some(goal),
        batch,
        vec![
            Contender::new("objcache: SlabMemory", |_| load(&slab, object)),
            Contender::new("objcache: PageMemory", |_| load(&pages, object)),
            Contender::new("dlopen of the linked code, -Bsymbolic -z now", |index| {
                Shared::open(&shared[index], &entry)
            }),
            Contender::new("mmap, memcpy, mprotect", |_| Pages::with(object)),
            Contender::new("memcpy", |_| area.copy_from_slice(object)),
        ],
    );
}

fn load(loader: &Loader, object: &[u8]) -> LoadedImage {
    let image = loader.load(object, &ProcessSymbols).expect("the object loads");
    assert!(image.address("entry").is_some());
    image
}
