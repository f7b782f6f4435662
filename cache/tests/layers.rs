//! Layers: what they have is served and never changed, what is wrong with them costs a compilation. And traces:
//! what was used is written down, by whichever process.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use objcache_cache::{
    CacheAdmin, CompileOnce, LayerKind, ObjectCache, Offer, Outcome, PackMode, PackSelection, Reason, Store,
    StoreOptions, Trace,
};
use support::{entry_path, has, object, offer, place, signature, skip, store_at};

/// A layer with the entries 0..10 of 1000 bytes each: a directory and a pack, somewhere beside the store.
struct Place {
    _place: tempfile::TempDir,
    root: PathBuf,
    directory: PathBuf,
    pack: PathBuf,
}

impl Place {
    fn new() -> Self {
        let (place, root) = place();
        let (directory, pack) = (place.path().join("layer"), place.path().join("layer.pack"));
        let layer = store_at(&directory);
        (0..10).for_each(|number| offer(&layer, number, 1000).expect("taken"));
        layer.create_pack(&pack, &PackSelection::default(), PackMode::default(), &mut |_| ()).expect("packs");
        drop(layer);
        Self { _place: place, root, directory, pack }
    }

    fn over(&self, layers: &[&Path]) -> Store {
        Store::open(self.options(layers)).expect("opens")
    }

    fn options(&self, layers: &[&Path]) -> StoreOptions {
        let mut options = StoreOptions::at(&self.root);
        options.layers = layers.iter().map(|path| path.to_path_buf()).collect();
        options
    }

    fn both(&self) -> [&Path; 2] {
        [&self.directory, &self.pack]
    }

    fn own(&self) -> usize {
        store_at(&self.root).list().expect("lists").len()
    }
}

fn reasons(store: &Store) -> Vec<(Reason, u64)> {
    store.stats().expect("stats").reasons
}

/// Everything in and below a folder: names, contents, modes and times.
fn picture(path: &Path) -> Vec<(PathBuf, Vec<u8>, u32, std::time::SystemTime)> {
    let mut seen = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(at) = folders.pop() {
        let metadata = fs::metadata(&at).unwrap();
        let content = if metadata.is_dir() { Vec::new() } else { fs::read(&at).unwrap() };
        if metadata.is_dir() {
            folders.extend(fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()));
        }
        seen.push((at, content, metadata.permissions().mode(), metadata.modified().unwrap()));
    }
    seen.sort();
    seen
}

#[test]
fn a_hit_in_a_layer_is_a_hit_and_copies_nothing() {
    let place = Place::new();
    for layer in place.both() {
        let before = picture(layer);
        let store = place.over(&[layer]);
        for number in 0..10 {
            assert!(has(&store, number, 1000), "{number} in {}", layer.display());
        }
        assert!(!has(&store, 10, 1000));
        let stats = store.stats().expect("stats");
        assert_eq!((stats.hits, stats.puts, stats.entries), (10, 0, 0));
        assert_eq!((stats.saved_compile_time_us, stats.reasons.len()), (100_000, 0));
        store.clear().expect("clears");
        drop(store);
        assert!(picture(layer) == before, "somebody else owns it");
    }
}

#[test]
fn a_hit_can_be_promoted() {
    let place = Place::new();
    for layer in place.both() {
        let mut options = place.options(&[layer]);
        options.promote = true;
        let store = Store::open(options).expect("opens");
        assert!(has(&store, 3, 1000));
        drop(store);
        assert!(has(&place.over(&[]), 3, 1000), "without the layer");
        assert_eq!(place.own(), 1);
        let file = |root: &Path| fs::read(entry_path(root, 3)).unwrap();
        assert!(file(&place.root) == file(&place.directory));
        place.over(&[]).clear().expect("clears");
    }
}

