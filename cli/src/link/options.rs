//! Arguments of `link` that have a form of their own.

use std::str::FromStr;

/// `FILE,SECTION=ADDR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SectionAddress {
    /// Last component of the object's path.
    pub(crate) file: String,
    pub(crate) section: String,
    pub(crate) address: u64,
}

/// `NAME=ADDR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) address: u64,
}

/// An address: decimal, or hexadecimal after `0x`.
pub(crate) fn address(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| format!("`{text}` is no address: {error}"))
}

impl FromStr for SectionAddress {
    type Err = String;

    /// Section names of Mach-O hold a comma themselves, so the first one counts; names may hold an equals sign, so the
    /// last one of those.
    fn from_str(text: &str) -> Result<Self, String> {
        let (file, rest) = text.split_once(',').ok_or("FILE,SECTION=ADDR is needed")?;
        let (section, number) = rest.rsplit_once('=').ok_or("FILE,SECTION=ADDR is needed")?;
        Ok(SectionAddress { file: file.to_owned(), section: section.to_owned(), address: address(number)? })
    }
}

impl FromStr for Definition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, number) = text.rsplit_once('=').ok_or("NAME=ADDR is needed")?;
        Ok(Definition { name: name.to_owned(), address: address(number)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!((address("0x1F"), address("31")), (Ok(31), Ok(31)));
        assert!(address("0x").is_err() && address("-1").is_err() && address("0x1_0000").is_err());
        let parsed: SectionAddress = "a.o,__TEXT,__text=0x10".parse().unwrap();
        assert_eq!(
            (parsed.file.as_str(), parsed.section.as_str(), parsed.address),
            ("a.o", "__TEXT,__text", 16)
        );
        assert!("a.o=1".parse::<SectionAddress>().is_err());
        let parsed: Definition = "a=b=1".parse().unwrap();
        assert_eq!((parsed.name.as_str(), parsed.address), ("a=b", 1));
    }
}
