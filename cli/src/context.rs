//! What every command is given: where to say things, and which cache is meant.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use objcache::cache::{CacheAdmin, EntryInfo, HostFeatures, Store, StoreOptions, Untold};
use objcache::signature::Signature;

use crate::args::GlobalOptions;
use crate::failure::Failure;
use crate::output::Output;
use crate::units;

pub(crate) struct Context {
    pub(crate) output: Output,
    directory: Option<PathBuf>,
    untold: RefCell<Vec<Untold>>,
}

impl Context {
    pub(crate) fn new(options: &GlobalOptions) -> Self {
        Self { output: Output::new(options), directory: options.dir.clone(), untold: RefCell::default() }
    }

    /// The directory that the command line names.
    pub(crate) fn directory_option(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    pub(crate) fn store_options(&self) -> StoreOptions {
        let mut options = StoreOptions::from_environment();
        if let Some(directory) = &self.directory {
            options.directory = Some(directory.clone());
        }
        options
    }

    /// Whether all trouble with the cache is to be an error.
    pub(crate) fn is_strict(&self) -> bool {
        self.store_options().strict
    }

    /// The cache for work that goes on without it when it cannot be used. What comes out of it is for a host
    /// with these features.
    pub(crate) fn cache(&self, host: HostFeatures) -> Store {
        let mut options = self.store_options();
        options.host_features = host;
        self.watched(Store::open_or_degrade(options))
    }

    /// The cache for commands that are about the cache. They fail when it cannot be used; that others do
    /// without it (`OBJCACHE_DISABLE`) is no reason not to look into it.
    pub(crate) fn store(&self) -> Result<Store, Failure> {
        let mut options = self.store_options();
        options.disabled = false;
        options.own_errors = true;
        // Nothing of it runs here.
        options.host_features = HostFeatures::unknown();
        Ok(self.watched(Store::open(options)?))
    }

    fn watched(&self, store: Store) -> Store {
        self.untold.borrow_mut().push(store.untold());
        store
    }

    /// What went wrong with the caches of this command, where that is to be an error (`OBJCACHE_STRICT`), and no call
    /// has returned. Asked again once they are closed.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let error = self.untold.borrow().iter().find_map(Untold::take);
        error.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// The signature that begins with `prefix`.
pub(crate) fn find(store: &Store, prefix: &str) -> Result<Signature, Failure> {
    if prefix.is_empty() || !prefix.chars().all(|c| c.is_ascii_hexdigit()) || prefix.len() > 64 {
        let message =
            format!("`{prefix}` is not the beginning of a signature: 64 hexadecimal digits are one");
        return Err(Failure::usage("bad_signature", message));
    }
    let found = store.resolve_prefix(prefix)?;
    match found[..] {
        [signature] => Ok(signature),
        [] => Err(Failure::finding("unknown_signature", format!("the cache has no entry `{prefix}`"))),
        _ => {
            const SHOWN: usize = 5;
            let shown: Vec<_> = found.iter().take(SHOWN).map(Signature::to_string).collect();
            let more = if found.len() > SHOWN { " …" } else { "" };
            let message = format!("`{prefix}` is ambiguous: {} entries begin with it", found.len());
            Err(Failure::finding("ambiguous_signature", message).hint(format!("{}{more}", shown.join(" "))))
        }
    }
}

/// What is known of an entry, and whether only a layer has it; `None` when it is gone.
pub(crate) fn known(store: &Store, signature: &Signature) -> Result<Option<(EntryInfo, bool)>, Failure> {
    let own = store.stat(signature)?.map(|entry| (entry, false));
    Ok(own.or_else(|| store.stat_in_layers(signature).map(|entry| (entry, true))))
}

/// The same as [`find`], of an entry that is to be changed: what only a layer has is not.
pub(crate) fn find_own(store: &Store, prefix: &str) -> Result<Signature, Failure> {
    let signature = find(store, prefix)?;
    if store.holds(&signature)? {
        return Ok(signature);
    }
    let message = format!("the cache itself has no entry {signature}: it is in a pack or another layer");
    let failure = Failure::finding("unknown_signature", message);
    Err(failure.hint("layers are only read; `objcache pack layers` lists them"))
}

/// The first digits of a signature: enough for people to tell entries apart.
pub(crate) fn short(signature: &Signature) -> String {
    let mut digits = signature.to_string();
    digits.truncate(12);
    digits
}

/// Offers are declined in silence, as whoever compiles wants it. For who asked for them, this is why.
pub(crate) fn why_not_kept(store: &Store, object: &[u8], compile_time: Option<Duration>) -> String {
    let options = store.options();
    if let Some(reason) = store.degraded() {
        return format!("the cache takes nothing in: {reason}");
    }
    if !options.trust.vouches() {
        return "entries need a signature, and there is no key to sign it with (signing_key)".to_owned();
    }
    if let Some(most) = options.max_object_size.filter(|most| object.len() as u64 > *most) {
        return format!("its object is larger than max_object_size, {}", units::size(most));
    }
    let least = options.min_compile_time;
    if compile_time.is_some_and(|took| took < least) {
        return format!("it compiles in less than min_compile_ms, {}", units::duration(least));
    }
    match options.max_entries {
        Some(0) => "the cache may have no entries: max_entries is 0".to_owned(),
        _ => "the cache has no room for it, or cannot write it".to_owned(),
    }
}
