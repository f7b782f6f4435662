//! Align: where an architecture aligns code by relocations, the padding that turns out superfluous is cut out.
//!
//! The assembler leaves room for the worst case in front of every aligned place, because a linker may shorten code before
//! it (RISC-V ELF psABI, "Linker Relaxation"; LoongArch likewise). The place is only aligned once the linker has taken
//! out what is too much, whether it shortens anything else or not.

use crate::arch::{Architecture, Operand, Padding};
use crate::error::LoadError;
use crate::graph::{Cuts, LinkGraph, Section};
use crate::limits::Limits;
use crate::link::tables::refuse;

/// Cuts superfluous padding out of all loaded sections.
pub(super) fn cut_padding<A: Architecture>(
    graph: &mut LinkGraph<'_>,
    limits: &Limits,
) -> Result<(), LoadError> {
    for number in 0..graph.sections.len() {
        let section = &graph.sections[number];
        if section.segment.is_none() || section.zero_fill {
            continue;
        }
        let paddings = paddings::<A>(graph, section)?;
        if let Some(align) = paddings.iter().map(|(_, padding)| padding.align).max() {
            let limit = limits.alignment.min(Limits::MAX_ALIGNMENT);
            if align > limit {
                return Err(LoadError::limit("the alignment of code", align, limit));
            }
            let cuts = cut::<A>(section, &paddings)?;
            let section = &mut graph.sections[number];
            section.align = section.align.max(align);
            section.size = cuts.bytes.len() as u64;
            section.cuts = graph.cuts.len() as u32;
            graph.cuts.push(cuts);
        }
    }
    Ok(())
}

/// All padding of a section with its place, in order.
fn paddings<A: Architecture>(
    graph: &LinkGraph<'_>,
    section: &Section<'_>,
) -> Result<Vec<(u64, Padding)>, LoadError> {
    let mut paddings = Vec::new();
    section.relocations.try_for_each(|_, relocation| {
        let Ok(kind) = A::kind(graph.format, relocation.raw_kind) else { return Ok(()) };
        if A::operand(kind) == Operand::Alignment {
            let padding = A::padding(kind, &relocation);
            let padding = padding.map_err(|problem| refuse::<A>(graph, section, relocation, problem))?;
            paddings.push((relocation.offset, padding));
        }
        Ok(())
    })?;
    paddings.sort_by_key(|(offset, _)| *offset);
    Ok(paddings)
}

fn cut<A: Architecture>(section: &Section<'_>, paddings: &[(u64, Padding)]) -> Result<Cuts, LoadError> {
    let malformed = |offset: u64, why: &str| {
        let place = format!("{}+{offset:#x}", crate::error::printable(section.name));
        LoadError::malformed(place, why)
    };
    let mut cuts = Cuts { cuts: Vec::new(), bytes: Vec::with_capacity(section.bytes.len()) };
    let mut taken = 0;
    for (offset, padding) in paddings {
        let start = usize::try_from(*offset).ok().filter(|start| *start >= taken);
        let start = start.ok_or_else(|| malformed(*offset, "two paddings overlap"))?;
        let end = usize::try_from(padding.bytes).ok().and_then(|bytes| start.checked_add(bytes));
        let end = end.filter(|end| *end <= section.bytes.len());
        let end = end.ok_or_else(|| malformed(*offset, "the padding reaches past the end of its section"))?;
        cuts.bytes.extend_from_slice(&section.bytes[taken..start]);

        let here = cuts.bytes.len() as u64;
        let needed = here.next_multiple_of(padding.align) - here;
        let kept = if needed > padding.most { 0 } else { needed };
        if kept > padding.bytes {
            return Err(malformed(*offset, "there is not enough padding to align what follows"));
        }
        let kept = kept as usize;
        cuts.bytes.extend_from_slice(&section.bytes[start..start + kept]);
        if kept < end - start {
            A::write_nops(&mut cuts.bytes[here as usize..]);
            let gone = (end - cuts.bytes.len()) as u64;
            cuts.cuts.push(((start + kept) as u64, gone));
        }
        taken = end;
    }
    cuts.bytes.extend_from_slice(&section.bytes[taken..]);
    Ok(cuts)
}
