//! Keys: made once, closed to others, and entries that nobody vouches for are not used.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::support::{Sandbox, finish};

#[test]
fn keys_are_made_once_and_closed_to_others() {
    let sandbox = Sandbox::new();
    let public = sandbox.objcache(&["key", "generate", "ed25519", "signing.key"]).fine();
    assert!(public.starts_with("ed25519:") && public.trim().len() == 72, "{public}");
    assert_eq!(std::fs::metadata(sandbox.path("signing.key")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(sandbox.objcache(&["key", "public", "signing.key"]).fine(), public);
    assert_eq!(
        finish(&mut sandbox.command(&["key", "generate", "mac", "signing.key"])).code,
        3,
        "not over another"
    );
    std::fs::set_permissions(sandbox.path("signing.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = finish(&mut sandbox.command(&["key", "public", "signing.key"]));
    assert!(open.code == 3 && open.stderr.contains("0600"), "{}", open.stderr);
}

#[test]
fn only_what_is_vouched_for_is_used() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    sandbox.objcache(&["key", "generate", "ed25519", "signing.key"]).fine();
    let public = sandbox.objcache(&["key", "public", "signing.key"]).fine();
    sandbox.write("trusted.keys", format!("{} CI\n", public.trim()));
    sandbox.objcache(&["key", "generate", "mac", "mac.key"]).fine();
    let compile = |variables: &[(&str, &str)]| {
        let mut command = sandbox.command(&["compile", "arithmetic.clif", "--json"]);
        let command = command.envs(variables.iter().map(|(name, file)| (*name, sandbox.path(file))));
        let run = finish(command);
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.json()["outcome"].as_str().unwrap().to_owned()
    };
    let trusting = [("OBJCACHE_TRUSTED_KEYS", "trusted.keys")];
    assert_eq!(compile(&[]), "miss");
    assert_eq!(compile(&trusting), "miss", "nobody has signed it");
    assert_eq!(compile(&[("OBJCACHE_SIGNING_KEY", "signing.key")]), "miss", "likewise; now it is signed");
    assert_eq!(compile(&trusting), "hit");
    assert_eq!(compile(&[]), "hit");
    assert_eq!(compile(&[("OBJCACHE_MAC_KEY", "mac.key")]), "miss");
    assert_eq!(compile(&[("OBJCACHE_MAC_KEY", "mac.key")]), "hit");
    // A key that is not there is no key: the cache is off, and what is compiled is right all the same.
    assert_eq!(compile(&[("OBJCACHE_MAC_KEY", "no.key")]), "miss");
    let store = finish(sandbox.command(&["ls"]).env("OBJCACHE_MAC_KEY", sandbox.path("no.key")));
    assert!(store.code == 3 && store.stderr.contains("key"), "{}", store.stderr);
}

#[test]
fn what_is_not_vouched_for_is_not_called_damaged() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    sandbox.objcache(&["key", "generate", "ed25519", "signing.key"]).fine();
    sandbox.objcache(&["compile", "arithmetic.clif"]).fine();
    let signing = |words: &[&str]| {
        let mut command = sandbox.command(words);
        finish(command.env("OBJCACHE_SIGNING_KEY", sandbox.path("signing.key")))
    };
    for words in [&["verify"][..], &["verify", "--repair"], &["fsck"], &["fsck", "--rebuild"]] {
        let told = signing(words);
        assert_eq!(told.code, 1, "{words:?}: {}", told.stdout);
        assert!(told.stdout.contains("1 not vouched for by a trusted key"), "{}", told.stdout);
        let advises =
            ["1 damaged", "with --rebuild", "with --repair"].iter().any(|it| told.stdout.contains(it));
        assert!(!advises, "{words:?}: {}", told.stdout);
    }
    let verified = signing(&["verify", "--json"]).json();
    assert_eq!(verified["damaged"].as_array().unwrap().len(), 0, "{verified}");
    assert_eq!(verified["not_vouched_for"][0]["reason"], "unsigned", "{verified}");
    let fault = signing(&["fsck", "--json"]).json()["findings"][0].clone();
    assert_eq!((&fault["fault"], &fault["reason"]), (&"not_vouched_for".into(), &"unsigned".into()));
    let packed = signing(&["pack", "create", "all.pack"]);
    assert!(
        packed.code == 1 && packed.stdout.contains("1 entry left out: not vouched for"),
        "{}",
        packed.stdout
    );
    let packed = signing(&["pack", "create", "all.pack", "--json"]).json();
    assert_eq!(packed["damaged"].as_array().unwrap().len(), 0, "{packed}");
    assert_eq!(packed["not_vouched_for"][0]["reason"], "unsigned", "{packed}");
}
