//! Code that kills its process again and again is compiled afresh.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use objcache::cache::{CacheAdmin, CompiledObject, ObjectCache, Store, StoreOptions};
use objcache::signature::Provenance;

use crate::support::Sandbox;

const RIGHT: &str =
    "function %answer() -> i32 system_v {\nblock0:\n    v0 = iconst.i32 42\n    return v0\n}\n";
const DEADLY: &str = "function %answer() -> i32 system_v {\nblock0:\n    trap user1\n}\n";

/// Files the object of the deadly kernel under the signature of the right one, with a digest that is right: what
/// a compiler's fault, or memory's, would leave.
fn spoil(sandbox: &Sandbox) {
    let signature_of =
        |file: &str| sandbox.json(&["compile", file])["signature"].as_str().unwrap().to_owned();
    let (right, deadly) = (signature_of("right.clif"), signature_of("deadly.clif"));
    let store = Store::open(StoreOptions::at(sandbox.cache())).unwrap();
    let object = store.peek(&deadly.parse().unwrap()).unwrap().unwrap();
    let compiled = CompiledObject {
        signature: right.parse().unwrap(),
        object: &object,
        key_document: b"",
        provenance: &Provenance::default(),
        namespace: "",
        compile_time: Duration::from_millis(1),
        cpu_features: &[],
    };
    store.notify_object_compiled(&compiled).unwrap();
}

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("right.clif", RIGHT);
    sandbox.write("deadly.clif", DEADLY);
    sandbox
}

fn dies(sandbox: &Sandbox, file: &str) -> bool {
    let output = sandbox.command(&["run", file]).output().unwrap();
    output.status.signal().is_some()
}

#[test]
fn an_entry_that_kills_again_and_again_is_compiled_afresh() {
    let sandbox = sandbox();
    spoil(&sandbox);
    for _ in 0..3 {
        assert!(dies(&sandbox, "right.clif"));
    }
    let cured = sandbox.objcache(&["run", "right.clif", "--json"]);
    assert_eq!(cured.code, 0, "{}", cured.stderr);
    let said = cured.json();
    assert_eq!((&said["outcome"], &said["result"]), (&"miss".into(), &42.into()));
    assert_eq!(cured.stderr.lines().count(), 1, "{}", cured.stderr);
    assert!(cured.stderr.contains("died, again and again"), "{}", cured.stderr);

    let said = sandbox.json(&["run", "right.clif"]);
    assert_eq!((&said["outcome"], &said["result"]), (&"hit".into(), &42.into()));
    let stats = sandbox.json(&["stats"]);
    assert_eq!(stats["reasons"]["crash_loop"], 1, "{stats}");
    assert_eq!(stats["quarantined"], 1);
    assert_eq!(std::fs::read_dir(sandbox.cache().join("running")).unwrap().count(), 0);
}

#[test]
fn one_that_kills_now_and_then_stays() {
    let sandbox = sandbox();
    assert_eq!(sandbox.json(&["run", "right.clif"])["outcome"], "miss");
    for _ in 0..3 {
        // Two deaths, as by a signal from outside, and one that lives.
        let running = sandbox.cache().join("running");
        std::fs::create_dir_all(&running).unwrap();
        let signature = sandbox.json(&["compile", "right.clif"])["signature"].as_str().unwrap().to_owned();
        (0..2).for_each(|nth| std::fs::write(running.join(format!("{signature}-1-2-{nth}")), "").unwrap());
        assert_eq!(sandbox.json(&["run", "right.clif"])["outcome"], "hit");
        assert_eq!(std::fs::read_dir(running).unwrap().count(), 0);
    }
}

#[test]
fn code_that_always_kills_is_compiled_afresh_now_and_then() {
    let sandbox = sandbox();
    for _ in 0..12 {
        assert!(dies(&sandbox, "deadly.clif"), "nothing else is to be had");
    }
    let stats = sandbox.json(&["stats"]);
    let loops = stats["reasons"]["crash_loop"].as_u64().unwrap_or(0);
    assert!(loops <= 12 / 3, "{stats}");
}
