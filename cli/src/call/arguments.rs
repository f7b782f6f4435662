//! The words after the file, as values of the prototype's types.

use objcache::call::{Prototype, ScalarType, Value};

use super::buffer::Buffer;
use crate::failure::Failure;

/// Arguments of one call, and the memory that some of them point to.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) values: Vec<Value>,
    /// Each with the number of its argument, counted from 1.
    pub(crate) buffers: Vec<(usize, Buffer)>,
}

impl Arguments {
    /// Reads `words` as arguments of `function`.
    pub(crate) fn parse(function: &str, prototype: &Prototype, words: &[String]) -> Result<Self, Failure> {
        let wanted = prototype.parameters.len();
        if words.len() != wanted {
            let arguments = if wanted == 1 { "argument" } else { "arguments" };
            let message =
                format!("`{function}` is {prototype}: it takes {wanted} {arguments}, not {}", words.len());
            return Err(Failure::usage("wrong_arguments", message));
        }
        let mut arguments = Self { values: Vec::new(), buffers: Vec::new() };
        for (number, (scalar, word)) in (1..).zip(prototype.parameters.iter().zip(words)) {
            arguments.push(number, *scalar, word).map_err(|why| {
                let message = format!("argument {number} of `{function}`, which is {prototype}: {why}");
                Failure::usage("wrong_arguments", message)
            })?;
        }
        Ok(arguments)
    }

    fn push(&mut self, number: usize, scalar: ScalarType, word: &str) -> Result<(), String> {
        let value = match Buffer::parse(word) {
            Some(buffer) => {
                let mut buffer = buffer?;
                let value = pointer(scalar, buffer.address())?;
                self.buffers.push((number, buffer));
                value
            }
            None if word == "null" => pointer(scalar, 0)?,
            None => Value::parse(scalar, word).map_err(|error| error.to_string())?,
        };
        self.values.push(value);
        Ok(())
    }
}

/// CLIF has no pointer type: there an address is an `i64`.
fn pointer(scalar: ScalarType, address: u64) -> Result<Value, String> {
    match scalar {
        ScalarType::Ptr => Ok(Value::Ptr(address)),
        ScalarType::I64 => Ok(Value::I64(address as i64)),
        other => Err(format!("an address is passed as ptr or i64, not as {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(prototype: &str, words: &[&str]) -> Result<Arguments, String> {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        Arguments::parse("f", &prototype.parse().unwrap(), &words).map_err(|failure| failure.message)
    }

    #[test]
    fn values_and_buffers() {
        let arguments = parse("void(i32,ptr,f64,ptr)", &["-1", "f32[1,2]", "-0.5", "null"]).unwrap();
        assert_eq!(arguments.values[0], Value::I32(-1));
        assert_eq!(arguments.values[2], Value::F64(-0.5));
        assert_eq!(arguments.values[3], Value::Ptr(0));
        assert_eq!(arguments.buffers.len(), 1);
        assert_eq!(arguments.buffers[0].0, 2);
    }

    #[test]
    fn an_address_may_be_an_i64() {
        assert_eq!(parse("void(i64)", &["null"]).unwrap().values, [Value::I64(0)]);
        let mut arguments = parse("void(i64)", &["i8[1]"]).unwrap();
        let address = arguments.buffers[0].1.address();
        assert_eq!(arguments.values, [Value::I64(address as i64)]);
    }

    #[test]
    fn messages_name_the_argument() {
        let why = |prototype, words: &[&str]| parse(prototype, words).unwrap_err();
        assert_eq!(why("i32(i32,i32)", &["1"]), "`f` is i32(i32,i32): it takes 2 arguments, not 1");
        assert_eq!(
            why("i32(i8,i8)", &["1", "300"]),
            "argument 2 of `f`, which is i32(i8,i8): `300` is not a value of type i8"
        );
        assert_eq!(
            why("i32(f32)", &["f32[1]"]),
            "argument 1 of `f`, which is i32(f32): an address is passed as ptr or i64, not as f32"
        );
    }
}
