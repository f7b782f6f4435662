//! Files that flags name: profiles, plug-ins, lists. Their content decides the object, so it is hashed.
//!
//! No list of such flags stays complete. So every value of every flag is looked at: if a regular file has
//! that name, its content is an ingredient. A flag that names a folder lets the compiler choose in there,
//! and its object is not cached, except for folders whose name only is used.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use objcache_signature::Digest;

/// Flags that name folders which do not decide the code beyond what is hashed anyway: names written into
/// debug information, and the roots of headers and of the compiler's own files.
const HARMLESS_FOLDERS: [&str; 13] = [
    "-fdebug-prefix-map=",
    "-fmacro-prefix-map=",
    "-ffile-prefix-map=",
    "-fcoverage-prefix-map=",
    "-fdebug-compilation-dir=",
    "-ffile-compilation-dir=",
    "-fcoverage-compilation-dir=",
    "--sysroot",
    "-isysroot",
    "-resource-dir",
    "--gcc-toolchain=",
    "--gcc-install-dir=",
    "-L",
];

/// What the words of the flags name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct NamedFiles {
    /// Content of the files by the name in the flag.
    pub(super) digests: BTreeMap<String, Digest>,
    /// Why the object cannot be cached.
    pub(super) uncacheable: Vec<String>,
}

impl NamedFiles {
    /// Looks at all `words`, relative names in `directory`.
    ///
    /// # Errors
    /// When a named file cannot be read.
    pub(super) fn of(words: &[String], directory: &Path) -> Result<Self, String> {
        let mut named = Self::default();
        let mut previous = "";
        for word in words {
            let folders_matter = !HARMLESS_FOLDERS
                .iter()
                .any(|harmless| word.starts_with(harmless) || previous == harmless.trim_end_matches('='));
            for name in names(word) {
                named.look_at(word, name, directory, folders_matter)?;
            }
            previous = word;
        }
        Ok(named)
    }

    fn look_at(
        &mut self,
        word: &str,
        name: &str,
        directory: &Path,
        folders_matter: bool,
    ) -> Result<(), String> {
        if is_searched_for(word, name) {
            self.refuse(format!("`{word}`: where `{name}` is found is not known; name it with its folder"));
        }
        let path = directory.join(name);
        let Ok(metadata) = fs::metadata(&path) else { return Ok(()) };
        if metadata.is_file() {
            let content =
                fs::read(&path).map_err(|error| format!("`{word}`: {}: {error}", path.display()))?;
            self.digests.insert(name.to_owned(), Digest::of(&content));
        } else if metadata.is_dir() && folders_matter {
            self.refuse(format!("`{word}`: what the compiler reads in `{name}` is not known"));
        } else if !metadata.is_dir() {
            self.refuse(format!("`{word}`: `{name}` is neither a file nor a folder"));
        }
        Ok(())
    }

    fn refuse(&mut self, why: String) {
        if !self.uncacheable.contains(&why) {
            self.uncacheable.push(why);
        }
    }
}

/// Plug-ins and libraries that are named without a folder are looked for elsewhere than in this directory.
fn is_searched_for(word: &str, name: &str) -> bool {
    let is_library = [".so", ".dylib", ".dll"].iter().any(|suffix| name.ends_with(suffix));
    !name.contains('/') && (is_library || word.starts_with("-fplugin="))
}

/// What may be a file's name in a word: the word itself, unless it is a flag, and whatever follows a `=`, `,`
/// or `:` in it.
fn names(word: &str) -> impl Iterator<Item = &str> {
    let itself = (!word.starts_with('-')).then_some(word);
    let values = word.match_indices(['=', ',', ':']).map(|(at, separator)| &word[at + separator.len()..]);
    let pieces = word.split(['=', ',', ':']).skip(1);
    itself.into_iter().chain(values).chain(pieces).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(words: &[&str], directory: &Path) -> NamedFiles {
        let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
        NamedFiles::of(&words, directory).unwrap()
    }

    #[test]
    fn files_are_found_wherever_a_flag_names_them() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.list"), "fun:x").unwrap();
        fs::create_dir(folder.path().join("profiles")).unwrap();
        let absolute = folder.path().join("a.list").display().to_string();
        for words in [
            vec!["-fsanitize-ignorelist=a.list"],
            vec!["-Xclang", "-load", "-Xclang", "a.list"],
            vec!["-fbasic-block-sections=list=a.list"],
            vec!["-mllvm", "-profile-file=a.list"],
            vec!["-fpass-plugin=a.list"],
            vec!["-Wa,--x,a.list"],
        ] {
            let named = look(&words, folder.path());
            assert_eq!(
                named.digests,
                BTreeMap::from([("a.list".to_owned(), Digest::of(b"fun:x"))]),
                "{words:?}"
            );
            assert_eq!(named.uncacheable, [""; 0]);
        }
        assert!(look(&[&format!("-fplugin={absolute}")], folder.path()).digests.contains_key(&absolute));
        assert_eq!(
            look(&["-O2", "-march=haswell", "-std=c11", "-fprofile-use=absent"], folder.path()),
            NamedFiles::default()
        );
        assert_eq!(look(&["-fprofile-use=profiles"], folder.path()).uncacheable.len(), 1);
        assert_eq!(look(&["-fplugin=dragonegg"], folder.path()).uncacheable.len(), 1);
        assert_eq!(look(&["-fpass-plugin=x.so"], folder.path()).uncacheable.len(), 1);
        assert_eq!(
            look(&["-ffile-prefix-map=profiles=x", "-isysroot", "profiles"], folder.path()),
            NamedFiles::default()
        );
    }
}
