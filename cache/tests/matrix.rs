//! Every broken state there is a name for: the library's user gets the right object, each reason is told of once
//! and counted, and strict mode makes an error of it. `cli/tests/cli/matrix.rs` does the same with the program.

#[path = "support/child.rs"]
mod child;
#[path = "support/states.rs"]
mod states;
mod support;

use std::fmt::Debug;
use std::time::Instant;

use objcache_cache::{CacheAdmin, CompileOnce, Offer, Store, StoreOptions};
use states::{STATES, Scene, State};
use support::{object, offer, place, signature, skip, store_at};

const LENGTH: usize = 30_000;

#[test]
fn child() {
    let Some(role) = child::role() else { return };
    assert_eq!(role, ["work"]);
    tracing::subscriber::set_global_default(Warnings).expect("the only one");
    let begun = Instant::now();
    let store = Store::open_or_degrade(StoreOptions::from_environment());
    let mut failed = Vec::new();
    // The second is not there yet.
    let last = if std::env::var_os("OBJCACHE_ONLY_HITS").is_some() { 1 } else { 2 };
    for number in 1..=last {
        let compile = || Ok::<_, ()>(Offer { object: object(number, LENGTH), ..Offer::default() });
        match store.get_or_compile(&signature(number), compile) {
            Ok(fetched) => assert_eq!(*fetched.object, *object(number, LENGTH)),
            Err(objcache_cache::GetOrCompileError::Cache(error)) => failed.push(error.reason().as_str()),
            Err(_) => unreachable!("it compiles"),
        }
    }
    let counted: Vec<_> = store.reasons().into_iter().map(|(reason, _)| reason.as_str()).collect();
    let untold = store.untold();
    drop(store);
    failed.extend(untold.take().map(|error| error.reason().as_str()));
    println!("\nfailed {}", failed.join(" "));
    println!("counted {}", counted.join(" "));
    println!("took {}", begun.elapsed().as_micros());
}

/// Prints the reason of each warning.
struct Warnings;

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Reasons);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

struct Reasons;

impl tracing::field::Visit for Reasons {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        if field.name() == "reason" {
            println!("\nwarned {value}");
        }
    }

    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn Debug) {}
}

/// What the child said after `word`, as words.
fn told(text: &str, word: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

/// Runs the work in a state. `None`: the state cannot be had here.
fn run(state: &State, strict: bool) -> Option<String> {
    let (_directory, root) = place();
    let store = store_at(&root);
    offer(&store, 1, LENGTH).expect("taken");
    store.list().expect("makes the catalogue");
    drop(store);
    let signature = signature(1).to_string();
    let scene = Scene { root: &root, signature: &signature };
    if state.under.first() == Some(&"strace") && !has_strace() {
        skip("there is no strace");
        return None;
    }
    let _guard = match (state.prepare)(&scene) {
        Ok(guard) => guard,
        Err(error) => {
            skip(&format!("{}: {error}", state.name));
            return None;
        }
    };
    let runner = state.runner(&scene);
    let runner: Vec<&str> = runner.iter().map(String::as_str).collect();
    let mut command = child::command(&runner, &[&"work"]);
    command.env("OBJCACHE_DIR", &root).env("OBJCACHE_STRICT", if strict { "1" } else { "0" });
    state.adjust(&mut command, &scene);
    let output = child::finish(command.spawn().expect("starts"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {}\n{text}{complaints}", state.name, output.status);
    Some(text)
}

fn has_strace() -> bool {
    std::process::Command::new("strace").arg("-V").output().is_ok()
}

#[test]
fn every_state_costs_a_compilation_at_most() {
    assert!(STATES.len() >= 25);
    let mut slowest = (0, "");
    for state in STATES {
        let Some(text) = run(state, false) else { continue };
        let name = state.name;
        assert_eq!(told(&text, "failed"), [""; 0], "{name}");
        let (mut warned, counted) = (told(&text, "warned"), told(&text, "counted"));
        warned.sort();
        let once = warned.len();
        warned.dedup();
        assert_eq!(warned.len(), once, "{name}: each is told of once: {warned:?}");
        let known = |reason: &String| state.reasons.contains(&reason.as_str());
        assert!(
            warned.iter().all(known) && warned.is_empty() == state.reasons.is_empty(),
            "{name}: {warned:?}"
        );
        assert!(warned.iter().all(|reason| counted.contains(reason)), "{name}: {counted:?}");
        assert_eq!(counted.len(), warned.len(), "{name}: {counted:?}");
        let took = told(&text, "took")[0].parse().expect("a number");
        // Waiting for another is what the bound is for, and strace slows things down.
        if state.under.is_empty() && state.reasons != ["lock_timeout"] {
            slowest = slowest.max((took, name));
        }
    }
    eprintln!("{} states, slowest {slowest:?} µs", STATES.len());
}

#[test]
fn strict_mode_makes_errors_of_them() {
    for state in STATES {
        let Some(text) = run(state, true) else { continue };
        let failed = told(&text, "failed");
        assert_eq!(failed.is_empty(), !state.strict, "{}: {failed:?}", state.name);
        assert!(failed.iter().all(|it| state.explains(it)), "{}: {failed:?}", state.name);
    }
}
