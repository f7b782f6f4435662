//! Archives (`.a`, `.lib`) as sources of objects: which member defines a name.
//!
//! One container (`ar(5)`) in four dialects, told apart by their special members: the GNU and SysV index `/` and its
//! 64-bit form `/SYM64/`, with long names in `//`; the BSD and Darwin index `__.SYMDEF`, with long names in front of the
//! member; and Microsoft's, which is the first with a second index behind it ("Archive (Library) File Format" in the PE
//! specification). An archive without an index is indexed by reading its members' symbol tables.

use std::borrow::Cow;
use std::ops::Range;

use crate::error::{LoadError, printable};
use crate::graph::{Binding, SymbolKind, SymbolPlace};
use crate::limits::{Limits, NameBudget};
use crate::read;

/// An archive, as bytes of its file. Untrusted: what contradicts itself is refused.
pub struct Archive<'a> {
    members: Vec<Member<'a>>,
    /// Defined names, sorted, with the numbers of the members that define them, the first in the index first.
    index: Vec<(&'a [u8], u32)>,
}

/// A file in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    name: &'a [u8],
    bytes: &'a [u8],
    /// Offset of the header in the archive: what an index says.
    offset: usize,
}

impl<'a> Member<'a> {
    /// The name; bytes that are not UTF-8 are replaced. Several members may have the same.
    pub fn name(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.name)
    }

    /// The content: an object, if the archive is a library.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// A COFF import library's description of one function of a DLL ("Import Library Format"), not an object. Its names
    /// are a resolver's business.
    fn is_short_import(&self) -> bool {
        matches!(self.bytes, [0, 0, 0xff, 0xff, 0, 0, ..])
    }
}

/// How an archive begins.
const MAGIC: &[u8] = b"!<arch>\n";

