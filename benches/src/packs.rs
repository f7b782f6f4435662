//! Packs: what a look-up costs, and how fast they are made, checked and taken in.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use objcache::cache::{CompiledObject, ObjectCache, Pack, PackMode, PackSelection, Store, StoreOptions};
use objcache::signature::{Provenance, Signature};
use rustix::time::{ClockId, clock_gettime};

use crate::measure::{Contender, KEY_DOCUMENT, compare};

const OBJECTS: u64 = 10_000;

pub(crate) fn bench() {
    let folder = tempfile::tempdir().expect("a folder for stores and packs");
    let path = folder.path().join("objects.pack");
    let store = open(&folder.path().join("store"), &[]);
    let payload: u64 = (0..OBJECTS).map(|index| offer(&store, index, &object(index))).sum();
    println!("\n{OBJECTS} objects of 1 KB to 2 MB, half below 12 KB, {} MB in all", payload >> 20);
    for _ in 0..2 {
        rate("pack create, 400 MB/s wanted", payload, || {
            let chosen = PackSelection::default();
            // To compress them would measure the codec.
            let mode = PackMode { compression: None, ..PackMode::default() };
            store.create_pack(&path, &chosen, mode, &mut |_| ()).expect("packs")
        });
    }
    let pack = Pack::open(&path).expect("opens");
    rate("pack verify", payload, || pack.verify(&mut |_| ()).expect("verifies"));
    rate("  a read of the file, and BLAKE3", payload, || blake3::hash(&fs::read(&path).expect("a file")));
    rate("pack import", payload, || {
        let other = open(&folder.path().join("other"), &[]);
        other.import_pack(&pack, false, &mut |_| ()).expect("imports")
    });
    rate("  plain files of the same sizes, written", payload, || plain_files(&folder.path().join("plain")));
    println!("  pack ÷ payload {:.4}", pack.summary().bytes as f64 / payload as f64);
    look_ups(folder.path(), &store, &path);
    compressed(folder.path());
}

/// As packs are made by default, of what compresses as code does: pieces of this program.
fn compressed(folder: &Path) {
    let program = fs::read("/proc/self/exe").expect("this program");
    let piece = |index: u64| {
        let from = index as usize * 7_919_003 % (program.len() / 2);
        &program[from..(from + length(index)).min(program.len())]
    };
    let (path, store) = (folder.join("compressed.pack"), open(&folder.join("code"), &[]));
    let payload: u64 = (0..OBJECTS / 4).map(|index| offer(&store, index, piece(index))).sum();
    println!("\n{} pieces of a program, {} MB in all", OBJECTS / 4, payload >> 20);
    let pack = || {
        let chosen = PackSelection::default();
        store.create_pack(&path, &chosen, PackMode::default(), &mut |_| ()).expect("packs")
    };
    rate("pack create, Zstandard", payload, pack);
    rate("pack create, Zstandard", payload, pack);
    let pack = Pack::open(&path).expect("opens");
    rate("pack verify", payload, || pack.verify(&mut |_| ()).expect("verifies"));
    rate("pack import", payload, || {
        let other = open(&folder.join("other code"), &[]);
        other.import_pack(&pack, false, &mut |_| ()).expect("imports")
    });
    println!("  pack ÷ payload {:.4}", pack.summary().bytes as f64 / payload as f64);
}

fn look_ups(folder: &Path, store: &Store, path: &Path) {
    // Small ones, of about 12 KB.
    let wanted: Vec<Signature> =
        (0..OBJECTS).filter(|index| (10_000..14_000).contains(&length(*index))).map(signature).collect();
    let layered = open(&folder.join("layered"), &[path]);
    let directory = open(&folder.join("over a directory"), &[&folder.join("store")]);
    let hit = |store: &Store, index: usize| store.get_object(&wanted[index % wanted.len()]).expect("answers");
    compare(
        "hit of about 12 KB",
        None,
        50,
        vec![
            Contender::new("objcache: in a pack, as a layer", |index| hit(&layered, index)),
            Contender::new("in a directory, as a layer", |index| hit(&directory, index)),
            Contender::new("in the store itself", |index| hit(store, index)),
        ],
    );
    let absent = |index: usize| Signature::from_bytes(*blake3::hash(&[index as u8, 1]).as_bytes());
    compare(
        "miss",
        None,
        200,
        vec![
            Contender::new("objcache: over a pack", |index| layered.get_object(&absent(index))),
            Contender::new("over a directory", |index| directory.get_object(&absent(index))),
            Contender::new("of the store alone", |index| store.get_object(&absent(index))),
        ],
    );
    compare(
        "a pack opened, and its first hit",
        Some(Duration::from_micros(30)),
        20,
        vec![Contender::new("objcache", |index| {
            Pack::open(path).and_then(|pack| pack.get(&wanted[index % wanted.len()])).expect("sound")
        })],
    );
}

/// By the clock, and by the CPU time of all threads: on a machine that is busy the first tells little.
fn rate<T>(name: &str, bytes: u64, work: impl FnOnce() -> T) {
    let (started, spent) = (Instant::now(), process_time());
    let done = work();
    let (time, spent) = (started.elapsed(), process_time() - spent);
    drop(done);
    let rate = |time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
    println!("  {name:<52} {:>6.0} MB/s, {:>6.0} by CPU time", rate(time), rate(spent));
}

fn process_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn open(directory: &Path, layers: &[&Path]) -> Store {
    let mut options = StoreOptions::at(directory);
    options.layers = layers.iter().map(|path| path.to_path_buf()).collect();
    Store::open(options).expect("opens")
}

fn signature(index: u64) -> Signature {
    Signature::from_bytes(blake3::hash(&index.to_le_bytes()).into())
}

/// Half below 12 KB, and ever fewer up to 2 MB.
fn length(index: u64) -> usize {
    let random = f64::from(u32::from_le_bytes(signature(index).as_bytes()[..4].try_into().expect("four")));
    let quantile = (random / f64::from(u32::MAX) - 0.5) * 2.0;
    let octaves = if quantile < 0.0 { quantile * 3.58 } else { quantile.powi(2) * 7.38 };
    (12_288.0 * octaves.exp2()) as usize
}

fn object(index: u64) -> Vec<u8> {
    let mut bytes = vec![0; length(index)];
    blake3::Hasher::new().update(&index.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn offer(store: &Store, index: u64, object: &[u8]) -> u64 {
    let offered = CompiledObject {
        signature: signature(index),
        object,
        key_document: KEY_DOCUMENT,
        provenance: &Provenance::default(),
        namespace: "",
        compile_time: Duration::from_millis(20),
        cpu_features: &[],
    };
    store.notify_object_compiled(&offered).expect("the store takes it");
    object.len() as u64
}

fn plain_files(folder: &Path) {
    let bytes = vec![7; 2 << 20];
    (0..256).for_each(|fan| fs::create_dir_all(folder.join(format!("{fan:02x}"))).expect("a folder"));
    for index in 0..OBJECTS {
        let name = signature(index).to_string();
        let path = folder.join(&name[..2]).join(&name[2..]);
        fs::write(path, &bytes[..length(index).min(bytes.len())]).expect("written");
    }
}