#[test]
fn the_store_comes_first_then_the_layers_in_their_order() {
    let place = Place::new();
    let second = store_at(&place.root.with_extension("second"));
    offer(&second, 3, 300).expect("taken");
    offer(&second, 40, 400).expect("taken");
    let second = second.directory().expect("there").to_owned();
    let store = place.over(&[&place.pack, &second]);
    assert!(has(&store, 3, 1000) && has(&store, 40, 400));
    offer(&store, 3, 30).expect("taken");
    assert!(has(&store, 3, 30));
    assert!(has(&place.over(&[&second, &place.pack]), 3, 30));
    store.remove(&signature(3)).expect("removes");
    assert!(has(&place.over(&[&second, &place.pack]), 3, 300));
}

#[test]
fn a_damaged_entry_of_a_layer_is_a_miss_stays_there_and_is_found_once_compiled() {
    for which in 0..2 {
        let place = Place::new();
        let layer = place.both()[which];
        let victim = if which == 0 { entry_path(layer, 3) } else { layer.to_owned() };
        let mut bytes = fs::read(&victim).unwrap();
        let wanted = object(3, 1000);
        let at = bytes.windows(1000).position(|window| window == wanted).expect("as it is");
        bytes[at + 500] ^= 1;
        fs::write(&victim, &bytes).unwrap();
        let before = picture(layer);

        let store = place.over(&[layer]);
        assert!(!has(&store, 3, 1000));
        assert!(has(&store, 4, 1000), "the others are served");
        assert_eq!(reasons(&store), [(Reason::LayerDamaged, 1)]);
        let compile = || Ok::<_, std::io::Error>(Offer { object: wanted.clone(), ..Offer::default() });
        assert_eq!(store.get_or_compile(&signature(3), compile).expect("compiles").outcome, Outcome::Miss);
        assert!(has(&store, 3, 1000));
        assert_eq!(reasons(&store), [(Reason::LayerDamaged, 3)], "and not looked for in the layer again");
        assert!(picture(layer) == before);

        let mut options = place.options(&[layer]);
        options.directory = Some(place.root.with_extension("strict"));
        options.strict = true;
        let error = Store::open(options).expect("opens").get_object(&signature(3)).expect_err("strict");
        assert_eq!(error.reason(), Reason::LayerDamaged);
    }
}

#[test]
fn a_layer_that_cannot_be_used_is_left_out() {
    let place = Place::new();
    let [missing, text, writable] =
        ["missing", "text", "writable"].map(|name| place.root.with_extension(name));
    fs::write(&text, "hello").unwrap();
    fs::copy(&place.pack, &writable).unwrap();
    fs::set_permissions(&writable, fs::Permissions::from_mode(0o664)).unwrap();
    let no_store = place.root.parent().unwrap();
    let store = place.over(&[&missing, &text, &writable, no_store, &place.pack]);
    assert!(has(&store, 3, 1000) && has(&store, 4, 1000));
    assert_eq!(reasons(&store), [(Reason::LayerUnusable, 4)], "once each");
    let why: Vec<_> = store
        .layers()
        .expect("lists")
        .into_iter()
        .map(|layer| layer.kind.map_err(|it| it.reason()))
        .collect();
    let [missing, text, writable, no_store, pack] = &why[..] else { panic!("{why:?}") };
    assert_eq!((missing, text), (&Err(Reason::Io), &Err(Reason::PackDamaged)));
    assert_eq!((writable, no_store), (&Err(Reason::InsecureMode), &Err(Reason::NoDirectory)));
    assert!(matches!(pack, Ok(LayerKind::Pack(summary)) if summary.entries == 10));

    fs::set_permissions(&place.directory, fs::Permissions::from_mode(0o770)).unwrap();
    let mut options = place.options(&[&place.directory]);
    options.strict = true;
    let store = Store::open(options).expect("opens, however strict");
    let error = store.get_object(&signature(3)).expect_err("what should be there is not");
    assert_eq!(error.reason(), Reason::LayerUnusable);
    assert!(!has(&store, 3, 1000), "it is told once");
}