impl<'a> Archive<'a> {
    /// Reads an archive's headers and its index, with the default [`Limits`].
    ///
    /// # Errors
    /// The bytes are no archive, contradict themselves, or are a thin archive, whose members are files elsewhere.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, LoadError> {
        Self::parse_within(bytes, &Limits::default())
    }

    /// The same with limits of the caller's.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_within(bytes: &'a [u8], limits: &Limits) -> Result<Self, LoadError> {
        match bytes {
            [b'!', b'<', b't', b'h', b'i', b'n', b'>', b'\n', ..] => Err(LoadError::unsupported(
                "a thin archive: its members are other files; make an ordinary one of them".to_owned(),
            )),
            _ if bytes.starts_with(MAGIC) => Self::read(bytes, limits),
            _ => Err(LoadError::UnknownFormat("it is no archive".to_owned())),
        }
    }

    fn read(bytes: &'a [u8], limits: &Limits) -> Result<Self, LoadError> {
        let mut files = Files { bytes, next: MAGIC.len(), long_names: &[] };
        let mut archive = Archive { members: Vec::new(), index: Vec::new() };
        let mut index = None;
        while let Some(file) = files.next()? {
            match file {
                // Microsoft's archives have a second `/`, of the same content in another order.
                File::Index(kind, content) => index = index.or(Some((kind, content))),
                File::Special => {}
                File::Member(member) => archive.members.push(member),
            }
        }
        match index {
            Some((kind, content)) => archive.read_index(kind, content, limits)?,
            None => archive.make_index(limits)?,
        }
        archive.index.sort_by_key(|(name, _)| *name);
        Ok(archive)
    }

    /// The files in the archive, in order, without those that only serve the archive itself.
    pub fn members(&self) -> impl ExactSizeIterator<Item = Member<'a>> {
        self.members.iter().copied()
    }

    /// The first member that defines a name. The name is as in the object: with the underscore that some platforms put
    /// in front.
    pub fn member_defining(&self, name: &str) -> Option<Member<'a>> {
        let found = self.index.partition_point(|(other, _)| *other < name.as_bytes());
        let (_, number) = self.index.get(found).filter(|(other, _)| *other == name.as_bytes())?;
        self.members.get(*number as usize).copied()
    }

    /// All names that members define, sorted, each with its member.
    pub fn symbols(&self) -> impl Iterator<Item = (Cow<'a, str>, Member<'a>)> {
        self.index
            .iter()
            .map(|(name, number)| (String::from_utf8_lossy(name), self.members[*number as usize]))
    }

    /// Takes over the archive's own index. Names of short imports are left out.
    fn read_index(&mut self, kind: IndexKind, content: &'a [u8], limits: &Limits) -> Result<(), LoadError> {
        let Some(entries) = kind.entries(content) else {
            return Err(malformed_index("its counts and sizes do not fit each other"));
        };
        let mut budget = NameBudget::of(limits);
        for (offset, name) in entries {
            let name = name.ok_or_else(|| malformed_index("a name reaches past its end"))?;
            budget.spend(name)?;
            let found = self.members.binary_search_by_key(&offset, |member| member.offset as u64);
            let number = found.map_err(|_| {
                malformed_index(&format!("`{}` is at {offset:#x}, where no member begins", printable(name)))
            })?;
            if !self.members[number].is_short_import() {
                self.index.push((name, number as u32));
            }
        }
        Ok(())
    }

    /// Reads the symbols of all members. Members that are no objects we know define nothing.
    fn make_index(&mut self, limits: &Limits) -> Result<(), LoadError> {
        let mut budget = NameBudget::of(limits);
        for (number, member) in self.members.iter().enumerate() {
            let symbols = match read::parse_symbols(member.bytes, limits) {
                Err(LoadError::UnknownFormat(_) | LoadError::Unsupported(_)) => continue,
                parsed => parsed.map_err(|error| in_member(error, member))?,
            };
            symbols.try_for_each(|_, symbol| {
                let defined = match symbol.place {
                    SymbolPlace::Undefined => false,
                    SymbolPlace::Section(_) | SymbolPlace::Absolute | SymbolPlace::Common => true,
                };
                let named = !matches!(symbol.kind, SymbolKind::Section | SymbolKind::File);
                if defined && named && symbol.binding != Binding::Local {
                    let name = symbols.name(&symbol)?;
                    budget.spend(name)?;
                    self.index.push((name, number as u32));
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Archive<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (members, symbols) = (self.members.len(), self.index.len());
        f.debug_struct("Archive").field("members", &members).field("symbols", &symbols).finish()
    }
}

#[cold]
fn malformed_index(why: &str) -> LoadError {
    LoadError::malformed("index of the archive", why)
}

#[cold]
fn in_member(error: LoadError, member: &Member<'_>) -> LoadError {
    match error {
        LoadError::Malformed { place, why } => {
            LoadError::malformed(format!("{}: {place}", printable(member.name)), why)
        }
        other => other,
    }
}

/// What stands between two headers.
enum File<'a> {
    Index(IndexKind, &'a [u8]),
    /// Serves the archive itself.
    Special,
    Member(Member<'a>),
}

/// Walks the headers.
struct Files<'a> {
    bytes: &'a [u8],
    next: usize,
    long_names: &'a [u8],
}

impl<'a> Files<'a> {
    /// Sixteen bytes of name, 32 of dates and owners, ten of size, and a mark.
    const HEADER: usize = 60;
    const NAME: Range<usize> = 0..16;
    const SIZE: Range<usize> = 48..58;
    const MARK: &'static [u8] = b"`\n";

    fn next(&mut self) -> Result<Option<File<'a>>, LoadError> {
        let offset = self.next;
        let malformed = |why: &str| LoadError::malformed(format!("archive at {offset:#x}"), why);
        let rest = self.bytes.get(offset..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let Some((header, rest)) = rest.split_at_checked(Self::HEADER) else {
            return Err(malformed("it ends within a header"));
        };
        if !header.ends_with(Self::MARK) {
            return Err(malformed("no header is there"));
        }
        let size = decimal(&header[Self::SIZE]).ok_or_else(|| malformed("the size is no number"))?;
        let content =
            rest.get(..size).ok_or_else(|| malformed("the member reaches past the end of the archive"))?;
        // Members begin at even offsets.
        self.next = offset + Self::HEADER + size + size % 2;
        let file = self.identify(&header[Self::NAME], content, offset);
        file.map(Some).ok_or_else(|| malformed("the member's name is not where it says"))
    }

    fn identify(&mut self, field: &'a [u8], content: &'a [u8], offset: usize) -> Option<File<'a>> {
        let field = field.trim_ascii_end();
        let member = |name, bytes| Some(File::Member(Member { name, bytes, offset }));
        match field {
            b"/" => Some(File::Index(IndexKind::Gnu32, content)),
            b"/SYM64/" => Some(File::Index(IndexKind::Gnu64, content)),
            b"//" => {
                self.long_names = content;
                Some(File::Special)
            }
            // Of Microsoft's linker: `/<ECSYMBOLS>/`, `/<HYBRIDMAP>/`, `/<XFGHASHMAP>/`.
            [b'/', b'<', ..] => Some(File::Special),
            [b'#', b'1', b'/', digits @ ..] => {
                let (name, content) = content.split_at_checked(decimal(digits)?)?;
                let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
                match bsd_index(&name[..end]) {
                    Some(kind) => Some(File::Index(kind, content)),
                    None => member(&name[..end], content),
                }
            }
            [b'/', digits @ ..] => member(self.long_name(decimal(digits)?)?, content),
            name => match bsd_index(name) {
                Some(kind) => Some(File::Index(kind, content)),
                None => member(name.strip_suffix(b"/").unwrap_or(name), content),
            },
        }
    }

    /// GNU ends long names with `/` and a line feed, Microsoft with a NUL.
    fn long_name(&self, offset: usize) -> Option<&'a [u8]> {
        let tail = self.long_names.get(offset..)?;
        let end = tail.iter().position(|byte| matches!(byte, b'\n' | 0))?;
        Some(tail[..end].strip_suffix(b"/").unwrap_or(&tail[..end]))
    }
}

fn decimal(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits.trim_ascii()).ok()?.parse().ok()
}

