//! Any change of one field changes the signature, and the change is named.

mod common;

use std::collections::BTreeSet;

use common::{full, minimal};
use objcache_signature::*;
use proptest::prelude::*;

type Change = fn(&mut CompileInputs, String);

/// One change per ingredient: what it does to a field, and the ingredient that must be named.
const CHANGES: &[(&str, Change)] = &[
    ("namespace", |i, text| i.namespace.push_str(&text)),
    ("salt", |i, text| i.salt.extend(text.bytes())),
    ("object_format", |i, _| i.object_format = ObjectFormat::Coff),
    ("ir_kind", |i, _| i.ir.kind = IrKind::LlvmText),
    ("ir_digest", |i, _| i.ir.bytes[0] ^= 1),
    ("linked", |i, name| i.linked.push(LinkedInput { name, digest: Digest::of(b"x") })),
    ("target_triple", |i, text| i.target.triple.push_str(&text)),
    ("data_layout", |i, text| i.target.data_layout.get_or_insert_default().push_str(&text)),
    ("code_model", |i, _| i.target.code_model = Some(CodeModel::Large)),
    ("relocation_model", |i, _| i.target.relocation_model = Some(RelocationModel::Static)),
    ("tls_model", |i, _| i.target.tls_model = Some(TlsModel::LocalExec)),
    ("cpu", |i, text| i.target.cpu.push_str(&text)),
    ("cpu_features", |i, text| {
        i.target.features.insert(format!("+new-{text}"));
    }),
    ("tune_cpu", |i, text| i.target.tune_cpu.get_or_insert_default().push_str(&text)),
    ("tuning_features", |i, text| {
        i.target.tuning.insert(format!("+new-{text}"));
    }),
    ("optimization", |i, _| i.optimization = OptLevel::Oz),
    ("pass_pipeline", |i, text| i.pass_pipeline.get_or_insert_default().push_str(&text)),
    ("flags", |i, text| i.flags.push(text)),
    ("compiler_name", |i, text| i.compiler.name.push_str(&text)),
    ("compiler_version", |i, text| i.compiler.version.push_str(&text)),
    ("compiler_components.new", |i, text| {
        i.compiler.components.insert("new".to_owned(), Component::ProbeFailed(text));
    }),
    ("environment.NEW", |i, text| {
        i.environment.insert("NEW".to_owned(), Some(text.into_bytes()));
    }),
    ("external_inputs.new", |i, text| {
        i.external_inputs.insert("new".to_owned(), Digest::of(text.as_bytes()));
    }),
    ("specialization.NEW", |i, text| {
        i.specialization.insert("NEW".to_owned(), text.into_bytes());
    }),
    ("extension_label", |i, text| extension(i).label.push_str(&text)),
    ("extension", |i, text| extension(i).bytes.extend(text.bytes())),
];

fn extension(inputs: &mut CompileInputs) -> &mut Extension {
    inputs.extension.get_or_insert_with(|| Extension { label: "l".to_owned(), bytes: Vec::new() })
}

/// A field added to [`CompileInputs`] brings an ingredient; it wants a line above.
#[test]
fn every_ingredient_has_a_change() {
    let covered: BTreeSet<&str> = CHANGES.iter().map(|(name, _)| name.split('.').next().unwrap()).collect();
    let document = KeyDocument::of(&full()).unwrap();
    let derived = ["schema", "artifact", "ir_length"]; // One value only, or decided by another.
    for ingredient in document.ingredients() {
        assert!(
            covered.contains(&*ingredient.name) || derived.contains(&&*ingredient.name),
            "{}",
            ingredient.name
        );
    }
}

