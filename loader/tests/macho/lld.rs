//! `ld64.lld`, and what it makes. It decides where everything is; the loader follows.

use std::collections::BTreeMap;
use std::process::Command;

use object::read::macho::MachOFile64;
use object::{LittleEndian, Object as _, ObjectSection as _};

use crate::support::*;

pub(crate) const LD64: &str = "ld64.lld-22";

/// A dynamic library that the linker made.
pub(crate) struct Linked {
    /// Address and content by `SEGMENT,SECTION`.
    pub(crate) sections: BTreeMap<String, (u64, Vec<u8>)>,
    /// Rows of the map's symbols: address, size, number of the file, name.
    pub(crate) rows: Vec<(u64, u64, usize, String)>,
}

pub(crate) fn architecture(cpu: u32) -> &'static str {
    if cpu == macho::ARM64 { "arm64" } else { "x86_64" }
}

/// Links objects without any liberty that a linker may take. An error is the messages.
pub(crate) fn link(cpu: u32, objects: &[&[u8]], what: &str) -> Result<Linked, String> {
    const FLAGS: &str = "-platform_version macos 13.0 13.0 -dylib -no_fixup_chains -ignore_optimization_hints \
        -no_deduplicate --no-deduplicate-strings -undefined dynamic_lookup --error-limit=0";
    let [output, map] = ["dylib", "map"].map(|suffix| scratch(&format!("{what}.{suffix}")));
    let mut command = Command::new(LD64);
    command.args(["-arch", architecture(cpu)]).args(FLAGS.split_whitespace()).arg("-map").arg(&map);
    command.arg("-o").arg(&output);
    let mut inputs = Vec::new();
    for (number, object) in objects.iter().enumerate() {
        let input = scratch(&format!("{what}.{number}.o"));
        std::fs::write(&input, object).unwrap();
        command.arg(&input);
        inputs.push(input);
    }
    let result = command.output().unwrap();
    inputs.iter().for_each(|input| std::fs::remove_file(input).unwrap());
    if !result.status.success() {
        return Err(String::from_utf8_lossy(&result.stderr).into_owned());
    }
    let bytes = std::fs::read(&output).unwrap();
    let rows = rows(&std::fs::read_to_string(&map).unwrap());
    std::fs::remove_file(output).unwrap();
    std::fs::remove_file(map).unwrap();
    let file = MachOFile64::<LittleEndian>::parse(&*bytes).unwrap();
    let sections = file.sections().map(|section| {
        let name = format!("{},{}", section.segment_name().unwrap().unwrap(), section.name().unwrap());
        let mut content = section.data().unwrap().to_vec();
        content.resize(section.size() as usize, 0);
        (name, (section.address(), content))
    });
    Ok(Linked { sections: sections.collect(), rows })
}

/// The rows behind `# Symbols:`: address, size, `[file]` and name, between tabs.
fn rows(map: &str) -> Vec<(u64, u64, usize, String)> {
    let symbols = map.split("# Symbols:").nth(1).unwrap_or_default();
    let row = |line: &str| {
        let mut columns = line.splitn(3, '\t');
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        let (address, size) = (number(columns.next()?)?, number(columns.next()?)?);
        let (file, name) = columns.next()?.trim_start().strip_prefix('[')?.split_once("] ")?;
        Some((address, size, file.trim().parse().ok()?, name.to_owned()))
    };
    symbols.lines().filter_map(row).collect()
}
