//! `why`: what made a compilation a miss.

use serde_json::json;

use crate::support::{Sandbox, finish, skip, tool};

fn compiled(sandbox: &Sandbox, words: &[&str]) -> String {
    let compiled = sandbox.json(&[&["compile", "-o", "out.o"], words].concat());
    assert_eq!(compiled["outcome"], "miss");
    compiled["signature"].as_str().unwrap().to_owned()
}

#[test]
fn an_entry_is_compared_with_the_nearest_from_before() {
    let sandbox = Sandbox::with(&["arithmetic.clif", "saxpy.clif"]);
    let first = compiled(&sandbox, &["arithmetic.clif", "-O0"]);
    let saxpy = compiled(&sandbox, &["saxpy.clif"]);
    let second = compiled(&sandbox, &["arithmetic.clif", "-O2"]);

    let said = sandbox.objcache(&["why", &second[..16]]).fine();
    assert!(said.contains("of arithmetic.clif") && said.contains("\nmiss: optimization: 0 → 2\n"), "{said}");
    assert!(said.contains(&format!("compared with {} of arithmetic.clif", &first[..12])), "{said}");
    let why = sandbox.json(&["why", &second]);
    assert_eq!(
        (&why["outcome"], &why["end"], &why["nearest"]["signature"]),
        (&json!("miss"), &json!("kept"), &json!(first))
    );
    assert_eq!(why["differences"], json!([{"ingredient": "optimization", "before": "0", "after": "2"}]));
    assert_eq!(why["nearest"]["same"].as_u64().unwrap() + 1, why["nearest"]["ingredients"].as_u64().unwrap());

    // What came later is no reason, and what is of another source is said to be.
    assert!(sandbox.json(&["why", &first])["nearest"].is_null());
    assert!(sandbox.objcache(&["why", &first]).fine().contains("nothing to compare it with"));
    assert_eq!(sandbox.json(&["why", &saxpy])["nearest"]["same_source"], false);
    let said = sandbox.objcache(&["why", &saxpy]).fine();
    assert!(said.contains("nothing was there that was compiled from this source"), "{said}");
}

#[test]
fn without_words_it_is_about_the_last_miss() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    assert_eq!(sandbox.json_error(&["why"], 1)["code"], "no_miss");
    compiled(&sandbox, &["arithmetic.clif"]);
    let last = compiled(&sandbox, &["arithmetic.clif", "--salt", "s"]);
    // Neither a hit nor a look is a miss.
    sandbox.objcache(&["compile", "arithmetic.clif"]).fine();
    for words in [&["why"][..], &["why", "--last"]] {
        let why = sandbox.json(words);
        assert_eq!((&why["signature"], &why["differences"][0]["ingredient"]), (&json!(last), &json!("salt")));
    }
}

#[test]
fn the_last_miss_may_have_failed_or_not_been_kept() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let good = compiled(&sandbox, &["arithmetic.clif"]);
    // A function that falls off its end passes the parser, not the verifier.
    sandbox.write("bad.clif", "function %bad() -> i32 {\nblock0:\n    v0 = iconst.i64 1\n    return v0\n}\n");
    sandbox.objcache(&["compile", "bad.clif"]).fails(1);
    let why = sandbox.json(&["why", "--last"]);
    assert_eq!((&why["end"], &why["source_path"]), (&json!("failed"), &json!("bad.clif")));
    assert_eq!(why["nearest"]["signature"], json!(good));
    let said = sandbox.objcache(&["why"]).fine();
    assert!(said.contains("of bad.clif") && said.contains("which failed to compile"), "{said}");
    sandbox.objcache(&["clear"]).fine();
    assert_eq!(sandbox.json_error(&["why"], 1)["code"], "no_miss", "forgotten with the rest");
}

#[test]
fn an_object_that_is_not_worth_keeping_was_a_miss_as_well() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let mut command = sandbox.command(&["compile", "arithmetic.clif"]);
    assert_eq!(finish(command.env("OBJCACHE_MIN_COMPILE_MS", "3600000")).code, 0);
    assert_eq!(sandbox.json(&["why"])["end"], "declined");
    assert!(sandbox.objcache(&["why"]).fine().contains("which was not worth keeping"));
}

