//! The symbol table of a library: names with their addresses, read without a lock and without allocating.
//!
//! Readers go through a concurrent hash map, whose nodes are reclaimed when no reader can be at them. That may be late,
//! so the table owns nothing: it refers weakly to what provides a symbol, and the library holds that.

use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;
use papaya::HashMap;

use super::function::Function;
use super::resident::Resident;

/// All names of a library.
#[derive(Default)]
pub(super) struct Names {
    // Hashed with a random key: names come from objects, which may want them to collide, and cannot see what they hit.
    map: HashMap<Box<str>, Binding, RandomState>,
}

/// What a name means.
pub(super) struct Binding {
    pub(super) address: u64,
    /// Gives way to a strong definition.
    pub(super) weak: bool,
    pub(super) provider: Provider,
}

/// Whose memory the address is in.
pub(super) enum Provider {
    /// The client's.
    Absolute,
    Image(Weak<Resident>),
    /// A stub, which stays the same while what it leads to changes.
    Function(Weak<Function>),
}

/// Keeps what a symbol's address is in.
#[derive(Clone)]
pub(super) enum Keep {
    /// Nothing of ours.
    Absolute,
    Image(Arc<Resident>),
    Function(Arc<Function>),
}

impl Keep {
    /// About how much memory it keeps.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Keep::Absolute | Keep::Function(_) => 0,
            Keep::Image(image) => image.image().memory_size(),
        }
    }

    /// That of an image; a function is later than all of them.
    pub(super) fn number(&self) -> u64 {
        match self {
            Keep::Absolute | Keep::Function(_) => u64::MAX,
            Keep::Image(image) => image.number(),
        }
    }

    /// Equal for the same thing.
    pub(super) fn identity(&self) -> usize {
        match self {
            Keep::Absolute => 0,
            Keep::Image(image) => Arc::as_ptr(image) as usize,
            Keep::Function(function) => Arc::as_ptr(function) as usize,
        }
    }
}

impl Provider {
    fn keep(&self) -> Option<Keep> {
        Some(match self {
            Provider::Absolute => Keep::Absolute,
            Provider::Image(image) => Keep::Image(image.upgrade()?),
            Provider::Function(function) => Keep::Function(function.upgrade()?),
        })
    }

    pub(super) fn is_image(&self, image: &Arc<Resident>) -> bool {
        matches!(self, Provider::Image(own) if own.as_ptr() == Arc::as_ptr(image))
    }

    pub(super) fn is_function(&self, function: &Arc<Function>) -> bool {
        matches!(self, Provider::Function(own) if own.as_ptr() == Arc::as_ptr(function))
    }

    /// What defines the symbol, in a message.
    fn describe(&self) -> String {
        match self {
            Provider::Absolute => "an absolute definition".to_owned(),
            Provider::Image(image) => match image.upgrade() {
                Some(image) => image.describe(),
                None => "an image that is gone".to_owned(),
            },
            Provider::Function(function) => match function.upgrade() {
                Some(function) => function.describe(),
                None => "a function that is gone".to_owned(),
            },
        }
    }
}

impl Names {
    /// The address alone, which is all that a caller needs who keeps the image by other means.
    #[inline]
    pub(super) fn address(&self, name: &str) -> Option<u64> {
        self.map.pin().get(name).map(|binding| binding.address)
    }

    /// The address, and what keeps it.
    #[inline]
    pub(super) fn find(&self, name: &str) -> Option<(u64, Keep)> {
        let names = self.map.pin();
        let binding = names.get(name)?;
        Some((binding.address, binding.provider.keep()?))
    }

    /// Whether a name means a weak definition, if it means any.
    pub(super) fn is_weak(&self, name: &str) -> Option<bool> {
        self.map.pin().get(name).map(|binding| binding.weak)
    }

    /// What defines a name, in a message.
    pub(super) fn describe(&self, name: &str) -> String {
        self.map.pin().get(name).map_or_else(String::new, |binding| binding.provider.describe())
    }

    pub(super) fn insert(&self, name: Box<str>, binding: Binding) {
        self.map.pin().insert(name, binding);
    }

    /// Removes a name if it means what the caller thinks.
    pub(super) fn remove_if(&self, name: &str, is_meant: impl Fn(&Provider) -> bool) {
        let names = self.map.pin();
        if names.get(name).is_some_and(|binding| is_meant(&binding.provider)) {
            names.remove(name);
        }
    }

    pub(super) fn clear(&self) {
        self.map.pin().clear();
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }
}
