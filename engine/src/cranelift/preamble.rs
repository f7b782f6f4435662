//! The lines before the first function that say what a file is for: `test`, `set`, `target`, `feature`.
//!
//! `cranelift-reader` also reads them, but hands back a finished flag set in which a setting made and a
//! setting left alone look the same, and in which another target than the host's is lost. What is not
//! understood here the reader refuses later, with its line.

/// The settings that a file asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Preamble<'a> {
    /// The words of all `set` lines: `name=value` or `name`.
    pub(super) settings: Vec<&'a str>,
    /// The `target` lines, in order.
    pub(super) targets: Vec<TargetLine<'a>>,
}

/// `target triple setting…`
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TargetLine<'a> {
    pub(super) triple: &'a str,
    pub(super) settings: Vec<&'a str>,
}

impl<'a> Preamble<'a> {
    pub(super) fn read(text: &'a str) -> Self {
        let mut preamble = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(';')) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("set") => preamble.settings.extend(words),
                Some("target") => {
                    let Some(triple) = words.next() else { continue };
                    preamble.targets.push(TargetLine { triple, settings: words.collect() });
                }
                Some("test" | "feature") => {}
                _ => break,
            }
        }
        preamble
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_end_where_functions_begin() {
        let text = "; set is_pic=false\ntest compile\nset opt_level=none enable_pinned_reg\n\n  target x86_64 haswell has_avx=0\n\
                    target aarch64\nfeature \"x\"\nfunction %f() {\nset too_late\n";
        let preamble = Preamble::read(text);
        assert_eq!(preamble.settings, ["opt_level=none", "enable_pinned_reg"]);
        assert_eq!(
            preamble.targets,
            [
                TargetLine { triple: "x86_64", settings: vec!["haswell", "has_avx=0"] },
                TargetLine { triple: "aarch64", settings: vec![] },
            ]
        );
        assert_eq!(Preamble::read("function %f() { set }"), Preamble::default());
    }
}
