//! `.comment` of an ELF relocatable object, read and replaced.
//!
//! Replacing appends: the new contents go to the end of the file, and only the header that points to them is
//! changed. So no offset in the file moves, and whatever the compiler laid out stays as it was. Where there
//! was no `.comment`, the section header table and the section name table are appended too, each with one
//! entry more (System V gABI chapter 4: both are found by offset, so they may stand anywhere).

use object::elf::{
    ET_REL, FileHeader32, FileHeader64, SHF_ALLOC, SHF_MERGE, SHF_STRINGS, SHN_LORESERVE, SHT_PROGBITS,
};
use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, FileKind};

use super::RecordError;

const NAME: &[u8] = b".comment";

/// The contents of every `.comment` of `object`.
pub(super) fn comments(object: &[u8]) -> Result<Vec<&[u8]>, RecordError> {
    match class(object)? {
        Class::Elf32 => Headers::<FileHeader32<Endianness>>::read(object)?.comments(),
        Class::Elf64 => Headers::<FileHeader64<Endianness>>::read(object)?.comments(),
    }
}

/// `object` with the contents of its (first) `.comment` replaced.
pub(super) fn with_comment(
    object: &[u8],
    replace: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Result<Vec<u8>, RecordError> {
    match class(object)? {
        Class::Elf32 => Headers::<FileHeader32<Endianness>>::read(object)?.with_comment(&ELF32, replace),
        Class::Elf64 => Headers::<FileHeader64<Endianness>>::read(object)?.with_comment(&ELF64, replace),
    }
}

enum Class {
    Elf32,
    Elf64,
}

fn class(object: &[u8]) -> Result<Class, RecordError> {
    match FileKind::parse(object) {
        Ok(FileKind::Elf32) => Ok(Class::Elf32),
        Ok(FileKind::Elf64) => Ok(Class::Elf64),
        Ok(_) => Err(RecordError::UnsupportedFormat("another object format")),
        Err(_) => Err(RecordError::UnsupportedFormat("not an object file")),
    }
}

/// Where the fields that we write stand: gABI, "ELF Header" and "Section Header".
struct Fields {
    word: usize,
    e_shoff: usize,
    e_shnum: usize,
    sh_flags: usize,
    sh_offset: usize,
    sh_size: usize,
    sh_addralign: usize,
    sh_entsize: usize,
    section_header: usize,
}

const SH_TYPE: usize = 4;

const ELF32: Fields = Fields {
    word: 4,
    e_shoff: 32,
    e_shnum: 48,
    sh_flags: 8,
    sh_offset: 16,
    sh_size: 20,
    sh_addralign: 32,
    sh_entsize: 36,
    section_header: 40,
};

const ELF64: Fields = Fields {
    word: 8,
    e_shoff: 40,
    e_shnum: 60,
    sh_flags: 8,
    sh_offset: 24,
    sh_size: 32,
    sh_addralign: 48,
    sh_entsize: 56,
    section_header: 64,
};

/// The headers of an object, and the object.
struct Headers<'a, Elf: FileHeader<Endian = Endianness>> {
    object: &'a [u8],
    endian: Endianness,
    header: &'a Elf,
    sections: &'a [Elf::SectionHeader],
    names_index: usize,
}

impl<'a, Elf: FileHeader<Endian = Endianness>> Headers<'a, Elf> {
    fn read(object: &'a [u8]) -> Result<Self, RecordError> {
        let header = Elf::parse(object)?;
        let endian = header.endian()?;
        if header.e_type(endian) != ET_REL {
            return Err(RecordError::UnsupportedFormat("a linked ELF file"));
        }
        let sections = header.section_headers(endian, object)?;
        if sections.is_empty() {
            return Err(RecordError::Malformed("there is no section header table".to_owned()));
        }
        let names_index = header.shstrndx(endian, object)? as usize;
        Ok(Self { object, endian, header, sections, names_index })
    }

