//! What is measured, a file for each kind of case.

pub mod cold;
pub mod exceptions;
pub mod load;
pub mod lookup;
pub mod memory;
pub mod threads;
pub mod tiny;

use std::process::{Command, Stdio};

/// Runs this program again for one case of one peer, with the plugins that it has itself; the numbers that it prints. For
/// what must begin in a new process. `None` when it fails.
fn in_new_process(case: &str, peer: &str) -> Option<Vec<f64>> {
    let program = std::env::current_exe().expect("the path of this program");
    let arguments: Vec<String> = std::env::args().collect();
    let plugins = arguments.windows(2).filter(|pair| pair[0] == "--plugin").flatten();
    let mut command = Command::new(program);
    let output = command.args([case, peer]).args(plugins).stderr(Stdio::inherit()).output().expect("it runs");
    let numbers = String::from_utf8_lossy(&output.stdout);
    output
        .status
        .success()
        .then(|| numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect())
}
