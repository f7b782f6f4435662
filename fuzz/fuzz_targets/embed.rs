//! Any bytes as an object that a record is put into and read back from.

#![no_main]

use libfuzzer_sys::fuzz_target;
use objcache_signature::{
    CompileInputs, CompilerIdentity, Ir, IrKind, KeyDocument, Provenance, Record, Target, embed,
    is_untouched, read_record,
};

fuzz_target!(|object: &[u8]| {
    let _ = read_record(object);
    let _ = is_untouched(object);
    let ir = Ir::new(IrKind::Clif, b"function".to_vec());
    let inputs = CompileInputs::new(ir, Target::new("x86_64", "cpu"), CompilerIdentity::new("c", "1"));
    let key_document = KeyDocument::of(&inputs).expect("inputs without a fault");
    let record = Record { key_document, provenance: Provenance::default() };
    if let Ok(embedded) = embed(object, &record) {
        assert!(read_record(&embedded).as_ref() == Ok(&record), "what was embedded is read back");
        assert!(is_untouched(&embedded) == Ok(true));
        // Doing it again replaces the record. An object whose sections overlap may be past that, and says so.
        if let Ok(again) = embed(&embedded, &record) {
            assert!(read_record(&again).as_ref() == Ok(&record));
        }
    }
});
