//! `ld.lld`, run so that what it makes can be compared: `-O0` keeps mergeable strings in place, `--no-relax` keeps loads
//! through the GOT, values that do not fit are warnings.

use std::collections::HashMap;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use object::{Object as _, ObjectSection as _, SectionFlags};

use crate::machine::Machine;
use crate::support::{LLD, elf, scratch};

/// What the linker made.
pub struct LinkedFile {
    /// Address and bytes of each section.
    pub sections: HashMap<String, (u64, Vec<u8>)>,
    /// The linker's warnings, one per relocation that does not fit.
    pub messages: String,
}

const FLAGS: &str = "-static -O0 --no-gc-sections --build-id=none -z norelro --noinhibit-exec -e 0 --error-limit=0 \
     --no-toc-optimize --no-pcrel-optimize";

/// Links an object by a script.
pub fn link(object: &[u8], script: &str, relax: bool, what: &str) -> LinkedFile {
    // Several tests of a machine run at once.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let file = |suffix: &str| scratch(&format!("{what}-{number}.{suffix}"));
    let [input, commands, output] = ["o", "ld", "elf"].map(file);
    std::fs::write(&input, object).unwrap();
    std::fs::write(&commands, script).unwrap();
    let result = Command::new(LLD)
        .args(FLAGS.split(' '))
        .args((!relax).then_some("--no-relax"))
        .arg("-T")
        .args([&commands, &input])
        .arg("-o")
        .arg(&output)
        .output()
        .unwrap();
    let messages = String::from_utf8_lossy(&result.stderr).into_owned();
    assert!(result.status.success(), "{what}: {messages}");
    let bytes = std::fs::read(&output).unwrap();
    for path in [input, commands, output] {
        std::fs::remove_file(path).unwrap();
    }
    let file = object::File::parse(&bytes[..]).unwrap();
    let sections = file
        .sections()
        .filter(is_allocated)
        .map(|section| (section.name().unwrap().to_owned(), (section.address(), data_or_zeros(&section))));
    LinkedFile { sections: sections.collect(), messages }
}

impl LinkedFile {
    /// The warnings that mean something.
    pub fn complaints<'l>(&'l self, machine: &'l Machine) -> impl Iterator<Item = &'l str> {
        self.messages.lines().filter(|line| {
            let is_harmless = machine.harmless.iter().any(|harmless| line.contains(harmless));
            !is_harmless && !line.is_empty() && !line.starts_with(">>>")
        })
    }
}

pub fn is_allocated<'a>(section: &impl object::ObjectSection<'a>) -> bool {
    matches!(section.flags(), SectionFlags::Elf { sh_flags, .. } if sh_flags.0 & elf::ALLOC != 0)
}

fn data_or_zeros<'a>(section: &impl object::ObjectSection<'a>) -> Vec<u8> {
    let mut bytes = section.data().unwrap().to_vec();
    bytes.resize(section.size() as usize, 0);
    bytes
}
