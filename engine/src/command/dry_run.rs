//! Reading what `-###` prints: the commands that a driver would run, with every default and `native` resolved.

/// The commands, word by word. clang quotes every word, gcc only some.
pub(super) fn commands(text: &str) -> Vec<Vec<String>> {
    text.lines().filter(|line| line.starts_with(' ')).map(words).filter(|words| words.len() > 1).collect()
}

/// Splits at blanks outside double quotes; a backslash takes the next character as it is.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' => word.get_or_insert_default().extend(characters.next()),
            blank if blank.is_whitespace() && !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unquoted() {
        let text = [
            "clang version 22",
            " (in-process)",
            r#" "/usr/bin/clang" "-cc1" "-DX=\"a b\"" """#,
            r#" /usr/lib/cc1 -quiet --param "l1-cache-size=48" "-march=x""#,
            "Configured with: a b",
        ]
        .join("\n");
        assert_eq!(
            commands(&text),
            [
                vec!["/usr/bin/clang", "-cc1", "-DX=\"a b\"", ""],
                vec!["/usr/lib/cc1", "-quiet", "--param", "l1-cache-size=48", "-march=x"],
            ]
        );
    }
}