#[test]
fn layers_of_other_users_are_left_out_and_those_of_root_are_not() {
    use std::os::unix::fs::chown;
    let place = Place::new();
    if chown(&place.pack, Some(4242), None).is_err() {
        return skip("files can be given away by root only");
    }
    chown(&place.directory, Some(4242), None).unwrap();
    let store = place.over(&place.both());
    assert!(!has(&store, 3, 1000));
    assert_eq!(reasons(&store), [(Reason::LayerUnusable, 2)]);
    chown(&place.pack, Some(0), None).unwrap();
    assert!(has(&place.over(&place.both()), 3, 1000));
}

#[test]
fn layers_answer_where_there_is_no_store() {
    let place = Place::new();
    let mut options = place.options(&[&place.pack]);
    options.directory = None;
    let store = Store::open_or_degrade(options.clone());
    assert!(store.is_off() && has(&store, 3, 1000));
    options.disabled = true;
    assert!(!has(&Store::open_or_degrade(options), 3, 1000), "that was asked for");
}

#[test]
fn what_is_mounted_is_used_by_every_store_opened_there_until_unmounted() {
    let place = Place::new();
    let store = place.over(&[]);
    assert!(store.mount(&place.pack).expect("mounts"));
    assert!(!store.mount(&place.pack).expect("is"));
    assert!(store.mount(&place.directory).expect("mounts"));
    assert!(store.mount(&place.root.with_extension("none")).is_err());
    let mounted: Vec<_> =
        place.over(&[]).layers().expect("lists").into_iter().map(|it| (it.path, it.mounted)).collect();
    let canonical = |path: &Path| (path.canonicalize().unwrap(), true);
    assert_eq!(mounted, [canonical(&place.pack), canonical(&place.directory)]);
    assert!(has(&place.over(&[]), 3, 1000));

    fs::remove_file(&place.pack).unwrap();
    assert!(has(&place.over(&[]), 3, 1000), "from the directory");
    assert!(store.unmount(&place.pack).expect("unmounts, though it is gone"));
    assert!(store.unmount(&place.directory).expect("unmounts"));
    assert!(!store.unmount(&place.directory).expect("is not"));
    assert!(!has(&place.over(&[]), 3, 1000));
    assert_eq!(store.layers().expect("lists").len(), 0);
}

#[test]
fn looking_sees_layers_and_listing_does_not() {
    let place = Place::new();
    let store = place.over(&[&place.pack]);
    assert_eq!(*store.peek(&signature(3)).expect("reads").expect("there"), *object(3, 1000));
    assert_eq!(store.record(&signature(3)).expect("reads").expect("there").key_document, b"key of 3");
    assert!(store.list().expect("lists").is_empty() && store.stat(&signature(3)).expect("looks").is_none());
    let told = store.stat_in_layers(&signature(3)).expect("there");
    assert_eq!((told.object_bytes, told.hits, told.disk_bytes), (1000, 0, 0));
    assert!(store.stat_in_layers(&signature(99)).is_none() && !store.holds(&signature(3)).expect("looks"));
    let whole = signature(3).to_string();
    assert_eq!(store.resolve_prefix(&whole).expect("resolves"), [signature(3)]);
    assert_eq!(store.resolve_prefix(&whole[..20]).expect("resolves"), []);
    assert!(!store.remove(&signature(3)).expect("nothing of ours"));
    assert!(has(&store, 3, 1000));
}

fn traced(store: &Store) -> Vec<u32> {
    let trace = store.trace().expect("reads").expect("there is one").trace;
    (0..100).filter(|number| trace.signatures.contains(&signature(*number))).collect()
}

