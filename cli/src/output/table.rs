//! Tables: aligned columns without lines, so that `awk` and `cut` can read them too.

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};

use super::printable;

/// Which side the cells of a column stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

/// Lays out `rows` under `columns`; one line each, without trailing spaces.
pub(crate) fn table(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>, bold: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if bold {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(columns.iter().map(|column| match column {
        Column::Left(title) | Column::Right(title) => Cell::new(title).add_attribute(Attribute::Bold),
    }));
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    for (number, column) in columns.iter().enumerate() {
        if let Some(laid_out) = table.column_mut(number) {
            let alignment = match column {
                Column::Left(_) => CellAlignment::Left,
                Column::Right(_) => CellAlignment::Right,
            };
            laid_out.set_cell_alignment(alignment);
            // One space on either side would indent the whole table.
            laid_out.set_padding((0, 2));
        }
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Names and values in two columns, without a header. With a `width`, values that are longer go on below.
pub(crate) fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>, width: Option<usize>) -> String {
    let pairs: Vec<_> = pairs.into_iter().map(|(name, value)| (printable(name), value)).collect();
    let names = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let room = width.map(|width| width.saturating_sub(names + 2).max(20));
    let mut lines = Vec::new();
    for (name, value) in &pairs {
        let mut name = &**name;
        let value = printable(value).into_owned();
        for part in room.map_or_else(|| vec![value.clone()], |room| wrapped(&value, room)) {
            lines.push(format!("{name:names$}  {part}").trim_end().to_owned());
            name = "";
        }
    }
    lines.join("\n")
}

/// Breaks a text between words. A word that is too long stands alone.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
            lines.push(std::mem::take(&mut line));
        } else if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// The width of the terminal, for [`pairs`]; `None` when stdout is none.
pub(crate) fn terminal_width() -> Option<usize> {
    Table::new().width().map(usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long name".to_owned(), "12345".to_owned()]];
        let text = table(&[Column::Left("NAME"), Column::Right("SIZE")], rows, false);
        assert_eq!(text, "NAME        SIZE\na              1\nlong name  12345");
    }

    #[test]
    fn names_are_padded() {
        assert_eq!(pairs([("a", "1".to_owned()), ("bcd", "2".to_owned())], None), "a    1\nbcd  2");
    }

    #[test]
    fn long_values_go_on_below() {
        let value = "one two three four five six seven".to_owned();
        assert_eq!(pairs([("n", value.clone())], None), format!("n  {value}"));
        assert_eq!(pairs([("n", value)], Some(23)), "n  one two three four\n   five six seven");
        assert_eq!(wrapped(&"x".repeat(30), 20), ["x".repeat(30)]);
        assert_eq!(wrapped("", 20), [""]);
    }
}
