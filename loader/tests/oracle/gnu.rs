//! GNU ld, for relocation kinds that `ld.lld` does not know. It goes on after a value that does not fit, but gives up on
//! other refusals, so it is asked again without what it refused.

use std::collections::HashMap;
use std::process::Command;

use crate::lld::{Files, LinkedFile};
use crate::machine::Machine;

/// Without `--verbose` only ten refusals are told.
const FLAGS: &str = "--no-relax --build-id=none -z norelro --noinhibit-exec -e 0 --verbose --no-warn-mismatch \
     --no-check-sections";

/// Links what `object` makes without the cases that were refused, which are in the result with what was said of them.
pub fn link(
    machine: &Machine,
    script: &str,
    is_library: bool,
    what: &str,
    object: impl Fn(&HashMap<usize, String>) -> Vec<u8>,
) -> (LinkedFile, HashMap<usize, String>) {
    let mut refused = HashMap::new();
    loop {
        let files = Files::new(&[&object(&refused)], script, what);
        let [program, flags @ ..] = machine.gnu_ld else { panic!("no GNU ld for {}", machine.name) };
        let mut command = Command::new(program);
        command.args(flags).args(FLAGS.split(' ')).arg(if is_library { "-shared" } else { "-static" });
        command.env("LC_ALL", "C");
        let (is_done, messages) = files.run(command);
        let before = refused.len();
        for line in messages.lines() {
            if let Some((number, line)) = case_of(line) {
                if !machine.harmless.iter().any(|harmless| line.contains(harmless)) {
                    refused.insert(number, line.to_owned());
                }
            }
        }
        if is_done {
            return (files.read(messages), refused);
        }
        assert!(refused.len() > before, "{what}: {messages}");
    }
}

/// The number of the case that a message is about: those with a place name its section.
fn case_of(line: &str) -> Option<(usize, &str)> {
    let (_, place) = line.split_once("(.t.").or_else(|| line.split_once("section `.t."))?;
    let digits = place.find(|digit: char| !digit.is_ascii_digit())?;
    Some((place[..digits].parse().ok()?, line))
}