    fn names(&self) -> Result<&'a [u8], RecordError> {
        let section = self.sections.get(self.names_index);
        let section =
            section.ok_or_else(|| RecordError::Malformed("there is no section name table".to_owned()))?;
        Ok(section.data(self.endian, self.object)?)
    }

    /// Whether this section is a `.comment`. A name that does not read is not ours to complain about.
    fn is_comment(&self, section: &Elf::SectionHeader, names: &[u8]) -> bool {
        let name = names.get(section.sh_name(self.endian) as usize..).unwrap_or_default();
        section.sh_type(self.endian) == SHT_PROGBITS
            && !section.sh_flags(self.endian).contains(SHF_ALLOC)
            && name.strip_prefix(NAME).is_some_and(|rest| rest.first() == Some(&0))
    }

    fn comments(&self) -> Result<Vec<&'a [u8]>, RecordError> {
        let names = self.names()?;
        self.sections
            .iter()
            .filter(|section| self.is_comment(section, names))
            .map(|section| Ok(section.data(self.endian, self.object)?))
            .collect()
    }

    fn with_comment(
        &self,
        fields: &Fields,
        replace: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Result<Vec<u8>, RecordError> {
        let names = self.names()?;
        let existing = self.sections.iter().position(|section| self.is_comment(section, names));
        let mut patch = Patch { out: self.object.to_vec(), endian: self.endian, fields };
        match existing {
            Some(index) => {
                let comment = replace(self.sections[index].data(self.endian, self.object)?);
                let at = self.section_table() + index * fields.section_header;
                patch.append_contents(at, &comment);
            }
            None => self.append_section(&mut patch, names, &replace(&[])),
        }
        patch.finish()
    }

    /// File offset of the section header table: it was read from there, so it fits.
    fn section_table(&self) -> usize {
        let offset: u64 = self.header.e_shoff(self.endian).into();
        offset as usize
    }

    fn append_section(&self, patch: &mut Patch<'_>, names: &[u8], comment: &[u8]) {
        let header = patch.fields.section_header;
        let old_table = self.section_table()..self.section_table() + self.sections.len() * header;
        let table = patch.append(&self.object[old_table], patch.fields.word);
        let new_header = patch.append(&vec![0; header], 1);
        patch.set_word(patch.fields.e_shoff, table as u64);
        self.count_one_more(patch, table);

        let new_names = [names, NAME, b"\0"].concat();
        patch.append_contents(table + self.names_index * header, &new_names);

        patch.set(new_header, 4, names.len() as u64);
        patch.set(new_header + SH_TYPE, 4, u64::from(SHT_PROGBITS.0));
        patch.set_word(new_header + patch.fields.sh_flags, (SHF_MERGE | SHF_STRINGS).0);
        patch.set_word(new_header + patch.fields.sh_addralign, 1);
        patch.set_word(new_header + patch.fields.sh_entsize, 1);
        patch.append_contents(new_header, comment);
    }

    /// From `SHN_LORESERVE` sections on, the number stands in `sh_size` of section 0 (gABI, "ELF Header").
    fn count_one_more(&self, patch: &mut Patch<'_>, table: usize) {
        let count = self.sections.len() as u64 + 1;
        if count < u64::from(SHN_LORESERVE) {
            patch.set(patch.fields.e_shnum, 2, count);
        } else {
            patch.set(patch.fields.e_shnum, 2, 0);
            patch.set_word(table + patch.fields.sh_size, count);
        }
    }
}

/// A copy of the object that grows at its end.
struct Patch<'f> {
    out: Vec<u8>,
    endian: Endianness,
    fields: &'f Fields,
}

impl Patch<'_> {
    /// The file offset at which `bytes` now stand.
    fn append(&mut self, bytes: &[u8], align: usize) -> usize {
        self.out.resize(self.out.len().next_multiple_of(align), 0);
        let offset = self.out.len();
        self.out.extend(bytes);
        offset
    }

    /// Appends `contents` and makes the section header at `header` point to them.
    fn append_contents(&mut self, header: usize, contents: &[u8]) {
        let offset = self.append(contents, 1);
        self.set_word(header + self.fields.sh_offset, offset as u64);
        self.set_word(header + self.fields.sh_size, contents.len() as u64);
    }

    fn set_word(&mut self, at: usize, value: u64) {
        self.set(at, self.fields.word, value);
    }

    fn set(&mut self, at: usize, width: usize, value: u64) {
        let field = &mut self.out[at..at + width];
        match self.endian {
            Endianness::Little => field.copy_from_slice(&value.to_le_bytes()[..width]),
            Endianness::Big => field.copy_from_slice(&value.to_be_bytes()[8 - width..]),
        }
    }

    fn finish(self) -> Result<Vec<u8>, RecordError> {
        if self.fields.word == 4 && u32::try_from(self.out.len()).is_err() {
            return Err(RecordError::Malformed("with its record it would pass 4 GiB".to_owned()));
        }
        Ok(self.out)
    }
}

impl From<object::read::Error> for RecordError {
    fn from(error: object::read::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}
