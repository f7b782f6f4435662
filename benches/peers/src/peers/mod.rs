//! The loaders that are compared. All do the same work: from the object's bytes in memory, which were just read, to an
//! address that can be called, unwind tables registered. The floors do less, and are called so.

mod dlopen;
mod floors;
mod orc;
mod plugin;

use std::ffi::{CStr, CString};
use std::path::Path;

/// One way to get code into memory.
pub trait Peer: Sync {
    fn name(&self) -> &str;

    /// Does what the next `loads` loads need and is no part of them.
    fn prepare(&self, _loads: usize) {}

    /// Loads the code and finds a symbol of it; `None` after saying why not.
    fn load(&self, code: &Code, symbol: &CStr) -> Option<Loaded>;

    fn unload(&self, loaded: Loaded);

    /// A further symbol.
    fn lookup(&self, loaded: &Loaded, symbol: &CStr) -> Option<usize>;

    fn has_lookup(&self) -> bool {
        true
    }

    /// The code can be called. Floors are only in memory.
    fn runs(&self) -> bool {
        true
    }

    /// Threads may load at once.
    fn is_for_threads(&self) -> bool {
        self.runs()
    }
}

/// Code that was loaded: what was asked for, and what the peer knows it by.
#[derive(Clone, Copy)]
pub struct Loaded {
    pub address: usize,
    pub handle: usize,
}

/// The same code in the forms that peers take.
pub struct Code {
    pub object: Vec<u8>,
    /// Linked with `-Bsymbolic -z now`, ready for `dlopen`.
    pub shared: CString,
}

impl Code {
    /// Reads all of the object, as a cache does that just checked its digest: it is as warm for one peer as for another.
    pub fn touch(&self) {
        let sum: u8 = self.object.iter().step_by(64).fold(0, |sum, byte| sum.wrapping_add(*byte));
        std::hint::black_box(sum);
    }
}

/// What a run compares, and with what.
pub struct Plugins<'a> {
    /// The folder with the plugins that `run` built.
    pub folder: &'a Path,
    /// Further builds of objcache, with names for them.
    pub others: &'a [(String, String)],
}

/// All peers, ours first.
pub fn all(plugins: &Plugins<'_>) -> Vec<Box<dyn Peer>> {
    let mut peers = plugin::peers(&plugins.folder.join("libobjcache_peer.so"), None);
    for (name, path) in plugins.others {
        peers.extend(plugin::peers(Path::new(path), Some(name)));
    }
    peers.push(Box::new(dlopen::Dlopen));
    peers.push(Box::new(floors::Pages));
    peers.push(Box::new(floors::Slab::new()));
    peers.extend(orc::Llvm::open(c"libLLVM.so.22.1").into_iter().flat_map(|llvm| {
        let [jitlink, rtdyld] = [false, true].map(|rtdyld| orc::LlJit::new(llvm, "LLVM 22", rtdyld));
        [Box::new(jitlink) as Box<dyn Peer>, Box::new(rtdyld)]
    }));
    peers.extend(plugin::peers(&plugins.folder.join("libllvm22.so"), None));
    let llvm19 = orc::Llvm::open(c"libLLVM.so.19.1");
    peers.extend(llvm19.map(|llvm| Box::new(orc::LlJit::new(llvm, "LLVM 19", false)) as Box<dyn Peer>));
    peers
}

/// The first peer whose name begins so, without opening the libraries of others.
pub fn find(plugins: &Plugins<'_>, name: &str) -> Option<Box<dyn Peer>> {
    let begins = |peer: &dyn Peer| peer.name().starts_with(name);
    if begins(&dlopen::Dlopen) {
        return Some(Box::new(dlopen::Dlopen));
    }
    if name.starts_with("LLVM 22 LLJIT") {
        return Some(Box::new(orc::LlJit::new(orc::Llvm::open(c"libLLVM.so.22.1")?, "LLVM 22", false)));
    }
    plugin::peers(&plugins.folder.join("libllvm22.so"), None).into_iter().find(|peer| begins(&**peer))
}
