//! Tables in Markdown: a line for each peer, a column for each case.

use std::fmt::{self, Display};

/// What was measured of each peer.
pub struct Table {
    title: String,
    peers: Vec<String>,
    columns: Vec<(String, Vec<String>)>,
}

impl Table {
    /// A table of these peers.
    pub fn of<'p>(title: &str, peers: impl IntoIterator<Item = &'p str>) -> Self {
        Table {
            title: title.to_owned(),
            peers: peers.into_iter().map(str::to_owned).collect(),
            columns: Vec::new(),
        }
    }

    /// Adds a case with what came out for each peer; nothing for one that was left out.
    pub fn add(&mut self, case: &str, results: impl IntoIterator<Item = Option<String>>) {
        let results = results.into_iter().map(|result| result.unwrap_or_else(|| NOTHING.to_owned()));
        self.columns.push((case.to_owned(), results.collect()));
    }

    fn line<'c>(
        &self,
        f: &mut fmt::Formatter<'_>,
        first: &str,
        cells: impl Iterator<Item = &'c str>,
    ) -> fmt::Result {
        write!(f, "| {first} |")?;
        cells.into_iter().try_for_each(|cell| write!(f, " {cell} |"))?;
        writeln!(f)
    }

    /// A line of its own, such as a goal. Its cells go to the columns in order.
    pub fn add_line(&mut self, name: &str, cells: &[&str]) {
        self.peers.push(name.to_owned());
        for (number, (_, column)) in self.columns.iter_mut().enumerate() {
            column.push(cells.get(number).copied().unwrap_or_default().to_owned());
        }
    }
}

/// In place of a result.
const NOTHING: &str = "–";

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}\n", self.title)?;
        self.line(f, "", self.columns.iter().map(|(case, _)| &**case))?;
        self.line(f, "---", self.columns.iter().map(|_| "---:"))?;
        for (number, peer) in self.peers.iter().enumerate() {
            let cells = || self.columns.iter().map(|(_, results)| &*results[number]);
            // A peer without any result was not asked.
            if cells().any(|cell| cell != NOTHING) {
                self.line(f, peer, cells())?;
            }
        }
        Ok(())
    }
}
