//! Accesses to thread-local variables that become local-exec: the terms in which architectures say what becomes of each part
//! of one. The rules are in a file `local_exec` of each; which accesses are rewritten is decided in
//! [`crate::link::thread_relax`].

/// How a part of an access to a thread-local variable becomes one of a local-exec access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LocalExec {
    pub(crate) model: ThreadModel,
    /// `None`: there is no such form, so that no access of this model is rewritten in an object that has one.
    pub(crate) operand: Option<LocalExecOperand>,
    pub(crate) role: CallRole,
}

impl LocalExec {
    /// A part that stands for itself.
    pub(crate) const fn part(model: ThreadModel) -> Self {
        LocalExec { model, operand: Some(LocalExecOperand::Variable), role: CallRole::None }
    }

    /// An access that stays as it is.
    pub(crate) const fn stays(model: ThreadModel) -> Self {
        LocalExec { operand: None, ..Self::part(model) }
    }

    pub(crate) const fn of(self, operand: LocalExecOperand) -> Self {
        LocalExec { operand: Some(operand), ..self }
    }

    pub(crate) const fn with(self, role: CallRole) -> Self {
        LocalExec { role, ..self }
    }
}

/// The models of access that are rewritten ("ELF Handling For Thread-Local Storage", section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ThreadModel {
    GeneralDynamic,
    LocalDynamic,
    InitialExec,
    /// General-dynamic through descriptors.
    Descriptor,
}

impl ThreadModel {
    pub(crate) const COUNT: usize = 4;
}

/// What the relocation of a rewritten instruction refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LocalExecOperand {
    /// The variable.
    Variable,
    /// The variable of the high part that it names ([`Operand::PairedLow`]).
    Paired,
    /// Nothing.
    Nothing,
}

/// Accesses whose parts are relocated one by one must have a call that is marked as theirs: otherwise it would remain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallRole {
    None,
    /// It is, or includes, the call.
    Call,
    /// Without a call in the object it means nothing.
    Needed,
}

/// What stands at the place of a relocation that is to be rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LocalExecForm {
    /// Instructions that the ABI does not have there.
    Foreign,
    /// Those that it has.
    Alone,
    /// The same, and the call of `__tls_get_addr` among them has a relocation of its own at this offset.
    WithCall(u64),
}

impl LocalExecForm {
    /// Instructions without a call, if `is` says that they are the ABI's.
    pub(crate) fn alone(is: bool) -> Self {
        if is { LocalExecForm::Alone } else { LocalExecForm::Foreign }
    }
}

#[cfg(test)]
mod tests {
    //! Whatever bytes there are: a form that is known can be rewritten, and what is rewritten stays near its place.

    use super::*;
    use crate::arch::{Architecture, Fixup, Machine, with_architecture};
    use crate::graph::Format;

    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }

    /// Bytes of which every instruction of an access is made, so that random ones are instructions often enough.
    const PARTS: &[u8] = &[
        0x66, 0x48, 0x4c, 0x8d, 0x3d, 0x05, 0x25, 0xe8, 0xff, 0x15, 0x03, 0x8b, 0x10, 0xd5, 0x62, 0x83, 0x80,
        0x04, 0x1d, 0x90, 0xa1, 0x40, 0xf9, 0x91, 0x3f, 0xd6, 0x63, 0x38, 0x3c, 0x62, 0xe8, 0x7d, 0x6b, 0xc0,
        0xe5, 0x17, 0x13, 0x67, 0x1a, 0x28, 0x02, 0x4c, 0x00, 0x00,
    ];
    const BEFORE: usize = 6;
    const AFTER: usize = 12;

    /// How many forms were known.
    fn check<A: Architecture>(random: &mut Random) -> usize {
        let kinds: Vec<A::Kind> = (0..2048).filter_map(|raw| A::kind(Format::Elf, raw).ok()).collect();
        let parts: Vec<A::Kind> =
            kinds.iter().copied().filter(|kind| A::local_exec(*kind).is_some()).collect();
        let mut known = 0;
        for round in 0..if parts.is_empty() { 0 } else { 400_000 } {
            let kind = parts[random.next() as usize % parts.len()];
            let next = Some(kinds[random.next() as usize % kinds.len()]);
            let mut section = [0u8; 24];
            section.fill_with(|| PARTS[random.next() as usize % PARTS.len()]);
            let size = random.next() as usize % (section.len() + 1);
            let offset = if round % 64 == 0 { random.next() } else { random.next() % 20 };
            let section = &mut section[..size];
            let before = section.to_vec();
            if A::local_exec_form(kind, next, section, offset) == LocalExecForm::Foreign {
                continue;
            }
            known += 1;
            let fixup = Fixup { target: random.next() % 0x7fff_0000, ..Fixup::default() };
            let is_only_data = kind_is_data(size, offset);
            let result = A::to_local_exec(kind, next, section, offset, fixup);
            assert!(
                result.is_ok() || is_only_data,
                "{}: {result:?} of {before:02x?}+{offset}",
                A::IDENTITY.name
            );
            let near = (offset as usize).saturating_sub(BEFORE)..(offset as usize).saturating_add(AFTER);
            let far = before.iter().zip(&*section).enumerate().filter(|(at, _)| !near.contains(at));
            assert!(far.into_iter().all(|(_, (before, after))| before == after), "{before:02x?}+{offset}");
        }
        known
    }

    /// A field of data has no form, so that only writing it tells that it is not all there.
    fn kind_is_data(size: usize, offset: u64) -> bool {
        offset.checked_add(8).is_none_or(|end| end > size as u64)
    }

    #[test]
    fn what_is_known_is_rewritten_in_its_place() {
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        for name in
            ["x86_64", "i386", "aarch64", "powerpc64le", "s390x", "riscv64", "riscv32", "loongarch64", "arm"]
        {
            let machine = Machine::find(|identity| identity.name == name).unwrap();
            let known = with_architecture!(machine, A => check::<A>(&mut random));
            assert!(known > 300 || name == "arm", "{name}: {known}");
        }
    }
}
