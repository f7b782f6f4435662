//! Text that makes the assembler, or a later stage, read further files: `.incbin`, `.include`, `#embed`.
//!
//! Such text does not decide the object by itself, so its object is not cached. In C the directive stands in
//! string literals that may be cut anywhere (`".inc" "bin"`) and hold escapes; they are joined before the
//! search. Directives that an assembler macro puts together out of its arguments (`.inc\what "x"`) are taken for
//! the worst. Those whose first letter already is an argument are out of reach, unless a file's name stands
//! beside them; whoever does that must declare the file as an external input.

/// Why an object of this text cannot be cached, if it cannot.
pub(super) fn find(text: &[u8]) -> Option<String> {
    if let Some(directive) = assembly_directive(&join(text)) {
        return Some(format!("its assembly has `{directive}`, whose file is not known"));
    }
    if makes_directive(text) {
        return Some(
            "its assembly makes directives out of a macro's arguments, which may read files".to_owned(),
        );
    }
    // What is left of the preprocessor's directives names a file that the compiler itself would read.
    let left_over = text.split(|&byte| byte == b'\n').filter_map(directive).find(|line| {
        line.starts_with(b"embed")
            || line.starts_with(b"include")
            || line.starts_with(b"pragmaGCCpch_preprocess")
    });
    left_over
        .map(|line| format!("`#{}` is left in it after the preprocessor", String::from_utf8_lossy(&line)))
}

fn assembly_directive(joined: &[u8]) -> Option<&'static str> {
    let dots = joined.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
    dots.into_iter().find_map(|at| match &joined[at + 1..] {
        [b'i', b'n', b'c', b'b', b'i', b'n', ..] => Some(".incbin"),
        [b'i', b'n', b'c', b'l', b'u', b'd', b'e', rest @ ..] if !is_member(&joined[..at], rest) => {
            Some(".include")
        }
        _ => None,
    })
}

/// Whether an assembler macro may make `.incbin` or `.include` out of an argument: `.inc\what`. Within quotes, in
/// C and in LLVM IR, the backslash itself is escaped.
fn makes_directive(text: &[u8]) -> bool {
    text.split(|&byte| byte == b'\n').any(|line| {
        let statement_is_argument = line.trim_ascii_start().starts_with(b"\\") && line.contains(&b'"');
        let mut quoted = false;
        statement_is_argument
            || line.iter().enumerate().any(|(at, &byte)| {
                quoted ^= byte == b'"';
                byte == b'.'
                    && begins_statement(&line[..at])
                    && is_completed_by_argument(&line[at + 1..], quoted)
            })
    })
}

/// Whether what follows is not the middle of a name. Blanks may be escaped: `\n`, and in LLVM IR `\0A`.
fn begins_statement(before: &[u8]) -> bool {
    let blanks = [&b"\\n"[..], b"\\t", b"\\0A", b"\\09"];
    let blank = blanks.iter().any(|escape| before.ends_with(escape));
    blank
        || !before
            .last()
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'.'))
}

fn is_completed_by_argument(after: &[u8], quoted: bool) -> bool {
    let letters = after.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let (written, rest) = after.split_at(letters);
    let may_become =
        |directive: &[u8]| directive.len() >= letters && directive[..letters].eq_ignore_ascii_case(written);
    let backslashes: &[&[u8]] = if quoted { &[b"\\\\", b"\\5C"] } else { &[b"\\"] };
    let argument = backslashes.iter().find_map(|backslash| rest.strip_prefix(*backslash));
    let is_name =
        argument.and_then(<[u8]>::first).is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
    is_name && (may_become(b"incbin") || may_become(b"include"))
}

/// Whether `.include` between these is a member of something in C: `x.include`, `{ .include = 1 }`.
fn is_member(before: &[u8], after: &[u8]) -> bool {
    let ends_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b')' | b']');
    before.last().is_some_and(ends_name) || matches!(after.first(), Some(b'=' | b'['))
}

/// A line that begins with `#`, without it and without blanks.
fn directive(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.trim_ascii_start().strip_prefix(b"#")?;
    Some(line.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect())
}

