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
