//! `.drectve`: what the compiler has to say to the linker, as command line arguments.
//!
//! Most of it is for the making of a program or library (`/DEFAULTLIB`, `/EXPORT`, `/FAILIFMISMATCH`) and is left
//! to whoever listens ([`LoadedObject::directives`](crate::LoadedObject::directives)). One changes what this object
//! means: `-aligncomm`, by which GNU tools say how common symbols are aligned.

/// Alignments of common symbols, as powers of two, sorted by name.
#[derive(Default)]
pub(super) struct CommonAlignments<'a>(Vec<(&'a [u8], u8)>);

impl<'a> CommonAlignments<'a> {
    /// Adds those of one section of directives. [`finish`](Self::finish) when all have been read.
    pub(super) fn read(&mut self, directives: &'a [u8]) {
        for argument in arguments(directives) {
            let value =
                argument.strip_prefix(b"-aligncomm:").or_else(|| argument.strip_prefix(b"/aligncomm:"));
            if let Some((name, exponent)) = value.and_then(named_exponent) {
                self.0.push((name, exponent));
            }
        }
    }

    pub(super) fn finish(mut self) -> Self {
        self.0.sort_unstable();
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The exponent for a name; of several the largest.
    pub(super) fn get(&self, name: &[u8]) -> Option<u8> {
        let end = self.0.partition_point(|(other, _)| *other <= name);
        self.0[..end].last().filter(|(other, _)| *other == name).map(|(_, exponent)| *exponent)
    }
}

/// Arguments are separated by white space, which quotation marks protect.
fn arguments(directives: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let pieces = directives.split(move |byte| {
        quoted ^= *byte == b'"';
        !quoted && matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0)
    });
    pieces.filter(|piece| !piece.is_empty())
}

/// `name,exponent`, the name perhaps in quotation marks.
fn named_exponent(value: &[u8]) -> Option<(&[u8], u8)> {
    let comma = value.iter().rposition(|byte| *byte == b',')?;
    let (name, exponent) = (&value[..comma], &value[comma + 1..]);
    let unquoted = name.strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\""));
    let exponent = std::str::from_utf8(exponent).ok()?.trim_matches('"').parse().ok()?;
    Some((unquoted.unwrap_or(name), exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignments_are_found_among_other_directives() {
        let mut alignments = CommonAlignments::default();
        alignments
            .read(b" -export:f -aligncomm:\"_a b\",3 /DEFAULTLIB:libcmt -aligncomm:_c,5 -aligncomm:_c,4");
        let alignments = alignments.finish();
        assert_eq!(alignments.get(b"_a b"), Some(3));
        assert_eq!(alignments.get(b"_c"), Some(5));
        assert_eq!(alignments.get(b"_d"), None);
        assert_eq!(alignments.get(b"_"), None);
    }

    #[test]
    fn nonsense_is_no_alignment() {
        let mut alignments = CommonAlignments::default();
        alignments.read(b"-aligncomm:x,999 -aligncomm:y -aligncomm: \" -aligncomm:z,1");
        assert!(alignments.is_empty());
    }
}
