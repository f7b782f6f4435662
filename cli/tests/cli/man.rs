//! `man`: a manual page for each command.

use crate::support::Sandbox;

#[test]
fn every_command_has_a_page() {
    let sandbox = Sandbox::new();
    let written = sandbox.objcache(&["man", "--out", "man/man1"]).fine();
    let help = sandbox.objcache(&["--help"]).fine();
    let commands = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let commands = commands
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let mut count = 0;
    for name in commands.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        let page = String::from_utf8(sandbox.read(&format!("man/man1/objcache-{name}.1"))).unwrap();
        assert!(page.contains(".TH ") && page.contains(".SH NAME"), "{name}: {page}");
        assert!(written.contains(&format!("objcache-{name}.1")), "{written}");
        count += 1;
    }
    assert!(count > 20, "{help}");
    let page = sandbox.objcache(&["man"]).fine();
    assert_eq!(page.trim_end().as_bytes(), sandbox.read("man/man1/objcache.1").trim_ascii_end());
    assert!(page.contains("Exit codes: 0 fine"), "{page}");
    sandbox.write("in-the-way", "");
    assert_eq!(sandbox.json_error(&["man", "--out", "in-the-way"], 3)["code"], "io");
}
