//! CLIF text to functions that know their name and line.

use std::fmt::Write;

use cranelift_codegen::ir::{ExternalName, Function, UserFuncName};
use cranelift_codegen::isa::CallConv;
use cranelift_codegen::verifier::VerifierErrors;
use cranelift_reader::{ParseOptions, SourceMap, parse_test};

/// A function of the file.
pub(super) struct Definition {
    /// The symbol it defines.
    pub(super) symbol: String,
    /// Its IR.
    pub(super) function: Function,
    /// The line of its `function` keyword.
    line: usize,
    map: SourceMap,
}

/// All functions of `text`. Those whose text names no calling convention get `convention`.
pub(super) fn parse(text: &[u8], convention: CallConv) -> Result<Vec<Definition>, String> {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let options = ParseOptions {
        // With passes given, `test run` does not make the reader take the convention of the machine it runs
        // on, which no ingredient names. Target and settings come from the inputs, not from here.
        passes: Some(&[]),
        default_calling_convention: convention,
        ..ParseOptions::default()
    };
    let file = parse_test(text, options)
        .map_err(|error| format!("line {}: {}", error.location.line_number, error.message))?;
    if file.functions.is_empty() {
        return Err("it defines no function".to_owned());
    }
    let definitions = file.functions.into_iter().map(|(function, details)| Definition {
        symbol: symbol_of(&function.name),
        function,
        line: details.location.line_number,
        map: details.map,
    });
    Ok(definitions.collect())
}

/// `%name` is the symbol `name`, `u0:7` the symbol `u0:7`.
fn symbol_of(name: &UserFuncName) -> String {
    match name {
        UserFuncName::User(user) => user.to_string(),
        UserFuncName::Testcase(name) => name.to_string().trim_start_matches('%').to_owned(),
    }
}

/// The symbol that a name inside a function stands for; `None` for those Cranelift names itself.
pub(super) fn referenced_symbol(function: &Function, name: &ExternalName) -> Option<String> {
    match name {
        ExternalName::User(reference) => Some(function.params.user_named_funcs()[*reference].to_string()),
        ExternalName::TestCase(name) => Some(name.to_string().trim_start_matches('%').to_owned()),
        ExternalName::LibCall(_) | ExternalName::KnownSymbol(_) => None,
    }
}

impl Definition {
    /// How to call it in a message.
    pub(super) fn what(&self) -> String {
        format!("function {} (line {})", self.function.name, self.line)
    }

    /// The verifier's findings, each with the line it is about.
    pub(super) fn describe(&self, errors: &VerifierErrors) -> String {
        let mut text = String::new();
        for (index, error) in errors.0.iter().enumerate() {
            let line = self.map.location(error.location).map_or(self.line, |location| location.line_number);
            let separator = if index == 0 { "" } else { "; " };
            let _ = write!(text, "{separator}line {line}: {error}");
        }
        text
    }
}
