//! A whole hit: from the inputs over the signature and the verified entry to a callable address.

use std::time::Duration;

use objcache::cache::{CompileOnce, Offer, Outcome, Store, StoreOptions};
use objcache::loader::{LoadedImage, Loader, ProcessSymbols};
use objcache::signature::{CompileInputs, Signature};

use crate::c_code;
use crate::measure::{Contender, compare};
use crate::signature::inputs;

pub(crate) fn bench() {
    let folder = tempfile::tempdir().expect("a folder for the store");
    let source = c_code::program(300);
    let Some(built) = c_code::build(folder.path(), "whole", &source) else { return };
    let store = Store::open(StoreOptions::at(folder.path().join("store"))).expect("the store opens");
    let (loader, inputs) = (Loader::new(), inputs(source.into_bytes()));
    obtain(&store, &loader, &inputs, &built.object);
    compare(
        &format!("whole hit of 300 functions, {} bytes: key, verified entry, callable", built.object.len()),
        Some(Duration::from_micros(100)),
        10,
        vec![
            Contender::new("objcache: sign, fetch, load", |_| {
                obtain(&store, &loader, &inputs, &built.object)
            }),
            Contender::new("of which: sign", |_| Signature::of(&inputs)),
            Contender::new("of which: load", |_| loader.load(&built.object, &ProcessSymbols)),
        ],
    );
}

/// The first call fills the store; from then on the object must come out of it.
fn obtain(store: &Store, loader: &Loader, inputs: &CompileInputs, object: &[u8]) -> (LoadedImage, Outcome) {
    let signature = Signature::of(inputs).expect("the inputs are decided");
    let offer = || Ok::<_, std::convert::Infallible>(Offer { object: object.to_vec(), ..Offer::default() });
    let fetched = store.get_or_compile(&signature, offer).expect("an object");
    (loader.load(&fetched.object, &ProcessSymbols).expect("the object loads"), fetched.outcome)
}