fn bsd_index(name: &[u8]) -> Option<IndexKind> {
    match name {
        b"__.SYMDEF" | b"__.SYMDEF SORTED" => Some(IndexKind::Bsd32),
        b"__.SYMDEF_64" | b"__.SYMDEF_64 SORTED" => Some(IndexKind::Bsd64),
        _ => None,
    }
}

/// How an index is written.
#[derive(Debug, Clone, Copy)]
enum IndexKind {
    /// Big-endian: a count, as many offsets, as many strings one after the other.
    Gnu32,
    Gnu64,
    /// Little-endian: the size of the pairs (string's offset, member's offset), the pairs, the strings' size, the strings.
    Bsd32,
    Bsd64,
}

/// An index entry: the member's offset, and the name if it is there.
type IndexEntry<'a> = (u64, Option<&'a [u8]>);

impl IndexKind {
    fn entries<'a>(self, content: &'a [u8]) -> Option<Box<dyn Iterator<Item = IndexEntry<'a>> + 'a>> {
        match self {
            IndexKind::Gnu32 => gnu(content, |word| u32::from_be_bytes(word).into()),
            IndexKind::Gnu64 => gnu(content, u64::from_be_bytes),
            IndexKind::Bsd32 => bsd(content, |word| u32::from_le_bytes(word).into()),
            IndexKind::Bsd64 => bsd(content, u64::from_le_bytes),
        }
    }
}

fn gnu<'a, const N: usize>(
    content: &'a [u8],
    number: fn([u8; N]) -> u64,
) -> Option<Box<dyn Iterator<Item = IndexEntry<'a>> + 'a>> {
    let (count, rest) = content.split_first_chunk::<N>()?;
    let bytes = usize::try_from(number(*count)).ok()?.checked_mul(N)?;
    let (offsets, mut strings) = rest.split_at_checked(bytes)?;
    Some(Box::new(words::<N>(offsets).map(move |offset| {
        let name = until_nul(strings);
        strings = name.and_then(|name| strings.get(name.len() + 1..)).unwrap_or_default();
        (number(offset), name)
    })))
}

fn bsd<'a, const N: usize>(
    content: &'a [u8],
    number: fn([u8; N]) -> u64,
) -> Option<Box<dyn Iterator<Item = IndexEntry<'a>> + 'a>> {
    let (size, rest) = content.split_first_chunk::<N>()?;
    let (pairs, rest) = rest.split_at_checked(usize::try_from(number(*size)).ok()?)?;
    let (size, rest) = rest.split_first_chunk::<N>()?;
    let strings = rest.get(..usize::try_from(number(*size)).ok()?)?;
    let pairs = pairs.chunks_exact(2 * N);
    if !pairs.remainder().is_empty() {
        return None;
    }
    Some(Box::new(pairs.filter_map(move |pair| {
        let mut pair = words::<N>(pair);
        let (string, offset) = (number(pair.next()?), number(pair.next()?));
        let tail = usize::try_from(string).ok().and_then(|string| strings.get(string..));
        Some((offset, tail.and_then(until_nul)))
    })))
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.chunks_exact(N).filter_map(|word| word.first_chunk().copied())
}

fn until_nul(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some(&bytes[..end])
}
