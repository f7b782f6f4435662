//! Initialisers and finalisers: arrays of function pointers in the image, in the order in which they run.

use super::{IndirectFunction, Object, survey};
use crate::graph::{Format, Role};

/// What is to be run before the image is used and before it goes.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    /// What is to be bound first of all.
    pub(crate) indirect: Vec<IndirectFunction>,
    pub(crate) initializers: Vec<FunctionArray>,
    pub(crate) finalizers: Vec<FunctionArray>,
    /// `__dso_handle`, what the image's static destructors are registered under, if it registers any: also a static
    /// variable of a function has one, of an object without initialisers.
    pub(crate) dso_handle: Option<u64>,
    /// It also registers functions without that.
    pub(crate) calls_atexit: bool,
    /// The functions have the calling convention of Windows.
    pub(crate) windows: bool,
}

/// An array of function pointers in the loaded image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FunctionArray {
    pub(crate) address: u64,
    pub(crate) size: u64,
    pub(crate) backwards: bool,
    priority: u32,
}

impl FunctionArray {
    /// The section's name gave no priority: such finalisers run before all that have one.
    pub(crate) fn has_no_priority(&self) -> bool {
        self.priority == u32::from(u16::MAX)
    }
}

impl Hooks {
    /// `None` when there are none. `indirect`: what is to be bound first.
    #[inline]
    pub(super) fn of(
        objects: &[Object<'_>],
        indirect: Vec<IndirectFunction>,
        dso_handle: Option<u64>,
    ) -> Option<Self> {
        let has_arrays = objects.iter().any(|object| object.survey.hooks);
        match has_arrays || !indirect.is_empty() || dso_handle.is_some() {
            true => Self::of_some(objects, indirect, dso_handle),
            false => None,
        }
    }

    #[inline(never)]
    fn of_some(
        objects: &[Object<'_>],
        indirect: Vec<IndirectFunction>,
        dso_handle: Option<u64>,
    ) -> Option<Self> {
        let windows = objects.iter().any(|object| object.graph.format == Format::Coff);
        let calls_atexit = objects.iter().any(|object| object.symbols.calls_atexit);
        let mut hooks = Hooks { indirect, dso_handle, calls_atexit, windows, ..Hooks::default() };
        for section in survey::special(objects).filter(|section| section.size != 0) {
            let array = |priority, backwards| FunctionArray {
                address: section.address,
                size: section.size,
                backwards,
                priority,
            };
            match section.role {
                Role::Initializers { priority } => hooks.initializers.push(array(priority, false)),
                Role::InitializersBackwards { priority } => hooks.initializers.push(array(priority, true)),
                Role::Finalizers { priority } => hooks.finalizers.push(array(priority, true)),
                Role::FinalizersForwards { priority } => hooks.finalizers.push(array(priority, false)),
                Role::Plain | Role::EhFrame | Role::ExceptTable | Role::ThreadLocal => {}
            }
        }
        if hooks.is_empty() {
            return None;
        }
        // Both sorts are stable: arrays of one priority run in the object's order, or backwards. C runtimes of Windows run
        // all in order.
        hooks.initializers.sort_by_key(|array| array.priority);
        if !windows {
            hooks.finalizers.reverse();
        }
        hooks.finalizers.sort_by_key(|array| std::cmp::Reverse(array.priority));
        Some(hooks)
    }

    fn is_empty(&self) -> bool {
        self.indirect.is_empty()
            && self.initializers.is_empty()
            && self.finalizers.is_empty()
            && self.dso_handle.is_none()
    }
}