proptest! {
    #[test]
    fn a_change_of_one_field_changes_the_signature_and_is_named(
        which in 0..CHANGES.len(), text in "[a-zA-Z0-9_. =:/-]{1,24}", from_full: bool,
    ) {
        prop_assume!(!text.to_ascii_lowercase().contains("native"));
        let before = if from_full { full() } else { minimal() };
        let mut after = before.clone();
        let (name, change) = CHANGES[which];
        change(&mut after, text);
        prop_assert_ne!(Signature::of(&before).unwrap(), Signature::of(&after).unwrap());
        let (before, after) = (KeyDocument::of(&before).unwrap(), KeyDocument::of(&after).unwrap());
        let named: Vec<_> = before.differences(&after).into_iter().map(|d| d.ingredient).collect();
        prop_assert!(named.iter().any(|n| n == name), "{name} not in {named:?}");
        // Setting an extension for the first time sets its label and its bytes.
        prop_assert!(named.len() == 1 || name.starts_with("extension"), "{named:?}");
    }

    #[test]
    fn a_boundary_that_moves_changes_the_signature(a in "[a-z]{1,8}", b in "[a-z]{1,8}", cut in 1usize..8) {
        let joined = format!("{a}{b}");
        let cut = cut.min(joined.len());
        prop_assume!(cut != a.len());
        let (c, d) = joined.split_at(cut);
        let with = |first: &str, second: &str, set: fn(&mut CompileInputs, String, String)| {
            let mut inputs = full();
            set(&mut inputs, first.to_owned(), second.to_owned());
            Signature::of(&inputs).unwrap()
        };
        let pairs: [fn(&mut CompileInputs, String, String); 5] = [
            |i, x, y| i.flags = vec![x, y],
            |i, x, y| (i.namespace, i.salt) = (x, y.into_bytes()),
            |i, x, y| (i.compiler.name, i.compiler.version) = (format!("n{x}"), format!("{y}v")),
            |i, x, y| i.environment = [(x, Some(y.into_bytes()))].into(),
            |i, x, y| i.extension = Some(Extension { label: x, bytes: y.into_bytes() }),
        ];
        for set in pairs {
            prop_assert_ne!(with(&a, &b, set), with(c, d, set));
        }
    }

    #[test]
    fn documents_round_trip_and_nothing_else_parses(at in 0usize..2000, flip in 1u8..) {
        let document = KeyDocument::of(&full()).unwrap();
        let mut bytes = document.as_bytes().to_vec();
        prop_assert_eq!(&KeyDocument::parse(&bytes).unwrap(), &document);
        let at = at % bytes.len();
        prop_assert!(KeyDocument::parse(&bytes[..at]).is_err() || at == end_of_an_item(&bytes, at));
        bytes[at] ^= flip;
        // Damage is an error, or another document; never the same signature, never a panic.
        if let Ok(other) = KeyDocument::parse(&bytes) {
            prop_assert_ne!(other.signature(), document.signature());
            prop_assert!(!document.differences(&other).is_empty());
        }
    }

    #[test]
    fn any_bytes_parse_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = KeyDocument::parse(&bytes);
        let _ = Provenance::decode(&bytes);
        let _ = read_record(&bytes);
    }

    #[test]
    fn provenance_round_trips(
        path in proptest::option::of(".{0,40}"), modified: Option<u64>, time: Option<u64>, host in proptest::option::of(".*"),
    ) {
        let provenance = Provenance {
            source_path: path, source_modified_unix_us: modified, compile_time_us: time, host, ..Provenance::default()
        };
        prop_assert_eq!(Provenance::decode(&provenance.encode()), Ok(provenance));
    }
}

/// The end of the item that ends at or before `at`, walking from the start.
fn end_of_an_item(bytes: &[u8], at: usize) -> usize {
    let mut end = 0;
    while end < at {
        let length = u64::from_le_bytes(bytes[end + 3..end + 11].try_into().unwrap());
        end += 11 + length as usize;
    }
    end
}

#[test]
fn pairs_are_not_joined() {
    let signature = |flags: &[&str]| {
        let mut inputs = full();
        inputs.flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        Signature::of(&inputs).unwrap()
    };
    assert_ne!(signature(&["ab", "c"]), signature(&["a", "bc"]));
    assert_ne!(signature(&["abc"]), signature(&["a", "bc"]));
    assert_ne!(signature(&["a", "b"]), signature(&["b", "a"]));
    assert_ne!(signature(&[]), signature(&[""]));
    assert_ne!(signature(&["a"]), signature(&["a "]));
}

#[test]
fn absent_is_not_empty() {
    let signature = |change: fn(&mut CompileInputs)| {
        let mut inputs = minimal();
        change(&mut inputs);
        Signature::of(&inputs).unwrap()
    };
    let none = signature(|_| {});
    assert_ne!(none, signature(|i| i.pass_pipeline = Some(String::new())));
    assert_ne!(none, signature(|i| i.target.data_layout = Some(String::new())));
    assert_ne!(
        none,
        signature(|i| i.extension = Some(Extension { label: String::new(), bytes: Vec::new() }))
    );
    let unset = signature(|i| {
        i.environment.insert("A".to_owned(), None);
    });
    let empty = signature(|i| {
        i.environment.insert("A".to_owned(), Some(Vec::new()));
    });
    assert_ne!(none, unset);
    assert_ne!(unset, empty);
}

#[test]
fn a_kind_of_the_clients_own_is_not_one_of_ours() {
    let mut inputs = minimal();
    let ours = Signature::of(&inputs).unwrap();
    inputs.ir.kind = IrKind::Other("clif".to_owned());
    assert_ne!(ours, Signature::of(&inputs).unwrap());
}

#[test]
fn what_is_not_decided_has_no_signature() {
    let refused = |change: fn(&mut CompileInputs)| {
        let mut inputs = full();
        change(&mut inputs);
        Signature::of(&inputs).unwrap_err()
    };
    assert!(matches!(
        refused(|i| i.target.cpu = "native".to_owned()),
        InputError::UnresolvedNative { place: "cpu", .. }
    ));
    assert!(matches!(
        refused(|i| i.flags.push("-march=native".to_owned())),
        InputError::UnresolvedNative { place: "flags", .. }
    ));
    assert!(matches!(refused(|i| i.flags.push("native".to_owned())), InputError::UnresolvedNative { .. }));
    assert!(matches!(refused(|i| i.target.triple.clear()), InputError::Unnamed { place: "target_triple" }));
    assert!(matches!(refused(|i| i.target.cpu.clear()), InputError::Unnamed { place: "cpu" }));
    assert!(matches!(refused(|i| i.compiler.version.clear()), InputError::UnknownCompiler));
    assert!(matches!(
        refused(|i| {
            i.target.features.insert("-avx2".to_owned());
        }),
        InputError::ContradictoryFeature { .. }
    ));
}

#[test]
fn a_hostile_count_ends_at_cut_short() {
    let mut bytes = vec![1, 0, 1, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend([22, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(u64::MAX.to_le_bytes());
    assert_eq!(KeyDocument::parse(&bytes).unwrap_err().to_string(), "byte 38: cut short");
}
