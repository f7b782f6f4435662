//! Which function is meant, and what its prototype is.

use objcache::call::{Prototype, ScalarType};

use crate::failure::Failure;

/// A function of the file, and its prototype where the language tells it.
pub(crate) type Candidate = (String, Option<Prototype>);

/// Picks the function to call: the one that is named; else the only one; else the one called like the file,
/// `main` or `run`.
pub(crate) fn choose<'c>(
    candidates: &'c [Candidate],
    named: Option<&str>,
    stem: Option<&str>,
) -> Result<&'c Candidate, Failure> {
    let find = |name: &str| candidates.iter().find(|(candidate, _)| candidate == name);
    if let Some(name) = named {
        return find(name).ok_or_else(|| {
            Failure::finding("unknown_function", format!("there is no function `{name}` to call"))
                .hint(listed(candidates))
        });
    }
    if let [only] = candidates {
        return Ok(only);
    }
    let usual = [stem, Some("main"), Some("run")];
    usual.into_iter().flatten().find_map(find).ok_or_else(|| match candidates {
        [] => Failure::finding("unknown_function", "there is no function to call"),
        _ => Failure::usage("which_function", "which function? Name one with --call NAME")
            .hint(listed(candidates)),
    })
}

/// The prototype to call with. One given by hand is checked against the known one, from which it may differ in
/// calling an `i64` a `ptr`.
pub(crate) fn prototype(candidate: &Candidate, given: Option<&Prototype>) -> Result<Prototype, Failure> {
    let (name, known) = candidate;
    match (known, given) {
        (Some(known), None) => Ok(known.clone()),
        (None, Some(given)) => Ok(given.clone()),
        (Some(known), Some(given)) if agree(known, given) => Ok(given.clone()),
        (Some(known), Some(given)) => {
            let message = format!("`{name}` is {known}, not {given}");
            Err(Failure::usage("wrong_prototype", message))
        }
        (None, None) => Err(unknown_prototype(&format!("`{name}`"))),
    }
}

/// Only CLIF tells prototypes. `function` is how to call it in a sentence.
pub(crate) fn unknown_prototype(function: &str) -> Failure {
    let message = format!("the prototype of {function} is not known: only CLIF files tell it");
    Failure::usage("unknown_prototype", message)
        .hint("give it with --signature 'RESULT(PARAMETERS)', such as --signature 'f64(i32,ptr)'")
}

fn agree(known: &Prototype, given: &Prototype) -> bool {
    let same = |known: ScalarType, given: ScalarType| {
        known == given || (known == ScalarType::I64 && given == ScalarType::Ptr)
    };
    known.parameters.len() == given.parameters.len()
        && same(known.result, given.result)
        && known.parameters.iter().zip(&given.parameters).all(|(known, given)| same(*known, *given))
}

/// All candidates in one line.
pub(crate) fn listed(candidates: &[Candidate]) -> String {
    const SHOWN: usize = 20;
    if candidates.is_empty() {
        return "the file has no function that can be called from here".to_owned();
    }
    let mut names: Vec<_> = candidates
        .iter()
        .take(SHOWN)
        .map(|(name, prototype)| match prototype {
            Some(prototype) => format!("{name}: {prototype}"),
            None => name.clone(),
        })
        .collect();
    if candidates.len() > SHOWN {
        names.push(format!("{} more", candidates.len() - SHOWN));
    }
    format!("there is {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(names: &[&str]) -> Vec<Candidate> {
        names.iter().map(|name| ((*name).to_owned(), None)).collect()
    }

    #[track_caller]
    fn check(names: &[&str], named: Option<&str>, stem: Option<&str>, chosen: Result<&str, &str>) {
        let candidates = candidates(names);
        let found = choose(&candidates, named, stem);
        assert_eq!(found.as_ref().map(|(name, _)| name.as_str()).map_err(|failure| failure.code), chosen);
    }

    #[test]
    fn the_function_that_is_meant() {
        check(&["a", "b"], Some("b"), None, Ok("b"));
        check(&["a", "b"], Some("c"), None, Err("unknown_function"));
        check(&["a"], None, None, Ok("a"));
        check(&["a", "saxpy", "main"], None, Some("saxpy"), Ok("saxpy"));
        check(&["run", "main"], None, Some("saxpy"), Ok("main"));
        check(&["run", "b"], None, None, Ok("run"));
        check(&["a", "b"], None, Some("saxpy"), Err("which_function"));
        check(&[], None, None, Err("unknown_function"));
    }

    #[test]
    fn prototypes_are_checked() {
        let known = |text: &str| ("f".to_owned(), Some(text.parse::<Prototype>().unwrap()));
        let given = |text: &str| text.parse::<Prototype>().unwrap();
        let unknown = ("f".to_owned(), None);
        assert_eq!(prototype(&known("i32(f32)"), None).unwrap(), given("i32(f32)"));
        assert_eq!(prototype(&unknown, Some(&given("i32(f32)"))).unwrap(), given("i32(f32)"));
        assert_eq!(
            prototype(&known("i64(i64,f32)"), Some(&given("ptr(ptr,f32)"))).unwrap(),
            given("ptr(ptr,f32)")
        );
        for other in ["i64(i64,f64)", "i64(i64)", "f64(i64,f32)"] {
            let refused = prototype(&known("i64(i64,f32)"), Some(&given(other)));
            assert_eq!(refused.unwrap_err().code, "wrong_prototype", "{other}");
        }
        assert_eq!(prototype(&unknown, None).unwrap_err().code, "unknown_prototype");
    }
}
