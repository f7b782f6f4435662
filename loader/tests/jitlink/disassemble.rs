//! Instructions as `llvm-mc` sees them.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::LLVM_MC;

/// A decoded instruction.
#[derive(Debug)]
pub(crate) struct Instruction {
    /// Bytes.
    pub(crate) length: u64,
    /// Its operands; `None` for those that are no numbers.
    pub(crate) operands: Vec<Option<i64>>,
}

/// The instruction that some bytes begin with.
pub(crate) fn first_instruction(triple: &str, features: &str, bytes: &[u8]) -> Result<Instruction, String> {
    let mut command = Command::new(LLVM_MC);
    command.args(["--disassemble", "--show-inst", "--show-encoding"]).arg(format!("-triple={triple}"));
    if !features.is_empty() {
        command.arg(format!("-mattr={features}"));
    }
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let text: Vec<_> = bytes.iter().map(|byte| format!("{byte:#04x}")).collect();
    child.stdin.take().unwrap().write_all(text.join(" ").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Takes `encoding: [0x..,…]` and the `<MCOperand …>` of the first instruction.
fn parse(listing: &str) -> Result<Instruction, String> {
    let (_, rest) = listing.split_once("encoding: [").ok_or_else(|| format!("no instruction: {listing}"))?;
    let (encoding, rest) = rest.split_once(']').ok_or("no end of the encoding")?;
    let this = rest.split("encoding: [").next().unwrap_or_default();
    let operands = this.split("<MCOperand ").skip(1).map(|operand| {
        let end = operand.find('>').unwrap_or(operand.len());
        operand[..end].strip_prefix("Imm:").and_then(|number| number.parse().ok())
    });
    Ok(Instruction { length: encoding.split(',').count() as u64, operands: operands.collect() })
}
