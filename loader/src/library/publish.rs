//! Entering names into a library and removing them: all of an image's or none, one thread at a time.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;

use super::epoch::Retired;
use super::error::LibraryError;
use super::function::Function;
use super::names::{Binding, Keep, Provider};
use super::resident::{LibraryImage, Resident};
use super::{Inner, Library};
use crate::fork;
use crate::graph::SymbolKind;
use crate::limits::NameBudget;
use crate::link::ImageSymbol;

/// What a library keeps, each under its address.
#[derive(Default)]
pub(super) struct Owned {
    pub(super) images: HashMap<usize, Arc<Resident>, RandomState>,
    functions: HashMap<usize, Arc<Function>, RandomState>,
}

/// A name to be entered.
pub(super) struct Entry {
    name: Box<str>,
    binding: Binding,
    function: Option<Arc<Function>>,
}

impl Entry {
    pub(super) fn of(name: &str, binding: Binding) -> Self {
        Entry { name: name.into(), binding, function: None }
    }

    fn of_function(function: Arc<Function>, weak: bool) -> Self {
        let provider = Provider::Function(Arc::downgrade(&function));
        let binding = Binding { address: function.address(), weak, provider };
        Entry { name: function.name().into(), binding, function: Some(function) }
    }
}

impl Library {
    pub(super) fn add_image(&self, image: &LibraryImage, redirectable: bool) -> Result<(), LibraryError> {
        let resident = &image.resident;
        let mut entries = Vec::new();
        let limits = self.inner.loader.limits();
        let mut budget = NameBudget::of(limits);
        for symbol in image.loaded().symbols() {
            budget.spend(symbol.name.as_bytes()).map_err(|cause| {
                let image = image.name().to_owned();
                LibraryError::Load { image, cause }
            })?;
            // No object asks for a name that is no text, or too long, of which this is only the beginning.
            let Cow::Borrowed(name) = symbol.name else { continue };
            if name.is_empty() || name.len() as u64 >= limits.name_bytes {
                continue;
            }
            entries.push(self.entry(resident, name, &symbol, redirectable)?);
        }
        self.enter(entries, &|| resident.describe(), Some(resident))
    }

    fn entry(
        &self,
        resident: &Arc<Resident>,
        name: &str,
        symbol: &ImageSymbol<'_>,
        redirectable: bool,
    ) -> Result<Entry, LibraryError> {
        let (address, weak) = (symbol.address, symbol.weak);
        if redirectable && symbol.kind == SymbolKind::Function {
            let keep = Keep::Image(Arc::clone(resident));
            let function = Function::leading_to(&self.inner, name, address as usize, keep)?;
            return Ok(Entry::of_function(function, weak));
        }
        let provider = Provider::Image(Arc::downgrade(resident));
        Ok(Entry::of(name, Binding { address, weak, provider }))
    }

    pub(super) fn enter_function(&self, function: Arc<Function>) -> Result<(), LibraryError> {
        let describe = || format!("the function of library `{}`", self.inner.name);
        self.enter(vec![Entry::of_function(function, false)], &describe, None)
    }

    /// Enters all names, or none if there is a strong one that is there already.
    pub(super) fn enter(
        &self,
        entries: Vec<Entry>,
        describe: &dyn Fn() -> String,
        image: Option<&Arc<Resident>>,
    ) -> Result<(), LibraryError> {
        let names = &self.inner.names;
        let mut unused = Vec::new();
        let mut owned = fork::lock(&self.inner.owned);
        for entry in entries.iter().filter(|entry| !entry.binding.weak) {
            if names.is_weak(&entry.name) == Some(false) {
                let (symbol, first) = (entry.name.to_string(), names.describe(&entry.name));
                drop(owned);
                return Err(LibraryError::Duplicate { symbol, first, second: describe() });
            }
        }
        for Entry { name, binding, function } in entries {
            let is_better = names.is_weak(&name).is_none_or(|weak| weak && !binding.weak);
            match function {
                Some(function) if is_better => {
                    if let Some(image) = image {
                        fork::lock(&image.functions).push(Arc::downgrade(&function));
                    }
                    owned.functions.insert(Arc::as_ptr(&function) as usize, function);
                }
                function => unused.extend(function),
            }
            if is_better {
                names.insert(name, binding);
            }
        }
        if let Some(image) = image {
            owned.images.insert(Arc::as_ptr(image) as usize, Arc::clone(image));
        }
        drop(owned);
        Ok(())
    }

    pub(super) fn remove_image(&self, image: &Arc<Resident>) -> Retired {
        let names = &self.inner.names;
        let mut retired = Vec::new();
        let mut owned = fork::lock(&self.inner.owned);
        let Some(own) = owned.images.remove(&(Arc::as_ptr(image) as usize)) else {
            return Retired::of(retired);
        };
        for symbol in image.image().symbols() {
            names.remove_if(&symbol.name, |provider| provider.is_image(image));
        }
        let functions: Vec<_> = fork::lock(&image.functions).iter().filter_map(Weak::upgrade).collect();
        for function in functions.into_iter().filter(|function| function.is_of(&self.inner)) {
            let Some(led_to) = function.remove_from(image) else { continue };
            names.remove_if(function.name(), |provider| provider.is_function(&function));
            owned.functions.remove(&(Arc::as_ptr(&function) as usize));
            retired.extend(led_to);
            retired.push(Keep::Function(function));
        }
        drop(owned);
        retired.push(Keep::Image(own));
        Retired::of(retired)
    }

    pub(super) fn remove_name(&self, name: &str) -> Retired {
        let names = &self.inner.names;
        let mut retired = Vec::new();
        let mut owned = fork::lock(&self.inner.owned);
        let found = names.find(name);
        names.remove_if(name, |_| true);
        if let Some((_, Keep::Function(function))) = &found {
            owned.functions.remove(&(Arc::as_ptr(function) as usize));
        }
        drop(owned);
        if let Some((_, Keep::Function(function))) = found {
            retired.extend(function.remove());
            retired.push(Keep::Function(function));
        }
        Retired::of(retired)
    }
}

impl Inner {
    pub(super) fn clear(&self) -> Retired {
        let mut owned = fork::lock(&self.owned);
        let Owned { images, functions } = std::mem::take(&mut *owned);
        self.names.clear();
        drop(owned);
        let mut retired = Vec::new();
        for function in functions.into_values() {
            retired.extend(function.remove());
            retired.push(Keep::Function(function));
        }
        retired.extend(images.into_values().map(Keep::Image));
        // What goes last is what was there first.
        retired.sort_by_key(|keep| Reverse(keep.number()));
        Retired::of(retired)
    }
}
