//! Exit codes 0 to 3, messages on the right stream, and readers that go away.

use std::io::Read;
use std::process::Stdio;

use crate::support::Sandbox;

#[test]
fn help_and_version_are_fine() {
    let sandbox = Sandbox::new();
    for words in [&["--help"][..], &["-V"], &["help", "run"], &["run", "--help"]] {
        let finished = sandbox.objcache(words);
        assert_eq!((finished.code, finished.stderr.as_str()), (0, ""), "{words:?}");
        assert!(!finished.stdout.is_empty());
    }
}

#[test]
fn wrong_usage_is_2() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    for words in [
        &[][..],
        &["nonsense"],
        &["run"],
        &["run", "arithmetic.clif", "--nonsense"],
        &["run", "arithmetic.clif", "-O9"],
        &["run", "arithmetic.clif", "--kind", "fortran"],
        &["ls", "--sort", "taste"],
        &["gc", "--max-size", "much"],
        &["gc", "--max-age", "long"],
        &["verify", "--dry-run"],
        &["show", "not-hexadecimal"],
        &["rm"],
        &["ls", "-v", "-q"],
    ] {
        sandbox.objcache(words).fails(2);
    }
}

#[test]
fn findings_are_1() {
    let sandbox = Sandbox::new();
    sandbox.write("bad.clif", "function %f( {");
    for words in [
        &["show", "abcdef"][..],
        &["get", "abcdef", "-o", "x.o"],
        &["rm", "abcdef"],
        &["run", "bad.clif"],
        &["compile", "bad.clif"],
    ] {
        sandbox.objcache(words).fails(1);
    }
}

#[test]
fn unreadable_and_unwritable_is_3() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    for words in [
        &["run", "absent.clif"][..],
        &["compile", "arithmetic.clif", "-o", "absent/out.o"],
        &["compile", "arithmetic.clif", "--input", "absent.h"],
        &["signature", "absent.o"],
        &["put", "absent.o"],
        &["--dir", "arithmetic.clif", "ls"],
    ] {
        let said = sandbox.objcache(words).fails(3);
        assert!(said.contains("absent") || said.contains("arithmetic.clif"), "{said}");
    }
}

#[test]
fn an_object_does_not_go_over_its_source() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let source = sandbox.read("arithmetic.clif");
    std::os::unix::fs::symlink("arithmetic.clif", sandbox.path("link.o")).unwrap();
    std::fs::hard_link(sandbox.path("arithmetic.clif"), sandbox.path("second.o")).unwrap();
    for output in ["arithmetic.clif", "./arithmetic.clif", "link.o", "second.o"] {
        let error = sandbox.json_error(&["compile", "arithmetic.clif", "-o", output], 2);
        assert_eq!(error["code"], "output_is_input", "{output}");
        assert_eq!(sandbox.read("arithmetic.clif"), source, "{output}");
    }
    sandbox.objcache(&["compile", "arithmetic.clif", "-o", "/dev/null"]).fine();
}

#[test]
fn errors_are_json_with_json() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    for (words, code, kind, name) in [
        (&["nonsense"][..], 2, "usage", "usage"),
        (&["run", "arithmetic.clif", "-O9"], 2, "usage", "usage"),
        (&["show", "abc"], 1, "finding", "unknown_signature"),
        (&["show", "xyz"], 2, "usage", "bad_signature"),
        (&["run", "absent.clif"], 3, "io", "io"),
        (&["--dir", "arithmetic.clif", "stats"], 3, "io", "cache"),
    ] {
        let error = sandbox.json_error(words, code);
        assert_eq!((&error["kind"], &error["code"]), (&kind.into(), &name.into()), "{words:?}");
        assert_eq!(error["exit_code"], code);
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
}

#[test]
fn a_message_shows_negative_values_as_they_were_typed() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let said = sandbox.objcache(&["run", "arithmetic.clif", "--repeat", "-1", "-2"]).fails(2);
    assert!(said.contains("-1") && !said.contains('\u{2212}'), "{said}");
}

#[test]
fn a_reader_that_goes_away_is_no_trouble() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    sandbox.objcache(&["compile", "arithmetic.clif"]).fine();
    // More than fits into a pipe.
    for words in [&["completions", "zsh"][..], &["ls"], &["run", "--help"]] {
        let mut command = sandbox.command(words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""), "{words:?}");
    }
}

#[test]
fn completions_for_each_shell() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = sandbox.objcache(&["completions", shell]).fine();
        assert!(script.contains("objcache") && script.contains("no-verify-ir"), "{shell}");
    }
    sandbox.objcache(&["completions", "csh"]).fails(2);
}

#[test]
fn colour_only_when_asked_or_on_a_terminal() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    sandbox.objcache(&["compile", "arithmetic.clif"]).fine();
    assert!(!sandbox.objcache(&["ls"]).fine().contains('\u{1b}'));
    assert!(sandbox.objcache(&["ls", "--color", "always"]).fine().contains('\u{1b}'));
    assert!(!sandbox.objcache(&["ls", "--color", "never"]).fine().contains('\u{1b}'));
}

#[test]
fn trouble_that_no_call_returns_is_3_for_who_is_strict() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let listing = |strict: &str| {
        let mut command = sandbox.command(&["ls"]);
        command.env("OBJCACHE_MAX_SIZE", "lots").env("OBJCACHE_STRICT", strict);
        crate::support::finish(&mut command)
    };
    let [lenient, strict] = ["0", "1"].map(listing);
    assert_eq!(lenient.code, 0, "{}", lenient.stderr);
    assert_eq!(strict.code, 3, "{}", strict.stderr);
    assert_eq!(strict.stdout, lenient.stdout, "it was done");
    assert!(strict.stderr.contains("error: OBJCACHE_MAX_SIZE=lots"), "{}", strict.stderr);
}