/// The text in lower case, without blanks and quotes, with the escapes of C (`\x2e`, `\056`) and of LLVM IR
/// (`\2E`) read. Lines stay apart unless a string literal goes on in the next one. Line markers of the
/// preprocessor are left out: they hold file names.
fn join(text: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(text.len());
    for line in text.split(|&byte| byte == b'\n').filter(|line| !is_line_marker(line)) {
        let mut rest = line.trim_ascii_start();
        if !rest.starts_with(b"\"") {
            joined.push(b'\n');
        }
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match byte {
                b'\\' => {
                    let (escaped, length) = escape(after);
                    joined.extend(escaped.map(|byte| byte.to_ascii_lowercase()));
                    rest = &after[length..];
                }
                b'"' => {}
                byte if byte.is_ascii_whitespace() => {}
                byte => joined.push(byte.to_ascii_lowercase()),
            }
        }
    }
    joined
}

fn is_line_marker(line: &[u8]) -> bool {
    line.strip_prefix(b"# ").is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_digit))
}

/// What the escape stands for whose text follows a backslash, and how long that text is.
fn escape(text: &[u8]) -> (Option<u8>, usize) {
    let digits = |from: usize, most: usize, base: u32| {
        let run =
            text.iter().skip(from).take(most).take_while(|byte| char::from(**byte).is_digit(base)).count();
        let value = std::str::from_utf8(&text[from.min(text.len())..(from + run).min(text.len())]);
        value
            .ok()
            .and_then(|digits| u32::from_str_radix(digits, base).ok())
            .map(|value| (value as u8, from + run))
    };
    match text {
        [b'x', ..] => digits(1, 2, 16).map_or((None, 1), |(byte, length)| (Some(byte), length)),
        // Two hexadecimal digits are LLVM's; C has one to three octal ones. `\2e` and `\056` differ by that.
        [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
            match digits(0, 3, 8).filter(|(_, length)| *length == 3) {
                Some((byte, length)) => (Some(byte), length),
                None => digits(0, 2, 16).map_or((None, 0), |(byte, length)| (Some(byte), length)),
            }
        }
        [b'n' | b't', ..] => (Some(b'\n'), 1),
        // To the assembler `\()` is nothing; C writes its backslash twice.
        [b'\\', b'(', b')', ..] => (None, 3),
        [b'(', b')', ..] => (None, 2),
        [b'\\', ..] => (None, 1),
        _ => (None, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_found_however_they_are_written() {
        for text in [
            ".incbin \"x\"",
            "asm(\".incbin \\\"x\\\"\");",
            "asm(\".inc\"\n    \"bin \\\"x\\\"\");",
            "asm(\"\\x2eincbin x\");",
            "asm(\"\\056incbin x\");",
            "asm(\".section x\\n.INCBIN \\\"y\\\"\");",
            "module asm \"\\2Eincbin \\22x\\22\"",
            "module asm \".incbin \\22x\\22\"",
            "  .include \"macros.s\"",
            "nop\n.include \"macros.s\"",
            "asm(\"nop\\n.include \\\"x\\\"\");",
            "asm(\"nop\\n\"\n  \".inc\"\n  \"lude \\\"x\\\"\");",
            "asm(R\"(nop\n  .include \"x\")\");",
            ".inc\\()bin \"x\"",
            "asm(\".inc\\\\()bin x\");",
            ".macro m a\n.in\\a \"x\"\n.endm\nm cbin",
            "  .\\directive \"x\"",
            "\\directive \"x\"",
            "asm(\".macro m a\\n.inc\\\\a \\\"x\\\"\\n.endm\");",
            "module asm \".macro m a\\0A.inc\\5Ca x\"",
            "#embed \"x\"",
            "  #  embed \"x\"",
            "#include <stdio.h>",
            "#pragma GCC pch_preprocess \"x.gch\"",
        ] {
            assert!(find(text.as_bytes()).is_some(), "{text}");
        }
    }

    #[test]
    fn other_text_is_let_through() {
        for text in [
            "",
            "int include; struct s { int x; } y; asm(\"nop\");",
            "# 1 \"/usr/.include/x.h\" 1 3 4\nint x;",
            "struct s { int include; } y = { .include = 1 }; int z = y.include + (&y)[0].include;",
            "extern int scanf(const char *, ...) __asm__ (\"\" \"__isoc99_scanf\");",
            "#pragma GCC visibility push(default)",
            "puts(\"It is done.\\n\"); puts(\"a.i\\nb\");",
            ".macro m name, suffix\n\\name: .L\\name: call \\name.\\suffix\n.size \\name, 4\n\\op %eax\n.endm",
            "const char *s = \"\\",
            "const char *s = \"\\x\\777\\8\";",
        ] {
            assert_eq!(find(text.as_bytes()), None, "{text}");
        }
    }
}
