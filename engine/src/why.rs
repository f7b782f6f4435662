//! Why a compilation was not found: what differs from the entry that is most like it.

use std::path::Path;

use objcache_cache::{CacheAdmin, CacheError, EntryInfo};
use objcache_signature::{Difference, Ingredient, KeyDocument, Value};

/// A compilation whose miss is to be explained.
#[derive(Debug, Clone, Copy)]
pub struct Sought<'a> {
    /// What was compiled.
    pub document: &'a KeyDocument,
    /// The source, as it was named, where that is known.
    pub source_path: Option<&'a str>,
    /// Only entries that were made before: µs since 1970-01-01 UTC. `None`: all there are.
    pub before_unix_us: Option<u64>,
}

/// The entry that is most like a compilation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearest {
    /// The entry.
    pub entry: EntryInfo,
    /// Its source, as it was named then.
    pub source_path: Option<String>,
    /// Whether it was compiled from the same file, or from the same text.
    pub same_source: bool,
    /// How many ingredients are the same.
    pub same: usize,
    /// How many ingredients there are, in the longer of both key documents.
    pub ingredients: usize,
    /// Those that differ: the entry's value before, that of the compilation after.
    pub differences: Vec<Difference>,
}

/// Finds the entry that is most like a compilation: of the same source before others, then of the same namespace, then for the
/// same target, then with the most ingredients the same, then the newest. `None`: there is no other entry of which it is known
/// what it was made of.
///
/// It reads the records of all entries.
///
/// # Errors
/// When the entries cannot be listed or read.
pub fn nearest(cache: &dyn CacheAdmin, sought: &Sought<'_>) -> Result<Option<Nearest>, CacheError> {
    let signature = sought.document.signature();
    let wanted = Facts::of(sought.document, sought.source_path);
    let mut best: Option<(Likeness, EntryInfo, KeyDocument, Option<String>)> = None;
    for entry in cache.list()? {
        let is_late = sought.before_unix_us.is_some_and(|before| entry.created_unix_us >= before);
        if is_late || entry.signature == signature {
            continue;
        }
        // One that was evicted meanwhile, is damaged, or was put without a key document tells nothing.
        let Some(record) = cache.record(&entry.signature)? else { continue };
        let Ok(document) = KeyDocument::parse(&record.key_document) else { continue };
        let source = record.provenance.source_path;
        let likeness = wanted.likeness(&Facts::of(&document, source.as_deref()), entry.created_unix_us);
        if best.as_ref().is_none_or(|(other, ..)| *other < likeness) {
            best = Some((likeness, entry, document, source));
        }
    }
    Ok(best.map(|(likeness, entry, document, source_path)| Nearest {
        entry,
        source_path,
        same_source: likeness.source > Source::Other,
        same: likeness.same,
        ingredients: wanted.ingredients.len().max(document.ingredients().count()),
        differences: document.differences(sought.document),
    }))
}

/// How much two compilations have in common; more is greater.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Likeness {
    source: Source,
    namespace: bool,
    target: bool,
    same: usize,
    created_unix_us: u64,
}

/// Whether they have one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Other,
    /// Another folder's file of that name: kernels are often written to a temporary one.
    SameName,
    /// The same file, or the same text under whatever name.
    Same,
}

struct Facts<'a> {
    ingredients: Vec<Ingredient<'a>>,
    source: Option<&'a str>,
}

impl<'a> Facts<'a> {
    fn of(document: &'a KeyDocument, source: Option<&'a str>) -> Self {
        Self { ingredients: document.ingredients().collect(), source }
    }

    fn value(&self, name: &str) -> Option<&Value<'a>> {
        self.ingredients.iter().find(|it| it.name == name).map(|it| &it.value)
    }

    fn likeness(&self, other: &Facts<'_>, created_unix_us: u64) -> Likeness {
        let agree = |name| self.value(name) == other.value(name);
        let same = self.ingredients.iter().filter(|it| other.value(&it.name) == Some(&it.value)).count();
        Likeness {
            source: if agree("ir_digest") { Source::Same } else { source(self.source, other.source) },
            namespace: agree("namespace"),
            target: agree("target_triple"),
            same,
            created_unix_us,
        }
    }
}

