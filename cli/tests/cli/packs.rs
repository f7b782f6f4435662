//! `pack` and `trace`: entries out into one file, in from one, and used where they are.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};

use crate::support::{Sandbox, finish};

/// A sandbox whose cache has two entries; their signatures.
fn filled() -> (Sandbox, [String; 2]) {
    let sandbox = Sandbox::with(&["arithmetic.clif", "saxpy.clif"]);
    let signatures = [&["arithmetic.clif"][..], &["saxpy.clif", "--namespace", "blas"]].map(|words| {
        let compiled = sandbox.json(&[&["compile", "-o", "out.o"], words].concat());
        compiled["signature"].as_str().unwrap().to_owned()
    });
    (sandbox, signatures)
}

fn outcome(sandbox: &Sandbox, words: &[&str]) -> Value {
    sandbox.json(&[&["compile", "-o", "out.o"], words].concat())["outcome"].clone()
}

fn packed(sandbox: &Sandbox, pack: &str) -> Vec<String> {
    let list = sandbox.json(&["pack", "ls", pack]);
    let entries = list["entries"].as_array().unwrap();
    entries.iter().map(|entry| entry["signature"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_was_packed_can_be_taken_in_elsewhere() {
    let (sandbox, mut signatures) = filled();
    signatures.sort();
    let text = sandbox.objcache(&["pack", "create", "all.pack"]).fine();
    assert!(text.starts_with("packed 2 entries (") && text.contains("; all.pack has "), "{text}");
    assert_eq!(packed(&sandbox, "all.pack"), signatures);
    let listed = sandbox.objcache(&["pack", "ls", "all.pack"]).fine();
    assert!(listed.starts_with("SIGNATURE") && listed.contains("blas"), "{listed}");
    let verified = sandbox.objcache(&["pack", "verify", "all.pack"]).fine();
    assert!(verified.starts_with("2 entries (") && verified.contains("checked: none is damaged; digest "));

    sandbox.objcache(&["clear", "--yes"]).fine();
    let dry = sandbox.objcache(&["pack", "import", "all.pack", "--dry-run"]).fine();
    assert!(dry.starts_with("would import 2 entries ("), "{dry}");
    assert_eq!(sandbox.json(&["ls"])["entries"], json!([]));
    let text = sandbox.objcache(&["pack", "import", "all.pack"]).fine();
    assert!(text.starts_with("imported 2 entries (") && text.ends_with("; 0 already there\n"), "{text}");
    assert_eq!(sandbox.json(&["pack", "import", "all.pack"])["present"], 2);
    assert_eq!(outcome(&sandbox, &["saxpy.clif", "--namespace", "blas"]), "hit");
}

#[test]
fn entries_are_chosen_and_added() {
    let (sandbox, [arithmetic, saxpy]) = filled();
    let create = |words: &[&str]| sandbox.json(&[&["pack", "create", "some.pack"], words].concat());
    assert_eq!(create(&["--namespace", "blas"])["packed"], 1);
    assert_eq!(packed(&sandbox, "some.pack"), std::slice::from_ref(&saxpy));
    assert_eq!(create(&["--used-since", "1h"])["packed"], 2);
    assert_eq!(create(&["--max-object-size", "1"])["packed"], 0);
    assert_eq!(create(&["--min-compile-ms", "3600000"])["packed"], 0);
    assert_eq!(create(&[&arithmetic[..20]])["packed"], 1);
    let added = sandbox.json(&["pack", "add", "some.pack", &saxpy]);
    assert_eq!((&added["packed"], &added["kept"]), (&json!(1), &json!(1)));
    let all = sandbox.json(&["pack", "create", "all.pack"]);
    assert_eq!(all["digest"], added["digest"]);
    assert!(sandbox.read("all.pack") == sandbox.read("some.pack"));

    let dry = sandbox.json(&["pack", "create", "none.pack", "--dry-run"]);
    assert_eq!((&dry["packed"], &dry["digest"]), (&json!(2), &Value::Null));
    assert!(!sandbox.path("none.pack").exists());
}

#[test]
fn a_pack_is_compressed_as_asked_for() {
    let (sandbox, [arithmetic, _]) = filled();
    let make = |verb: &str, pack: &str, words: &[&str]| {
        let report = sandbox.json(&[&["pack", verb, pack], words].concat());
        report["pack_bytes"].as_u64().expect("made")
    };
    let [zstd, lz4, none] = ["zstd", "lz4", "none"].map(|codec| {
        let pack = format!("{codec}.pack");
        let bytes = make("create", &pack, &["--compression", codec]);
        sandbox.objcache(&["pack", "verify", &pack]).fine();
        bytes
    });
    assert!(zstd < none && lz4 < none, "{zstd} {lz4} {none}");
    assert_eq!(make("create", "default.pack", &[]), zstd);
    assert_eq!(make("create", "keep.pack", &["--compression", "keep"]), none, "small ones are stored plain");
    assert_eq!(make("add", "keep.pack", &["--compression", "keep"]), none);
    // What is in it already becomes like what is added.
    assert_eq!(make("add", "keep.pack", &[&arithmetic[..20]]), zstd);
    assert!(sandbox.read("keep.pack") == sandbox.read("zstd.pack"));
    let refused = sandbox.objcache(&["pack", "create", "no.pack", "--compression", "gzip"]);
    let said = refused.fails(2);
    assert!(said.contains("zstd, lz4, none, keep"), "{said}");

    sandbox.objcache(&["clear", "--yes"]).fine();
    assert_eq!(sandbox.json(&["pack", "import", "zstd.pack"])["imported"], 2);
    assert_eq!(outcome(&sandbox, &["saxpy.clif", "--namespace", "blas"]), "hit");
}

#[test]
fn a_pack_tells_who_signed_it() {
    let (sandbox, _) = filled();
    let [ours, theirs] = ["ours", "theirs"].map(|name| {
        let public = sandbox.objcache(&["key", "generate", "ed25519", &format!("{name}.key")]).fine();
        sandbox.write(&format!("{name}.pub"), &public);
        public.trim().to_owned()
    });
    assert_ne!(ours, theirs);
    let verify = |variable: &str, file: &str| {
        finish(sandbox.command(&["pack", "verify", "all.pack", "--json"]).env(variable, sandbox.path(file)))
    };
    sandbox.objcache(&["pack", "create", "all.pack"]).fine();
    let unsigned = sandbox.json(&["pack", "verify", "all.pack"]);
    assert_eq!((&unsigned["signed_by"], &unsigned["trusted"]), (&json!([]), &Value::Null));
    assert_eq!(verify("OBJCACHE_TRUSTED_KEYS", "ours.pub").code, 1, "by nobody");

    // What was put without the key is signed by nobody, and so is put once more.
    let key = sandbox.path("ours.key");
    let signing = |words: &[&str]| finish(sandbox.command(words).env("OBJCACHE_SIGNING_KEY", &key)).fine();
    signing(&["compile", "arithmetic.clif", "-o", "out.o"]);
    signing(&["pack", "create", "all.pack", "--namespace", ""]);
    for (variable, file, code, trusted) in [
        ("OBJCACHE_SIGNING_KEY", "ours.key", 0, json!(true)),
        ("OBJCACHE_TRUSTED_KEYS", "ours.pub", 0, json!(true)),
        ("OBJCACHE_TRUSTED_KEYS", "theirs.pub", 1, json!(false)),
    ] {
        let run = verify(variable, file);
        assert_eq!(run.code, code, "{}", run.stderr);
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!((&report["trusted"], &report["signed_by"]), (&trusted, &json!([ours])));
        let mut mount = sandbox.command(&["pack", "mount", "all.pack", "--json"]);
        let mounted = finish(mount.env(variable, sandbox.path(file))).fine();
        let report: Value = serde_json::from_str(&mounted).unwrap();
        assert_eq!(report["trusted"], trusted, "and entries are asked for their own");
    }
    assert_eq!(verify("OBJCACHE_TRUSTED_KEYS", "none.pub").code, 3, "no key is not everybody");
    let text = sandbox.objcache(&["pack", "verify", "all.pack"]).fine();
    assert!(text.ends_with(&format!("\nsigned by {ours}\n")), "{text}");
}

#[test]
fn a_mounted_pack_answers_until_it_is_unmounted() {
    let (sandbox, [arithmetic, _]) = filled();
    sandbox.objcache(&["pack", "create", "all.pack"]).fine();
    sandbox.objcache(&["clear", "--yes"]).fine();
    assert_eq!(sandbox.objcache(&["pack", "layers"]).fine(), "");
    assert_eq!(sandbox.objcache(&["pack", "mount", "all.pack"]).fine(), "mounted all.pack\n");
    assert_eq!(sandbox.json(&["pack", "mount", "all.pack"])["changed"], false);
    assert_eq!(outcome(&sandbox, &["arithmetic.clif"]), "hit");
    assert_eq!(sandbox.json(&["ls"])["entries"], json!([]), "nothing is copied");
    assert_eq!(sandbox.json(&["get", &arithmetic, "-o", "got.o"])["signature"], json!(arithmetic));
    let layers = sandbox.objcache(&["pack", "layers"]).fine();
    assert!(layers.contains("all.pack  mount  2 entries, "), "{layers}");

    sandbox.objcache(&["pack", "unmount", "all.pack"]).fine();
    assert_eq!(outcome(&sandbox, &["arithmetic.clif"]), "miss");
    let not = sandbox.objcache(&["pack", "unmount", "all.pack"]).fails(1);
    assert!(not.contains("all.pack is not mounted"), "{not}");
}

#[test]
fn layers_of_the_environment_last_for_one_process() {
    let (sandbox, _) = filled();
    let layers = format!("{}:{}", sandbox.path("nothing").display(), sandbox.path("all.pack").display());
    sandbox.objcache(&["pack", "create", "all.pack"]).fine();
    sandbox.objcache(&["clear", "--yes"]).fine();
    let mut command = sandbox.command(&["compile", "arithmetic.clif", "-o", "out.o", "--json"]);
    let finished = finish(command.env("OBJCACHE_LAYERS", &layers));
    assert_eq!((finished.code, &finished.json()["outcome"]), (0, &json!("hit")));
    assert!(finished.stderr.contains("nothing: it is left out"), "{}", finished.stderr);
    let listed = finish(sandbox.command(&["pack", "layers", "--json"]).env("OBJCACHE_LAYERS", &layers));
    assert_eq!(listed.code, 1, "one cannot be used");
    let reasons: Vec<_> =
        listed.json()["layers"].as_array().unwrap().iter().map(|it| it["reason"].clone()).collect();
    assert_eq!(reasons, [json!("io"), Value::Null]);
    assert_eq!(outcome(&sandbox, &["arithmetic.clif"]), "miss");
}

#[test]
fn damage_is_a_finding() {
    let (sandbox, _) = filled();
    sandbox.objcache(&["pack", "create", "all.pack"]).fine();
    let sound = sandbox.read("all.pack");
    let mut damaged = sound.clone();
    damaged[40] ^= 1;
    sandbox.write("all.pack", &damaged);
    let found = finish(&mut sandbox.command(&["pack", "verify", "all.pack"]));
    assert_eq!(found.code, 1);
    assert!(found.stdout.contains("1 damaged; digest "), "{}", found.stdout);
    sandbox.objcache(&["clear", "--yes"]).fine();
    let taken = finish(&mut sandbox.command(&["pack", "import", "all.pack", "--json"]));
    assert_eq!((taken.code, &taken.json()["imported"]), (1, &json!(1)));

    sandbox.write("all.pack", &sound[..sound.len() - 7]);
    for command in ["verify", "import", "ls", "add"] {
        let error = sandbox.json_error(&["pack", command, "all.pack"], 1);
        assert_eq!(error["code"], "damaged", "{command}: {error}");
    }
    assert_eq!(sandbox.json_error(&["pack", "mount", "all.pack"], 1)["code"], "damaged");
    assert_eq!(sandbox.json_error(&["pack", "import", "missing.pack"], 3)["code"], "io");
}

#[test]
fn a_trace_says_what_to_pack() {
    let (sandbox, [arithmetic, saxpy]) = filled();
    assert!(sandbox.objcache(&["trace", "show"]).fails(1).contains("there is no trace"));
    assert_eq!(sandbox.objcache(&["trace", "start"]).fine(), "tracing\n");
    assert_eq!(sandbox.json(&["trace", "start"]), json!({"changed": false}));
    assert_eq!(outcome(&sandbox, &["saxpy.clif", "--namespace", "blas"]), "hit");
    assert_eq!(sandbox.objcache(&["trace", "show"]).fine(), format!("{saxpy}\n"));
    let stopped = sandbox.objcache(&["trace", "stop", "-o", "used.trace"]).fine();
    assert_eq!(stopped, "1 entry used: used.trace\n");
    assert_eq!(outcome(&sandbox, &["arithmetic.clif"]), "hit");
    assert_eq!(sandbox.json(&["trace", "show"])["signatures"], json!([saxpy]));
    assert!(sandbox.objcache(&["trace", "stop"]).fails(1).contains("no trace is being written"));

    assert_eq!(sandbox.json(&["pack", "create", "used.pack", "--trace", "used.trace"])["packed"], 1);
    assert_eq!(packed(&sandbox, "used.pack"), std::slice::from_ref(&saxpy));
    sandbox.objcache(&["rm", &saxpy]).fine();
    let report = sandbox.json(&["pack", "create", "gone.pack", "--trace", "used.trace"]);
    assert_eq!((&report["packed"], &report["missing"]), (&json!(0), &json!([saxpy])));

    let mut run = sandbox.command(&["compile", "arithmetic.clif", "-o", "out.o"]);
    assert_eq!(finish(run.env("OBJCACHE_TRACE", sandbox.path("run.trace"))).code, 0);
    assert_eq!(sandbox.read("run.trace"), format!("{arithmetic}\n").into_bytes());
}

#[test]
fn names_that_are_no_text_are_shown_as_well_as_can_be() {
    let (sandbox, _) = filled();
    let (pack, shown) = (OsStr::from_bytes(b"\xff.pack"), "\u{fffd}.pack");
    let run = |words: &[&str]| {
        let finished = finish(sandbox.command(words).arg(pack).arg("--json"));
        assert_eq!(finished.code, 0, "{words:?}: {}", finished.stdout);
        finished.json()
    };
    for words in [&["pack", "create"][..], &["pack", "ls"], &["pack", "verify"], &["pack", "import"]] {
        assert_eq!(run(words)["pack"], shown, "{words:?}");
    }
    assert_eq!(run(&["pack", "mount"])["path"], shown);
    let layers = sandbox.json(&["pack", "layers"]);
    assert!(layers["layers"][0]["path"].as_str().unwrap().ends_with(shown), "{layers}");
    assert_eq!(run(&["pack", "unmount"])["path"], shown);
    sandbox.objcache(&["trace", "start"]).fine();
    assert_eq!(run(&["trace", "stop", "-o"])["output"], shown);
}

#[test]
fn what_only_a_pack_has_is_looked_into_but_not_changed() {
    let (sandbox, [arithmetic, _]) = filled();
    sandbox.objcache(&["pack", "create", "all.pack"]).fine();
    sandbox.objcache(&["clear", "--yes"]).fine();
    sandbox.objcache(&["pack", "mount", "all.pack"]).fine();
    let shown = sandbox.json(&["show", &arithmetic]);
    assert_eq!((&shown["signature"], &shown["in_layer"]), (&json!(arithmetic), &json!(true)));
    assert!(sandbox.objcache(&["show", &arithmetic]).fine().contains("in a pack or another layer"));
    assert_eq!(sandbox.json(&["why", &arithmetic])["signature"], json!(arithmetic));
    for words in [&["pin"][..], &["unpin"], &["rm"], &["rm", "--dry-run"]] {
        let error = sandbox.json_error(&[words, &[&arithmetic]].concat(), 1);
        assert_eq!(error["code"], "unknown_signature", "{words:?}");
        assert!(error["message"].as_str().unwrap().contains("pack"), "{error}");
    }
    assert_eq!(outcome(&sandbox, &["arithmetic.clif"]), "hit");
}