#[test]
fn a_trace_has_what_was_put_or_hit_while_it_was_on_by_anybody() {
    let place = Place::new();
    let (early, admin) = (place.over(&[]), place.over(&[]));
    offer(&early, 50, 100).expect("taken");
    assert_eq!(admin.trace().expect("reads"), None);
    assert!(admin.start_trace().expect("starts"));
    assert!(!admin.start_trace().expect("is on"));
    let later = place.over(&[&place.pack]);
    assert!(has(&later, 3, 1000) && has(&later, 3, 1000) && !has(&later, 77, 0));
    assert_eq!(traced(&admin), [3], "at once, in case the process is killed");
    assert!(has(&later, 50, 100));
    offer(&later, 51, 100).expect("taken");
    offer(&early, 52, 100).expect("taken");
    assert!(has(&early, 51, 100));
    assert_eq!(traced(&admin), [3, 50, 51, 52]);
    assert!(admin.trace().expect("reads").expect("there").running);

    assert!(admin.stop_trace().expect("stops"));
    assert!(!admin.stop_trace().expect("is off"));
    offer(&early, 60, 100).expect("taken");
    assert!(has(&place.over(&[]), 52, 100));
    assert!(!admin.trace().expect("reads").expect("still there").running);
    assert_eq!(traced(&admin), [3, 50, 51, 52]);
    assert!(admin.start_trace().expect("starts afresh"));
    assert_eq!(traced(&admin), []);
}

#[test]
fn hits_of_a_process_that_was_there_before_are_traced_when_it_ends() {
    let place = Place::new();
    let store = place.over(&[]);
    (0..3).for_each(|number| offer(&store, number, 100).expect("taken"));
    let early = place.over(&[]);
    store.start_trace().expect("starts");
    assert!(has(&early, 1, 100));
    drop(early);
    assert_eq!(traced(&store), [1]);
}

#[test]
fn one_tree_of_processes_can_be_traced_into_a_file() {
    let place = Place::new();
    let file = place.root.with_extension("trace");
    let mut options = place.options(&[&place.pack]);
    options.trace = Some(file.clone());
    let store = Store::open(options.clone()).expect("opens");
    assert!(has(&store, 3, 1000));
    offer(&store, 50, 100).expect("taken");
    // One that was killed amid a line.
    let mut text = fs::read(&file).unwrap();
    text.extend_from_slice(b"0123");
    fs::write(&file, text).unwrap();
    let other = Store::open(options).expect("opens");
    assert!(has(&other, 3, 1000) && has(&other, 4, 1000));
    let mut expected = [3, 4, 50].map(signature);
    expected.sort();
    assert_eq!(Trace::read(&file).expect("reads").signatures, expected);
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 4, "nothing twice");

    let out = place.root.with_extension("pack");
    let selection = PackSelection { signatures: Some(&expected), filter: None };
    let report = other.create_pack(&out, &selection, PackMode::default(), &mut |_| ()).expect("packs");
    assert_eq!((report.packed, report.missing.len()), (3, 0), "of the layer as well");
}

#[test]
fn a_trace_that_cannot_be_written_stops_with_a_warning() {
    let place = Place::new();
    let mut options = place.options(&[&place.pack]);
    options.trace = Some(place.root.with_extension("nowhere").join("trace"));
    let store = Store::open(options).expect("opens");
    assert!(has(&store, 3, 1000));
    assert_eq!(reasons(&store), [(Reason::TraceStopped, 1)]);

    // A full one: its limit is a part of the store's.
    let mut options = place.options(&[]);
    options.max_size = 4 << 20;
    let store = Store::open(options.clone()).expect("opens");
    store.start_trace().expect("starts");
    fs::write(place.root.join("trace"), vec![b'\n'; (4 << 20) / 16 - 65]).unwrap();
    let store = Store::open(options).expect("opens");
    (1..4).for_each(|number| offer(&store, number, 100).expect("taken"));
    assert_eq!(traced(&store), [1]);
    assert_eq!(reasons(&store), [(Reason::TraceStopped, 2)], "one of them from before");
}
