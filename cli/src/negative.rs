//! Negative values among the arguments of `run`: `objcache run k.clif -1 -0.5e-3 -0x10 -inf --json`.
//!
//! clap takes `-1` for an option, or else, from the first argument on, `--json` for an argument. Neither is
//! what the user means. So before clap reads the words, those that look like negative values get the minus
//! sign of typography (U+2212), which no option begins with; [`restore`] puts the ASCII one back.

use std::ffi::{OsStr, OsString};

use clap::{ArgAction, Command, CommandFactory};

use crate::args::Cli;

const MINUS: char = '\u{2212}';

/// Protects negative values among the words of a command line.
pub(crate) fn protect(words: Vec<OsString>) -> Vec<OsString> {
    let looks_negative = |word: &OsString| word.to_str().is_some_and(is_negative_value);
    if !words.iter().any(looks_negative) {
        return words;
    }
    let mut cli = Cli::command();
    cli.build();
    let Some(run) = cli.find_subcommand("run") else { return words };
    if !words.iter().any(|word| word == "run") {
        return words;
    }
    let mut previous = OsString::new();
    let mut protected = Vec::with_capacity(words.len());
    for word in words {
        let value = word.to_str().filter(|word| is_negative_value(word));
        let replaced = match value {
            Some(value) if !wants_value(run, &previous) => Some(format!("{MINUS}{}", &value[1..])),
            _ => None,
        };
        previous.clone_from(&word);
        protected.push(replaced.map_or(word, OsString::from));
    }
    protected
}

/// An argument as the user wrote it. Who pasted a typographic minus meant a minus, too.
pub(crate) fn restore(argument: &str) -> String {
    match argument.strip_prefix(MINUS) {
        Some(magnitude) => format!("-{magnitude}"),
        None => argument.to_owned(),
    }
}

/// A message about the words, with every minus as the user wrote it.
pub(crate) fn restore_all(message: &str) -> String {
    message.replace(MINUS, "-")
}

/// A minus, and what a number begins with. No option of ours does.
fn is_negative_value(word: &str) -> bool {
    let Some(magnitude) = word.strip_prefix('-') else { return false };
    let name = magnitude.to_ascii_lowercase();
    let digits = magnitude.strip_prefix('.').unwrap_or(magnitude);
    digits.starts_with(|first: char| first.is_ascii_digit())
        || matches!(name.as_str(), "inf" | "infinity" | "nan")
}

/// Whether `word` is an option whose value comes next.
fn wants_value(run: &Command, word: &OsStr) -> bool {
    let Some(word) = word.to_str() else { return false };
    run.get_arguments()
        .filter(|option| matches!(option.get_action(), ArgAction::Set | ArgAction::Append))
        .any(|option| {
            let long = option.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long));
            let short =
                option.get_short().is_some_and(|short| word.strip_prefix('-') == Some(&short.to_string()));
            long || short
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protected(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect();
        let words: Vec<_> = protect(words).iter().map(|word| word.to_string_lossy().into_owned()).collect();
        words.join(" ")
    }

    #[test]
    fn only_values_are_protected() {
        assert_eq!(protected("objcache run k -1 -0.5e-3 --json"), "objcache run k −1 −0.5e-3 --json");
        assert_eq!(protected("objcache run k -0x10 -.5 -inf -NaN"), "objcache run k −0x10 −.5 −inf −NaN");
        assert_eq!(protected("objcache run k -v -O 2 -- 1"), "objcache run k -v -O 2 -- 1");
        assert_eq!(protected("objcache run --salt -1 k -1"), "objcache run --salt -1 k −1");
        assert_eq!(protected("objcache run -O -1 k -1"), "objcache run -O -1 k −1");
        assert_eq!(protected("objcache rm -1"), "objcache rm -1");
    }

    #[test]
    fn the_minus_comes_back() {
        assert_eq!(restore("\u{2212}0.5"), "-0.5");
        assert_eq!(restore("0.5"), "0.5");
        assert_eq!(restore("str[\u{2212}]"), "str[\u{2212}]");
    }
}
