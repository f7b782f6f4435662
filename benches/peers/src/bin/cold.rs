//! One process of the case `cold`: gets an object, loads it, calls it, ends.
//!
//! `cold WAY OBJECT SHARED`; the object is the renamable kernel.

use std::ffi::CString;
use std::path::Path;
use std::time::Duration;

use objcache_cache::{CompiledObject, ObjectCache, Store, StoreOptions};
use objcache_loader::{Loader, ProcessSymbols};
use objcache_peers::foreign::call_kernel;
use objcache_peers::peers::{self, Code, Plugins};
use objcache_peers::workloads::RENAMED;
use objcache_signature::{Provenance, Signature};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [way, object, shared] = &arguments[..] else { panic!("cold WAY OBJECT SHARED") };
    match way.as_str() {
        "nothing" => {}
        "objcache" => load(&std::fs::read(object).expect("the object")),
        "hit" => load(&store().get_object(&signature()).expect("the store answers").expect("a hit")),
        "fill" => fill(&std::fs::read(object).expect("the object")),
        peer => with_peer(peer, object, shared),
    }
}

/// Of the numbers that [`call_kernel`] gives the [renamable](objcache_peers::workloads::Workloads::renamable) kernel.
const WHAT_IT_COMPUTES: f32 = 3.0 + 7.5;

fn load(object: &[u8]) {
    let image = Loader::new().load(object, &ProcessSymbols).expect("it loads");
    let address = image.address(RENAMED).expect("the kernel");
    assert_eq!(call_kernel(address as usize), WHAT_IT_COMPUTES);
}

fn store() -> Store {
    Store::open(StoreOptions::from_environment()).expect("the store opens")
}

fn signature() -> Signature {
    Signature::from_bytes([7; 32])
}

fn fill(object: &[u8]) {
    let compiled = CompiledObject {
        signature: signature(),
        object,
        key_document: &[7; 900],
        provenance: &Provenance::default(),
        namespace: "",
        compile_time: Duration::from_millis(20),
        cpu_features: &[],
    };
    store().notify_object_compiled(&compiled).expect("the store takes it");
}

fn with_peer(peer: &str, object: &str, shared: &str) {
    let program = std::env::current_exe().expect("a path");
    let plugins = Plugins { folder: program.parent().unwrap_or(Path::new(".")), others: &[] };
    let code = Code {
        object: std::fs::read(object).expect("the object"),
        shared: CString::new(shared).expect("no NUL"),
    };
    let peer = peers::find(&plugins, peer).expect("a peer of that name");
    let name = CString::new(RENAMED).expect("no NUL");
    let loaded = peer.load(&code, &name).expect("it loads");
    assert_eq!(call_kernel(loaded.address), WHAT_IT_COMPUTES);
}
