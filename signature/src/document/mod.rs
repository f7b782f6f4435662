//! The key document: the canonical encoding of [`CompileInputs`], whose hash is the signature.
//!
//! Documents are stored beside their objects, so that a later miss can be explained ingredient by ingredient.
//! The encoding is in `tlv.rs`; which ingredient has which tag is here. A tag is never given another meaning:
//! a new ingredient takes a new tag, a changed one a new [`SCHEMA`].

mod difference;
mod tlv;

pub use difference::Difference;
pub use tlv::{DocumentError, Pair, Value};
pub(crate) use tlv::{TlvReader, TlvWriter};

use crate::inputs::{
    CompileInputs, CompilerIdentity, Digest, Extension, InputError, Ir, LinkedInput, Target,
};
use crate::signature::Signature;

/// Version of the list of ingredients; the first ingredient of every document.
pub const SCHEMA: u64 = 1;

/// One named ingredient of a key document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingredient<'a> {
    /// Its name, as in `cpu_features`; `ingredient_N` for one that a later version added.
    pub name: String,
    /// Its value.
    pub value: Value<'a>,
}

/// The canonical encoding of [`CompileInputs`].
#[derive(Clone, PartialEq, Eq)]
pub struct KeyDocument(Vec<u8>);

/// Declares tags and names together, so that no ingredient has one without the other.
macro_rules! ingredients {
    ($($tag:ident = $number:literal, $name:literal;)+) => {
        mod tag { $(pub(super) const $tag: u16 = $number;)+ }

        fn name_of(tag: u16) -> String {
            match tag {
                $(tag::$tag => $name.to_owned(),)+
                other => format!("ingredient_{other}"),
            }
        }
    };
}

ingredients! {
    SCHEMA = 1, "schema";
    NAMESPACE = 2, "namespace";
    SALT = 3, "salt";
    ARTIFACT = 4, "artifact";
    OBJECT_FORMAT = 5, "object_format";
    IR_KIND = 6, "ir_kind";
    IR_KIND_CUSTOM = 7, "ir_kind_custom";
    IR_LENGTH = 8, "ir_length";
    IR_DIGEST = 9, "ir_digest";
    LINKED = 10, "linked";
    TARGET_TRIPLE = 11, "target_triple";
    DATA_LAYOUT = 12, "data_layout";
    CODE_MODEL = 13, "code_model";
    RELOCATION_MODEL = 14, "relocation_model";
    TLS_MODEL = 15, "tls_model";
    CPU = 16, "cpu";
    CPU_FEATURES = 17, "cpu_features";
    TUNE_CPU = 18, "tune_cpu";
    TUNING_FEATURES = 19, "tuning_features";
    OPTIMIZATION = 20, "optimization";
    PASS_PIPELINE = 21, "pass_pipeline";
    FLAGS = 22, "flags";
    COMPILER_NAME = 23, "compiler_name";
    COMPILER_VERSION = 24, "compiler_version";
    COMPILER_COMPONENTS = 25, "compiler_components";
    ENVIRONMENT = 26, "environment";
    EXTERNAL_INPUTS = 27, "external_inputs";
    SPECIALIZATION = 28, "specialization";
    EXTENSION_LABEL = 29, "extension_label";
    EXTENSION = 30, "extension";
}

