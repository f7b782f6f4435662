//! GNU ld, for `ABSOLUTE`, which `lld-link` does not know: a relocation that does nothing.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use objcache_loader::{FixedMemory, Loader, NoSymbols, Segment};

use crate::kinds;
use crate::lld::image_sections;
use crate::support::coff::{self, Object};
use crate::support::*;

const ABSOLUTE: u16 = 0;

#[test]
fn relocations_that_do_nothing_do_nothing_in_gnu_ld_either() {
    for (machine, linker) in [(coff::X86_64, "x86_64-w64-mingw32-ld"), (coff::I386, "i686-w64-mingw32-ld")] {
        if !has(linker) {
            continue;
        }
        let mut random = Random(u64::from(machine));
        let bytes: Vec<u8> = (0..400).map(|_| random.next() as u8).collect();
        let mut object = Object::new(machine);
        let symbol = object.symbol("start", coff::EXTERNAL, 1, 8);
        let section = object.section(".text", coff::CODE | coff::ALIGN_16, &bytes);
        for _ in 0..40 {
            let offset = random.below(397) as u32;
            section.relocations.push(coff::Relocation { offset, symbol, kind: ABSOLUTE });
        }
        let object = object.build();

        let [input, output] = ["o", "exe"].map(|suffix| scratch(&format!("absolute-{machine:x}.{suffix}")));
        std::fs::write(&input, &object).unwrap();
        let mut command = Command::new(linker);
        command.args(["--disable-reloc-section", "-e", "start", "-o"]).args([&output, &input]);
        let result = command.output().unwrap();
        assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
        let linked = image_sections(&std::fs::read(&output).unwrap(), 0);
        let theirs = &linked[0].1[..bytes.len()];

        let loader = Loader::builder().memory(Arc::new(FixedMemory::at(0x1000_0000))).build();
        let image = loader.load(&object, &NoSymbols).unwrap();
        assert_eq!(&image.linked_bytes(Segment::Code).unwrap()[..bytes.len()], theirs);
        assert_eq!(theirs, bytes);
        let seen: BTreeSet<String> = kinds::of_machine(machine, [(machine, ABSOLUTE)].iter());
        coverage::keep("compared-gnu", "coff", kinds::machine_name(machine), &seen);
    }
}
