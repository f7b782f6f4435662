//! Where a library gets definitions that it does not have yet: from any [`SymbolResolver`], which knows addresses (the
//! process's symbols, filtered; closures), and from archives, whose members are loaded when something asks for them.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;

use super::Library;
use crate::archive::{Archive, Member};
use crate::error::LoadError;
use crate::inputs::needed_members;
use crate::limits::Limits;
use crate::loader::InputObject;
use crate::resolver::SymbolResolver;

/// Makes definitions for names that a library lacks. Called from many threads at once, without any lock of the library.
pub trait Generator: Send + Sync {
    /// A definition of the name, or `None` if it is none of this generator's.
    ///
    /// # Errors
    /// There is one, and it cannot be made: the load or the lookup that asked fails.
    fn generate(
        &self,
        request: &GeneratorRequest<'_>,
    ) -> Result<Option<Generated>, Box<dyn Error + Send + Sync>>;
}

/// What a generator has to give.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Generated {
    /// The address of something that stays where it is. The library does not remember it: the generator is asked again.
    Address(u64),
    /// Objects with their names, one of which defines the name asked for; if none does, nothing of them stays. They are
    /// loaded into the library as one image, whose initialisers are run by whoever
    /// [runs](super::LibraryImage::run_initializers) those of what needed it. It stays also if the load that asked fails.
    Objects(Vec<(String, Vec<u8>)>),
}

/// A name that somebody needs.
#[derive(Debug, Clone, Copy)]
pub struct GeneratorRequest<'r> {
    pub(super) library: &'r Library,
    pub(super) name: &'r str,
    pub(super) weak: bool,
}

impl<'r> GeneratorRequest<'r> {
    /// The name.
    pub fn name(&self) -> &'r str {
        self.name
    }

    /// Only a weak reference needs it, which may stay undefined.
    pub fn is_weak(&self) -> bool {
        self.weak
    }

    /// The library that what is made goes to.
    pub fn library(&self) -> &'r Library {
        self.library
    }
}

impl<R: SymbolResolver> Generator for R {
    fn generate(
        &self,
        request: &GeneratorRequest<'_>,
    ) -> Result<Option<Generated>, Box<dyn Error + Send + Sync>> {
        let address = if request.weak { self.resolve_weak(request.name) } else { self.resolve(request.name) };
        Ok(address.map(Generated::Address))
    }
}

/// A resolver that is only asked for names that pass a filter: `filtered(ProcessSymbols, |name| name.starts_with("rt_"))`.
pub fn filtered<R, P>(resolver: R, passes: P) -> Filtered<R, P>
where
    R: SymbolResolver,
    P: Fn(&str) -> bool + Send + Sync,
{
    Filtered { resolver, passes }
}

/// What [`filtered`] makes.
#[derive(Debug, Clone, Copy)]
pub struct Filtered<R, P> {
    resolver: R,
    passes: P,
}

impl<R: SymbolResolver, P: Fn(&str) -> bool + Send + Sync> SymbolResolver for Filtered<R, P> {
    fn resolve(&self, name: &str) -> Option<u64> {
        (self.passes)(name).then(|| self.resolver.resolve(name))?
    }

    fn resolve_weak(&self, name: &str) -> Option<u64> {
        (self.passes)(name).then(|| self.resolver.resolve_weak(name))?
    }

    fn preempts(&self, name: &str) -> bool {
        (self.passes)(name) && self.resolver.preempts(name)
    }
}

/// An archive (`.a`, `.lib`) as a source of definitions. A member is loaded when something needs a name that it defines, in
/// one image with the members that it needs in turn; a weak reference needs nothing, as with static linkers.
///
/// What a member hides is its image's alone, and no definition for others: all that `libgcc.a` has is hidden. Such members too are
/// to be linked with the objects that need them.
///
/// A member must not need a name of the object whose load asks for it: that is not there yet. Such members belong to the
/// same image as the object: [`needed_members`] and [`Library::link_all`] make it.
pub struct ArchiveGenerator {
    name: String,
    bytes: Vec<u8>,
    defined: HashSet<Box<str>>,
    limits: Limits,
}

impl ArchiveGenerator {
    /// Reads an archive's index.
    ///
    /// # Errors
    /// As [`Archive::parse`].
    pub fn new(name: impl Into<String>, bytes: Vec<u8>) -> Result<Self, LoadError> {
        Self::within(name, bytes, Limits::default())
    }

    /// The same with limits of the caller's.
    ///
    /// # Errors
    /// As [`Archive::parse`].
    pub fn within(name: impl Into<String>, bytes: Vec<u8>, limits: Limits) -> Result<Self, LoadError> {
        let archive = Archive::parse_within(&bytes, &limits)?;
        let defined = archive.symbols().map(|(name, _)| name.into_owned().into()).collect();
        Ok(ArchiveGenerator { name: name.into(), bytes, defined, limits })
    }
}

impl fmt::Debug for ArchiveGenerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiveGenerator").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Generator for ArchiveGenerator {
    fn generate(
        &self,
        request: &GeneratorRequest<'_>,
    ) -> Result<Option<Generated>, Box<dyn Error + Send + Sync>> {
        if request.weak || !self.defined.contains(request.name) {
            return Ok(None);
        }
        let archive = Archive::parse_within(&self.bytes, &self.limits)?;
        let Some(first) = archive.member_defining(request.name) else { return Ok(None) };
        let name = |member: &Member<'_>| format!("{}({})", self.name, member.name());
        let first_name = name(&first);
        let object = InputObject { name: &first_name, bytes: first.bytes() };
        let is_known = |name: &str| request.library.defines(name);
        let others = needed_members(&[object], &[archive], &is_known, &self.limits)?;
        let members = [first].into_iter().chain(others);
        Ok(Some(Generated::Objects(members.map(|member| (name(&member), member.bytes().to_vec())).collect())))
    }
}