fn source(one: Option<&str>, other: Option<&str>) -> Source {
    let name = |path| Path::new(path).file_name();
    match (one, other) {
        (Some(one), Some(other)) if one == other => Source::Same,
        (Some(one), Some(other)) if name(one).is_some() && name(one) == name(other) => Source::SameName,
        _ => Source::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use objcache_cache::{CompiledObject, MemoryCache, ObjectCache};
    use objcache_signature::{CompileInputs, CompilerIdentity, Ir, IrKind, OptLevel, Provenance, Target};

    use super::*;

    fn inputs(text: &str) -> CompileInputs {
        let ir = Ir::new(IrKind::Clif, text.as_bytes().to_vec());
        CompileInputs::new(
            ir,
            Target::new("x86_64-unknown-linux-gnu", "znver4"),
            CompilerIdentity::new("c", "1"),
        )
    }

    fn put(cache: &MemoryCache, inputs: &CompileInputs, path: &str) {
        let document = KeyDocument::of(inputs).unwrap();
        let provenance = Provenance { source_path: Some(path.to_owned()), ..Provenance::default() };
        cache
            .notify_object_compiled(&CompiledObject {
                signature: document.signature(),
                object: b"object",
                key_document: document.as_bytes(),
                provenance: &provenance,
                namespace: &inputs.namespace,
                compile_time: Duration::ZERO,
                cpu_features: &[],
            })
            .unwrap();
    }

    fn ask(cache: &MemoryCache, inputs: &CompileInputs, path: &str) -> Option<Nearest> {
        let document = KeyDocument::of(inputs).unwrap();
        nearest(cache, &Sought { document: &document, source_path: Some(path), before_unix_us: None })
            .unwrap()
    }

    fn differing(nearest: &Nearest) -> Vec<&str> {
        nearest.differences.iter().map(|it| it.ingredient.as_str()).collect()
    }

    #[test]
    fn nothing_is_near_in_an_empty_cache_or_in_one_with_the_entry_alone() {
        let cache = MemoryCache::new(1 << 20);
        assert_eq!(ask(&cache, &inputs("a"), "a.clif"), None);
        put(&cache, &inputs("a"), "a.clif");
        assert_eq!(ask(&cache, &inputs("a"), "a.clif"), None);
    }

    #[test]
    fn the_same_source_is_nearer_than_the_same_options() {
        let cache = MemoryCache::new(1 << 20);
        put(&cache, &inputs("other"), "b.clif");
        let mut old = inputs("a");
        old.optimization = OptLevel::O0;
        old.flags = vec!["-g".to_owned()];
        put(&cache, &old, "a.clif");
        let found = ask(&cache, &inputs("a"), "renamed.clif").unwrap();
        assert_eq!((found.source_path.as_deref(), found.same_source), (Some("a.clif"), true));
        assert_eq!(differing(&found), ["optimization", "flags"]);
        let found = ask(&cache, &inputs("edited"), "a.clif").unwrap();
        assert_eq!(found.source_path.as_deref(), Some("a.clif"));
        assert!(differing(&found).contains(&"ir_digest"));
        let found = ask(&cache, &inputs("edited"), "/tmp/x/a.clif").unwrap();
        assert_eq!((found.source_path.as_deref(), found.same_source), (Some("a.clif"), true));
    }

    #[test]
    fn of_one_source_the_most_alike_is_nearest() {
        let cache = MemoryCache::new(1 << 20);
        let mut far = inputs("a");
        (far.optimization, far.salt) = (OptLevel::O0, b"s".to_vec());
        let mut near = inputs("a");
        near.target.features.insert("+avx2".to_owned());
        for inputs in [&near, &far] {
            put(&cache, inputs, "a.clif");
        }
        let found = ask(&cache, &inputs("a"), "a.clif").unwrap();
        assert_eq!(differing(&found), ["cpu_features"]);
        assert_eq!(found.same + 1, found.ingredients);
    }

    #[test]
    fn an_unrelated_entry_is_said_to_be_of_another_source() {
        let cache = MemoryCache::new(1 << 20);
        put(&cache, &inputs("b"), "b.clif");
        assert!(!ask(&cache, &inputs("a"), "a.clif").unwrap().same_source);
    }
}
