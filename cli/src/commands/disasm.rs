//! `disasm`: the code of an object as instructions, with symbols and relocations where they are.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;

use clap::{Args, ValueEnum};
use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter, Instruction, IntelFormatter};
use objcache::loader::{InspectedSection, Inspection, Segment, SymbolKind};
use serde::Serialize;

use super::relocs::target;
use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::inspected::{Inspected, ObjectOptions};
use crate::output::{Report, Text, printable};

/// Disassemble an entry's object, or an object file
///
/// x86 code is disassembled here; for other machines llvm-objdump must be installed.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    object: ObjectOptions,

    /// Only this function
    #[arg(short, long, value_name = "NAME")]
    symbol: Option<String>,

    /// How x86 instructions are written
    #[arg(long, value_name = "SYNTAX", default_value = "intel")]
    syntax: Syntax,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Syntax {
    /// `mov eax, 1`.
    Intel,
    /// `mov $1, %eax`.
    Att,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let inspected = options.object.read(context)?;
    let contents = &inspected.contents;
    if let Some(name) = &options.symbol
        && !contents.symbols.iter().any(|symbol| symbol.name == *name && symbol.section.is_some())
    {
        let message = format!("{} does not define `{name}`", inspected.name);
        return Err(
            Failure::finding("unknown_function", message).hint("objcache symbols lists what it defines")
        );
    }
    let bits = match contents.machine {
        "x86_64" => Some(64),
        "i386" | "i586" | "i686" => Some(32),
        _ => None,
    };
    let report = match bits {
        Some(bits) => DisassemblyReport {
            machine: contents.machine,
            disassembler: "iced-x86".to_owned(),
            lines: lines(contents, bits, options),
            text: None,
        },
        None => by_objdump(&inspected, options)?,
    };
    context.output.report(&report)?;
    Ok(Status::Fine)
}

#[derive(Serialize)]
struct DisassemblyReport {
    machine: &'static str,
    disassembler: String,
    lines: Vec<Line>,
    text: Option<String>,
}

/// One instruction, with what stands before and behind it.
#[derive(Serialize)]
struct Line {
    section: String,
    offset: u64,
    /// Symbols that begin here.
    symbols: Vec<String>,
    /// Hexadecimal.
    bytes: String,
    instruction: String,
    relocations: Vec<String>,
}

/// All instructions of all sections with code, or those of one function.
fn lines(contents: &Inspection, bits: u32, options: &Options) -> Vec<Line> {
    let code = contents.sections.iter().filter(|section| section.segment == Segment::Code);
    code.flat_map(|section| section_lines(contents, section, bits, options)).collect()
}

fn section_lines(
    contents: &Inspection,
    section: &InspectedSection,
    bits: u32,
    options: &Options,
) -> Vec<Line> {
    let mut names: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for symbol in contents.symbols.iter().filter(|symbol| symbol.section == Some(section.number)) {
        if !symbol.name.is_empty() && !matches!(symbol.kind, SymbolKind::Section | SymbolKind::File) {
            names.entry(symbol.value).or_default().push(symbol.name.clone());
        }
    }
    let Some(range) = range(contents, section, &names, options.symbol.as_deref()) else { return Vec::new() };
    let mut formatter: Box<dyn Formatter> = match options.syntax {
        Syntax::Intel => {
            let mut formatter = IntelFormatter::new();
            formatter.options_mut().set_space_after_operand_separator(true);
            Box::new(formatter)
        }
        Syntax::Att => Box::new(GasFormatter::new()),
    };
    let end = range.end.min(section.bytes.len());
    let code = section.bytes.get(range.start..end).unwrap_or_default();
    let mut decoder = Decoder::with_ip(bits, code, range.start as u64, DecoderOptions::NONE);
    let mut relocations =
        section.relocations.iter().skip_while(|it| it.offset < range.start as u64).peekable();
    let mut lines = Vec::new();
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let (offset, next) = (instruction.ip(), instruction.next_ip());
        let mut line = Line {
            section: section.name.clone(),
            offset,
            symbols: names.remove(&offset).unwrap_or_default(),
            bytes: String::new(),
            instruction: String::new(),
            relocations: Vec::new(),
        };
        formatter.format(&instruction, &mut line.instruction);
        let bytes = section.bytes.get(offset as usize..next as usize).unwrap_or_default();
        line.bytes = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        while let Some(relocation) = relocations.next_if(|it| it.offset < next) {
            line.relocations.push(format!(
                "{} {}",
                relocation.kind,
                target(&relocation.symbol, relocation.addend)
            ));
        }
        lines.push(line);
    }
    lines
}

