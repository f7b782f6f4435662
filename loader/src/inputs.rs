//! What a link takes in: the objects it is given, and the members of archives that define what these lack.
//!
//! The rule is that of static linkers: a strong undefined name that nobody defines yet takes in the first member, of the
//! first archive in order, that defines it; the member's own names then count like any object's. Members that nobody
//! needs stay out.

use std::collections::{HashSet, VecDeque};

use crate::archive::{Archive, Member};
use crate::error::LoadError;
use crate::graph::{Binding, SymbolPlace};
use crate::limits::{Limits, NameBudget};
use crate::loader::InputObject;
use crate::read;

/// The members of archives that objects need, in the order in which they are found to be needed. `is_known` says which
/// names need no definition, since they have one elsewhere.
///
/// # Errors
/// An object or a needed member cannot be read.
pub fn needed_members<'a>(
    objects: &[InputObject<'_>],
    archives: &[Archive<'a>],
    is_known: &dyn Fn(&str) -> bool,
    limits: &Limits,
) -> Result<Vec<Member<'a>>, LoadError> {
    let mut search = Search {
        archives,
        is_known,
        limits,
        budget: NameBudget::of(limits),
        defined: HashSet::new(),
        missing: VecDeque::new(),
        taken: HashSet::new(),
        members: Vec::new(),
    };
    for InputObject { name, bytes } in objects {
        search.add(bytes).map_err(|error| error.of_object(name))?;
    }
    search.run()?;
    Ok(search.members)
}

struct Search<'s, 'a> {
    archives: &'s [Archive<'a>],
    is_known: &'s dyn Fn(&str) -> bool,
    limits: &'s Limits,
    budget: NameBudget,
    defined: HashSet<String>,
    missing: VecDeque<String>,
    /// Where the members that were taken in lie: names of members need not differ.
    taken: HashSet<*const u8>,
    members: Vec<Member<'a>>,
}

impl Search<'_, '_> {
    /// Notes what an object defines and lacks.
    fn add(&mut self, object: &[u8]) -> Result<(), LoadError> {
        let symbols = read::parse_symbols(object, self.limits)?;
        symbols.try_for_each(|_, symbol| {
            if symbol.binding == Binding::Local {
                return Ok(());
            }
            let name = symbols.name(&symbol)?;
            self.budget.spend(name)?;
            // No resolver and no index knows a name that is no text.
            let Ok(name) = std::str::from_utf8(name) else { return Ok(()) };
            match symbol.place {
                SymbolPlace::Undefined if symbol.binding == Binding::Weak => {}
                SymbolPlace::Undefined => self.missing.push_back(name.to_owned()),
                _ => {
                    self.defined.insert(name.to_owned());
                }
            }
            Ok(())
        })
    }

    fn run(&mut self) -> Result<(), LoadError> {
        while let Some(name) = self.missing.pop_front() {
            if self.defined.contains(&name) || (self.is_known)(&name) {
                continue;
            }
            let Some(member) = self.archives.iter().find_map(|archive| archive.member_defining(&name)) else {
                continue;
            };
            if self.taken.insert(member.bytes().as_ptr()) {
                self.add(member.bytes()).map_err(|error| error.of_object(&member.name()))?;
                self.members.push(member);
            }
        }
        Ok(())
    }
}