impl KeyDocument {
    /// Encodes `inputs`.
    ///
    /// # Errors
    /// When the inputs do not decide the object yet: see [`InputError`].
    pub fn of(inputs: &CompileInputs) -> Result<Self, InputError> {
        inputs.check()?;
        // No `..`: a field that is not hashed must not compile.
        let CompileInputs {
            namespace,
            salt,
            artifact,
            object_format,
            ir,
            linked,
            target,
            optimization,
            pass_pipeline,
            flags,
            compiler,
            environment,
            external_inputs,
            specialization,
            extension,
        } = inputs;

        let mut out = TlvWriter::default();
        out.number(tag::SCHEMA, SCHEMA);
        out.text(tag::NAMESPACE, namespace);
        out.bytes(tag::SALT, salt);
        out.text(tag::ARTIFACT, artifact.as_str());
        out.text(tag::OBJECT_FORMAT, object_format.as_str());
        write_ir(&mut out, ir);
        out.list(tag::LINKED, linked.iter().map(|LinkedInput { name, digest }| format!("{digest} {name}")));
        write_target(&mut out, target);
        out.text(tag::OPTIMIZATION, optimization.as_str());
        out.optional_text(tag::PASS_PIPELINE, pass_pipeline.as_deref());
        out.list(tag::FLAGS, flags.iter());
        write_compiler(&mut out, compiler);
        out.map(tag::ENVIRONMENT, environment.iter().map(|(name, value)| (name, value.as_deref())));
        out.map(
            tag::EXTERNAL_INPUTS,
            external_inputs.iter().map(|(name, digest)| (name, Some(digest.to_string()))),
        );
        out.map(tag::SPECIALIZATION, specialization.iter().map(|(name, value)| (name, Some(value))));
        if let Some(Extension { label, bytes }) = extension {
            out.text(tag::EXTENSION_LABEL, label);
            out.bytes(tag::EXTENSION, bytes);
        }
        Ok(Self(out.finish()))
    }

    /// Reads a document that was stored. Ingredients of later versions are kept.
    ///
    /// # Errors
    /// When the bytes are not the canonical encoding of anything.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let mut items = TlvReader::new(bytes);
        let first = items.next().transpose()?;
        if first.is_none_or(|first| first.tag != tag::SCHEMA) {
            return Err(DocumentError::at(0, "a key document begins with its schema"));
        }
        items.try_for_each(|item| item.map(drop))?;
        Ok(Self(bytes.to_vec()))
    }

    /// The encoding itself.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The signature that this document stands for.
    pub fn signature(&self) -> Signature {
        Signature::of_document(&self.0)
    }

    /// All ingredients, in the order of their tags.
    pub fn ingredients(&self) -> impl Iterator<Item = Ingredient<'_>> {
        self.items().map(|(tag, value)| Ingredient { name: name_of(tag), value })
    }

    /// What differs between this document and `other`, by name; nothing when they are equal.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        difference::between(self, other)
    }

    fn items(&self) -> impl Iterator<Item = (u16, Value<'_>)> {
        // Both constructors made sure that every item reads.
        TlvReader::new(&self.0).map_while(|item| item.ok().map(|item| (item.tag, item.value)))
    }
}

impl std::fmt::Debug for KeyDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.ingredients().map(|i| (i.name, i.value.to_string()))).finish()
    }
}

fn write_ir(out: &mut TlvWriter, ir: &Ir) {
    let Ir { kind, bytes } = ir;
    // A kind of the client's own has its own ingredient: it may be called like one of ours.
    match kind.is_ours() {
        true => out.text(tag::IR_KIND, kind.as_str()),
        false => out.text(tag::IR_KIND_CUSTOM, kind.as_str()),
    }
    out.number(tag::IR_LENGTH, bytes.len() as u64);
    out.bytes(tag::IR_DIGEST, Digest::of(bytes).as_bytes());
}

fn write_target(out: &mut TlvWriter, target: &Target) {
    let Target {
        triple,
        data_layout,
        code_model,
        relocation_model,
        tls_model,
        cpu,
        features,
        tune_cpu,
        tuning,
    } = target;
    out.text(tag::TARGET_TRIPLE, triple);
    out.optional_text(tag::DATA_LAYOUT, data_layout.as_deref());
    out.optional_text(tag::CODE_MODEL, code_model.map(|model| model.as_str()));
    out.optional_text(tag::RELOCATION_MODEL, relocation_model.map(|model| model.as_str()));
    out.optional_text(tag::TLS_MODEL, tls_model.map(|model| model.as_str()));
    out.text(tag::CPU, cpu);
    out.set(tag::CPU_FEATURES, features.iter());
    out.optional_text(tag::TUNE_CPU, tune_cpu.as_deref());
    out.set(tag::TUNING_FEATURES, tuning.iter());
}

fn write_compiler(out: &mut TlvWriter, compiler: &CompilerIdentity) {
    let CompilerIdentity { name, version, components } = compiler;
    out.text(tag::COMPILER_NAME, name);
    out.text(tag::COMPILER_VERSION, version);
    out.map(
        tag::COMPILER_COMPONENTS,
        components.iter().map(|(name, component)| (name, Some(component.to_string()))),
    );
}
