//! The preprocessor's line markers, `# 1 "folder/kernel.c" 2`, and which folder they name.
//!
//! Format: the GNU C preprocessor's manual, "Preprocessor Output"; clang writes the same.

/// `text` with `folder` taken off the names in its line markers; everything else stays byte for byte.
pub(super) fn without_folder(text: &[u8], folder: &str) -> Vec<u8> {
    let folder = folder.trim_end_matches('/');
    if folder.is_empty() {
        return text.to_vec();
    }
    let prefix = format!("{}/", folder.replace('\\', "\\\\").replace('"', "\\\""));
    let mut shortened = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        match name_at(line).filter(|&name| line[name..].starts_with(prefix.as_bytes())) {
            Some(name) => {
                shortened.extend_from_slice(&line[..name]);
                shortened.extend_from_slice(&line[name + prefix.len()..]);
            }
            None => shortened.extend_from_slice(line),
        }
    }
    shortened
}

/// Where the file name begins in a line marker: `# `, digits, ` "`.
fn name_at(line: &[u8]) -> Option<usize> {
    let digits = line.strip_prefix(b"# ")?.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let quote = 2 + digits;
    (digits > 0 && line[quote..].starts_with(b" \"")).then_some(quote + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, folder: &str, expected: &str) {
        let shortened = without_folder(text.as_bytes(), folder);
        assert_eq!(String::from_utf8(shortened).unwrap(), expected);
    }

    #[test]
    fn only_names_in_line_markers_are_shortened() {
        check(
            "# 0 \"/tmp/a/k.c\"\nint x;\n# 1 \"/tmp/a/sub/k.h\" 1\n",
            "/tmp/a",
            "# 0 \"k.c\"\nint x;\n# 1 \"sub/k.h\" 1\n",
        );
        check(
            "# 1 \"/tmp/ab/k.c\"\n# 12 \"/usr/x.h\" 1 3\n",
            "/tmp/a",
            "# 1 \"/tmp/ab/k.c\"\n# 12 \"/usr/x.h\" 1 3\n",
        );
        check(
            "char *s = \"/tmp/a/k.c\";\n# \"/tmp/a/k.c\"\n#1 \"/tmp/a/k.c\"",
            "/tmp/a",
            "char *s = \"/tmp/a/k.c\";\n# \"/tmp/a/k.c\"\n#1 \"/tmp/a/k.c\"",
        );
        check("# 1 \"a\\\"b/k.c\"\n", "a\"b", "# 1 \"k.c\"\n");
    }

    #[test]
    fn no_folder_changes_nothing() {
        check("# 1 \"k.c\"\nint x;", "", "# 1 \"k.c\"\nint x;");
        check("# 1 \"/k.c\"\n", "/", "# 1 \"/k.c\"\n");
        check("", "/tmp", "");
    }
}
