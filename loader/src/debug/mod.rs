//! Debug information of loaded objects (DWARF): made of the debug sections that the loader leaves in the object, by the
//! fix-ups that code is loaded with. Nothing here runs unless somebody asks for it.

#[cfg(feature = "symbolize")]
mod check;
#[cfg(feature = "symbolize")]
mod dwarf;
#[cfg(feature = "symbolize")]
mod kept;
pub(crate) mod lines;
mod symbol_file;
mod symbols;

#[cfg(feature = "symbolize")]
pub(crate) use kept::KeptDebugInfo;
pub(crate) use symbol_file::symbol_file;
pub use symbols::{DebugInfoError, SourceFrame};

use crate::arch::{Architecture, with_architecture};
use crate::error::LoadError;
use crate::limits::Limits;
use crate::link::{DebugSection, Link};
use crate::read;

/// The debug sections of one object, fixed up, one of each name.
#[derive(Default)]
pub(crate) struct DebugSections<'a> {
    pub(crate) sections: Vec<DebugSection<'a>>,
    #[cfg_attr(not(feature = "symbolize"), allow(dead_code))] // For readers of DWARF.
    pub(crate) big_endian: bool,
}

/// Reads and fixes up the debug sections of an object that was linked.
pub(crate) fn sections<'a>(
    link: &Link<'_, 'a>,
    object: &'a [u8],
    limits: &Limits,
) -> Result<DebugSections<'a>, LoadError> {
    fn of<'a, A: Architecture>(
        link: &Link<'_, 'a>,
        object: &'a [u8],
        limits: &Limits,
    ) -> Result<DebugSections<'a>, LoadError> {
        let unloaded = read::debug_sections(link.object.graph.format, object, limits)?;
        Ok(DebugSections { sections: link.fix_up_debug_sections::<A>(unloaded)?, big_endian: A::BIG_ENDIAN })
    }
    with_architecture!(link.object.graph.machine, A => of::<A>(link, object, limits))
}