/// The part of a section that is wanted; `None`: the function is in another.
fn range(
    contents: &Inspection,
    section: &InspectedSection,
    names: &BTreeMap<u64, Vec<String>>,
    wanted: Option<&str>,
) -> Option<std::ops::Range<usize>> {
    let Some(wanted) = wanted else { return Some(0..section.bytes.len()) };
    let is_it = |symbol: &&objcache::loader::InspectedSymbol| {
        symbol.section == Some(section.number) && symbol.name == wanted
    };
    let symbol = contents.symbols.iter().find(is_it)?;
    let start = usize::try_from(symbol.value).ok()?;
    // Without a size a function ends where the next symbol begins.
    let next =
        names.range(symbol.value + 1..).next().map_or(section.bytes.len() as u64, |(offset, _)| *offset);
    let end = if symbol.size > 0 { symbol.value.saturating_add(symbol.size) } else { next };
    Some(start..usize::try_from(end).unwrap_or(usize::MAX))
}

impl Report for DisassemblyReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        if let Some(whole) = &self.text {
            return whole.lines().try_for_each(|line| {
                writeln!(text.out, "{}", line.replace(|c: char| c.is_control() && c != '\t', "?"))
            });
        }
        let mut section = "";
        for line in &self.lines {
            if line.section != section {
                section = &line.section;
                text.heading(section)?;
            }
            for symbol in &line.symbols {
                text.line(format!("{symbol}:"))?;
            }
            // Ten bytes fit; of the few longer instructions the bytes push the rest aside.
            let instruction = format!("{:6x}  {:20}  {}", line.offset, line.bytes, line.instruction);
            match line.relocations.is_empty() {
                true => text.line(instruction)?,
                false => text.line(format!("{instruction:62}  ; {}", line.relocations.join(", ")))?,
            }
        }
        Ok(())
    }
}

/// For machines that we have no disassembler for.
fn by_objdump(inspected: &Inspected, options: &Options) -> Result<DisassemblyReport, Failure> {
    let machine = inspected.contents.machine;
    let objdump = objdump().ok_or_else(|| {
        let message = format!("{machine} code is disassembled by llvm-objdump, which is not installed");
        Failure::finding("no_disassembler", message).hint("install LLVM's tools (the package llvm)")
    })?;
    let failed = |error: &io::Error| Failure::io(&objdump, error);
    let mut file = tempfile::Builder::new().suffix(".o").tempfile().map_err(|error| failed(&error))?;
    file.write_all(&inspected.bytes).map_err(|error| failed(&error))?;
    let mut command = Command::new(&objdump);
    command.args(["--disassemble", "--reloc"]);
    if let Some(name) = &options.symbol {
        command.arg(format!("--disassemble-symbols={name}"));
    }
    let output = command.arg(file.path()).output().map_err(|error| failed(&error))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        let message = format!("{}: {}", objdump.display(), printable(why.trim()));
        return Err(Failure::finding("no_disassembler", message));
    }
    let text =
        String::from_utf8_lossy(&output.stdout).replace(&*file.path().to_string_lossy(), &inspected.name);
    let text = text.trim_start().to_owned();
    Ok(DisassemblyReport {
        machine,
        disassembler: objdump.display().to_string(),
        lines: Vec::new(),
        text: Some(text),
    })
}

/// `llvm-objdump`, or one of a version, the newest first, on the path.
fn objdump() -> Option<PathBuf> {
    const NEWEST: u32 = 30;
    const OLDEST: u32 = 12;
    let versions = (OLDEST..=NEWEST).rev().map(|version| format!("llvm-objdump-{version}"));
    let path = std::env::var_os("PATH")?;
    let folders: Vec<_> = std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
    let on_path = |name: String| folders.iter().map(|folder| folder.join(&name)).find(|file| file.is_file());
    ["llvm-objdump".to_owned()].into_iter().chain(versions).find_map(on_path)
}