#[test]
fn an_object_that_is_too_large_was_a_miss_as_well() {
    let Some(gcc) = tool("gcc") else { return };
    let sandbox = Sandbox::new();
    sandbox.write("large.c", "char data[3 << 20] = {1};\n");
    let words = ["compile", "large.c", "--compiler", gcc.to_str().unwrap()];
    let mut command = sandbox.command(&words);
    let run = finish(command.env("OBJCACHE_MAX_SIZE", "4M").env("OBJCACHE_COMPRESSION", "none"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let why = sandbox.json(&["why"]);
    assert_eq!((&why["end"], &why["reason"]), (&json!("refused"), &json!("too_large")));
    assert!(sandbox.objcache(&["why"]).fine().contains("which was not kept: it is too large"));
}

#[test]
fn two_entries_are_compared() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let a = compiled(&sandbox, &["arithmetic.clif"]);
    let b = compiled(&sandbox, &["arithmetic.clif", "--flag", "regalloc_checker=true", "--namespace", "n"]);
    let why = sandbox.json(&["why", "--diff", &a, &b]);
    assert_eq!(
        (&why["outcome"], &why["nearest"]["signature"], &why["signature"]),
        (&json!("diff"), &json!(a), &json!(b))
    );
    let names: Vec<_> =
        why["differences"].as_array().unwrap().iter().map(|it| it["ingredient"].clone()).collect();
    assert!(names.contains(&json!("namespace")) && names.contains(&json!("flags")), "{names:?}");
    let said = sandbox.objcache(&["why", "--diff", &b, &a]).fine();
    assert!(said.starts_with("diff: ") && said.contains("namespace: n → none"), "{said}");
    assert_eq!(sandbox.objcache(&["why", "--diff", &a, &a]).fine(), "nothing differs: it is one entry\n");
    sandbox.objcache(&["why", "--diff", &a]).fails(2);
    sandbox.objcache(&["why", "--last", "--diff", &a, &b]).fails(2);
}

#[test]
fn a_file_is_compared_without_compiling_it() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    compiled(&sandbox, &["arithmetic.clif"]);
    assert_eq!(sandbox.json(&["why", "arithmetic.clif"])["outcome"], "hit");
    assert_eq!(
        sandbox.objcache(&["why", "arithmetic.clif"]).fine().lines().last(),
        Some("hit: the cache has it")
    );
    let why = sandbox.json(&["why", "arithmetic.clif", "-O", "s"]);
    assert_eq!((&why["outcome"], &why["end"]), (&json!("miss"), &json!(null)));
    assert_eq!(why["differences"][0]["ingredient"], "optimization");
    let text = String::from_utf8(sandbox.read("arithmetic.clif")).unwrap();
    sandbox.write("arithmetic.clif", text + "; edited\n");
    let said = sandbox.objcache(&["why", "arithmetic.clif"]).fine();
    assert!(said.contains("source text: "), "{said}");
    let stats = sandbox.json(&["stats"]);
    assert_eq!((&stats["entries"], &stats["hits"], &stats["misses"]), (&json!(1), &json!(0), &json!(1)));
    assert_eq!(sandbox.json_error(&["why", "nowhere.clif"], 3)["code"], "io");
}

#[test]
fn what_never_is_in_the_cache_is_told() {
    let Some(gcc) = tool("gcc") else { return };
    let sandbox = Sandbox::new();
    sandbox.write("data.bin", b"data");
    sandbox.write("inc.s", "    .data\n    .incbin \"data.bin\"\n");
    let why = sandbox.json(&["why", "inc.s", "--compiler", gcc.to_str().unwrap()]);
    if why["outcome"] != "uncacheable" {
        return skip("this compiler's .incbin is cached");
    }
    assert!(why["uncacheable"].as_str().unwrap().contains("incbin"), "{why}");
}

#[test]
fn an_object_put_without_a_record_cannot_be_explained() {
    let sandbox = Sandbox::new();
    sandbox.write("foreign.o", b"an object of another world");
    sandbox.objcache(&["put", "foreign.o", "--signature", &"6".repeat(64)]).fine();
    assert_eq!(sandbox.json_error(&["why", "666"], 1)["code"], "record");
}
