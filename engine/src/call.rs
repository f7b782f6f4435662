//! Calling a function whose prototype is known only at run time, such as one named on a command line.
//!
//! The trick: in the System V convention a function takes what it needs from six integer registers, eight
//! vector registers and the stack, each counted for itself, and the caller cleans up. So one call that fills
//! all of them serves every prototype of scalars (System V psABI for x86-64, section 3.2.3).

#![allow(unsafe_code)] // A call of an address is unsafe by nature; this is the only place that makes one.

use std::fmt;
use std::str::FromStr;

/// A scalar that can be passed or returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalarType {
    /// Nothing; as a result only.
    Void,
    /// 8-bit integer.
    I8,
    /// 16-bit integer.
    I16,
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
    /// An address.
    Ptr,
}

const NAMES: [(&str, ScalarType); 8] = [
    ("void", ScalarType::Void),
    ("i8", ScalarType::I8),
    ("i16", ScalarType::I16),
    ("i32", ScalarType::I32),
    ("i64", ScalarType::I64),
    ("f32", ScalarType::F32),
    ("f64", ScalarType::F64),
    ("ptr", ScalarType::Ptr),
];

impl fmt::Display for ScalarType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(_, known)| known == self).map_or("?", |(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for ScalarType {
    type Err = CallError;

    fn from_str(text: &str) -> Result<Self, CallError> {
        let known = NAMES.iter().find(|(name, _)| *name == text);
        known.map(|(_, scalar)| *scalar).ok_or_else(|| CallError::UnknownType(text.to_owned()))
    }
}

/// Result and parameters of a function, written as `f64(i32,ptr)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prototype {
    /// What it returns.
    pub result: ScalarType,
    /// What it takes, in order.
    pub parameters: Vec<ScalarType>,
}

impl fmt::Display for Prototype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parameters: Vec<_> = self.parameters.iter().map(ScalarType::to_string).collect();
        write!(f, "{}({})", self.result, parameters.join(","))
    }
}

impl FromStr for Prototype {
    type Err = CallError;

    fn from_str(text: &str) -> Result<Self, CallError> {
        let malformed = || CallError::MalformedPrototype(text.to_owned());
        let (result, rest) = text.trim().split_once('(').ok_or_else(malformed)?;
        let inside = rest.strip_suffix(')').ok_or_else(malformed)?.trim();
        let parameters = match inside {
            "" | "void" => Vec::new(),
            _ => inside.split(',').map(|name| name.trim().parse()).collect::<Result<Vec<_>, _>>()?,
        };
        if parameters.contains(&ScalarType::Void) {
            return Err(malformed());
        }
        Ok(Self { result: result.trim().parse()?, parameters })
    }
}

/// A value of a scalar type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// No value.
    Void,
    /// 8-bit integer.
    I8(i8),
    /// 16-bit integer.
    I16(i16),
    /// 32-bit integer.
    I32(i32),
    /// 64-bit integer.
    I64(i64),
    /// Single precision.
    F32(f32),
    /// Double precision.
    F64(f64),
    /// An address.
    Ptr(u64),
}

impl Value {
    /// The type of this value.
    pub fn scalar_type(&self) -> ScalarType {
        match self {
            Self::Void => ScalarType::Void,
            Self::I8(_) => ScalarType::I8,
            Self::I16(_) => ScalarType::I16,
            Self::I32(_) => ScalarType::I32,
            Self::I64(_) => ScalarType::I64,
            Self::F32(_) => ScalarType::F32,
            Self::F64(_) => ScalarType::F64,
            Self::Ptr(_) => ScalarType::Ptr,
        }
    }

    /// Reads a value of this type: integers in decimal or as `0x…`, signed or unsigned within their width;
    /// addresses likewise, or `null`.
    ///
    /// # Errors
    /// When the text is no such value, or does not fit.
    pub fn parse(scalar: ScalarType, text: &str) -> Result<Self, CallError> {
        let wrong = || CallError::WrongValue { text: text.to_owned(), scalar };
        Ok(match scalar {
            ScalarType::Void => return Err(wrong()),
            ScalarType::F32 => Self::F32(text.parse().map_err(|_| wrong())?),
            ScalarType::F64 => Self::F64(text.parse().map_err(|_| wrong())?),
            ScalarType::I8 => Self::I8(integer(text, 8).ok_or_else(wrong)? as i8),
            ScalarType::I16 => Self::I16(integer(text, 16).ok_or_else(wrong)? as i16),
            ScalarType::I32 => Self::I32(integer(text, 32).ok_or_else(wrong)? as i32),
            ScalarType::I64 => Self::I64(integer(text, 64).ok_or_else(wrong)? as i64),
            ScalarType::Ptr if text == "null" => Self::Ptr(0),
            ScalarType::Ptr => Self::Ptr(integer(text, 64).ok_or_else(wrong)?),
        })
    }

    /// The eight bytes that stand for it in an integer register, sign-extended.
    fn to_register(self) -> u64 {
        match self {
            Self::Void => 0,
            Self::I8(value) => i64::from(value) as u64,
            Self::I16(value) => i64::from(value) as u64,
            Self::I32(value) => i64::from(value) as u64,
            Self::I64(value) => value as u64,
            Self::F32(value) => u64::from(value.to_bits()),
            Self::F64(value) => value.to_bits(),
            Self::Ptr(value) => value,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Void => f.write_str("void"),
            Self::I8(value) => write!(f, "{value}"),
            Self::I16(value) => write!(f, "{value}"),
            Self::I32(value) => write!(f, "{value}"),
            Self::I64(value) => write!(f, "{value}"),
            Self::F32(value) => write!(f, "{value}"),
            Self::F64(value) => write!(f, "{value}"),
            Self::Ptr(value) => write!(f, "{value:#x}"),
        }
    }
}

/// An integer within `bits`, read as signed or as unsigned: `-1` and `255` are both eight bits.
fn integer(text: &str, bits: u32) -> Option<u64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let magnitude = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) if !hex.starts_with(['+', '-']) => i128::from(u64::from_str_radix(hex, 16).ok()?),
        Some(_) => return None,
        None if digits.starts_with(['+', '-']) => return None,
        None => i128::from(digits.parse::<u64>().ok()?),
    };
    let value = if negative { -magnitude } else { magnitude };
    let fits = (-(1i128 << (bits - 1))..1i128 << bits).contains(&value);
    fits.then_some(value as u64)
}

/// Why a call could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Not a type's name.
    #[error("`{0}` is none of void, i8, i16, i32, i64, f32, f64, ptr")]
    UnknownType(String),
    /// Not a prototype.
    #[error("`{0}` is not a prototype such as `f64(i32,ptr)`")]
    MalformedPrototype(String),
    /// Not a value of the type.
    #[error("`{text}` is not a value of type {scalar}")]
    WrongValue {
        /// As given.
        text: String,
        /// What it should have been.
        scalar: ScalarType,
    },
    /// Another number or other types than the prototype's.
    #[error("the function is {prototype}, the arguments are ({arguments})")]
    WrongArguments {
        /// What it takes.
        prototype: String,
        /// What was given.
        arguments: String,
    },
    /// More than we pass on the stack.
    #[error("at most {STACK_WORDS} arguments can be passed beyond those in registers")]
    TooManyArguments,
    /// A host whose calling convention is not implemented here.
    #[error("calls by prototype are made on x86-64 with the System V convention only")]
    UnsupportedHost,
}

const INTEGER_REGISTERS: usize = 6;
const VECTOR_REGISTERS: usize = 8;
const STACK_WORDS: usize = 12;

/// Arguments sorted into where the System V convention passes them.
struct Frame {
    integers: [u64; INTEGER_REGISTERS],
    vectors: [f64; VECTOR_REGISTERS],
    stack: [u64; STACK_WORDS],
}

impl Frame {
    fn of(arguments: &[Value]) -> Result<Self, CallError> {
        let mut frame = Self {
            integers: [0; INTEGER_REGISTERS],
            vectors: [0.0; VECTOR_REGISTERS],
            stack: [0; STACK_WORDS],
        };
        let (mut integers, mut vectors, mut stack) = (0, 0, 0);
        for argument in arguments {
            let word = argument.to_register();
            let is_vector = matches!(argument, Value::F32(_) | Value::F64(_));
            if is_vector && vectors < VECTOR_REGISTERS {
                // Bits are moved, never converted: a single stands in the low half of its register.
                frame.vectors[vectors] = f64::from_bits(word);
                vectors += 1;
            } else if !is_vector && integers < INTEGER_REGISTERS {
                frame.integers[integers] = word;
                integers += 1;
            } else {
                *frame.stack.get_mut(stack).ok_or(CallError::TooManyArguments)? = word;
                stack += 1;
            }
        }
        Ok(frame)
    }
}

/// Calls the function at `address`.
///
/// # Errors
/// When the arguments are not the prototype's, or more than can be passed; the function is then not called.
///
/// # Safety
/// `address` must be the entry of a function with this prototype in the host's C convention, which stays
/// loaded during the call; and whatever that function asks of its caller must hold for these arguments.
pub unsafe fn call(address: u64, prototype: &Prototype, arguments: &[Value]) -> Result<Value, CallError> {
    if !arguments.iter().map(Value::scalar_type).eq(prototype.parameters.iter().copied()) {
        let arguments: Vec<_> = arguments.iter().map(|value| value.scalar_type().to_string()).collect();
        return Err(CallError::WrongArguments {
            prototype: prototype.to_string(),
            arguments: arguments.join(","),
        });
    }
    let frame = Frame::of(arguments)?;
    Ok(match prototype.result {
        // SAFETY: the caller vouches for address and prototype; a single is returned in xmm0.
        ScalarType::F32 => Value::F32(unsafe { system_v::invoke(address, &frame) }?),
        // SAFETY: as above; a double is returned in xmm0.
        ScalarType::F64 => Value::F64(unsafe { system_v::invoke(address, &frame) }?),
        // SAFETY: as above; integers and addresses are returned in rax, of which a function that returns
        // nothing leaves anything.
        integer => from_register(integer, unsafe { system_v::invoke(address, &frame) }?),
    })
}

/// Only the bits of the type are defined in a register that returns it.
fn from_register(scalar: ScalarType, word: u64) -> Value {
    match scalar {
        ScalarType::I8 => Value::I8(word as i8),
        ScalarType::I16 => Value::I16(word as i16),
        ScalarType::I32 => Value::I32(word as i32),
        ScalarType::I64 => Value::I64(word as i64),
        ScalarType::Ptr => Value::Ptr(word),
        ScalarType::Void | ScalarType::F32 | ScalarType::F64 => Value::Void,
    }
}

#[cfg(all(target_arch = "x86_64", unix))]
mod system_v {
    use super::{CallError, Frame};

    #[rustfmt::skip]
    type Function<R> = unsafe extern "C" fn(
        u64, u64, u64, u64, u64, u64,
        f64, f64, f64, f64, f64, f64, f64, f64,
        u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64,
    ) -> R;

    /// # Safety
    /// As for [`call`](super::call), with a result that is returned like an `R`.
    #[rustfmt::skip]
    pub(super) unsafe fn invoke<R>(address: u64, frame: &Frame) -> Result<R, CallError> {
        let Frame { integers: i, vectors: v, stack: s } = frame;
        // SAFETY: a function pointer has the size of an address, and the caller vouches for what is there.
        let function = unsafe { std::mem::transmute::<usize, Function<R>>(address as usize) };
        // SAFETY: the callee reads the registers and stack words of its own prototype, which are filled in
        // order; it may ignore the others, and this side cleans up the stack.
        Ok(unsafe {
            function(
                i[0], i[1], i[2], i[3], i[4], i[5],
                v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7],
                s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9], s[10], s[11],
            )
        })
    }
}

#[cfg(not(all(target_arch = "x86_64", unix)))]
mod system_v {
    use super::{CallError, Frame};

    /// # Safety
    /// None is needed: nothing is called.
    pub(super) unsafe fn invoke<R>(_address: u64, _frame: &Frame) -> Result<R, CallError> {
        Err(CallError::UnsupportedHost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prototype(text: &str) -> Prototype {
        text.parse().unwrap()
    }

    #[test]
    fn prototypes_are_read_and_shown() {
        for text in ["f64(i32,ptr)", "void()", "i8(i8,i16,i32,i64,f32,f64,ptr)"] {
            assert_eq!(prototype(text).to_string(), text);
        }
        assert_eq!(prototype(" i32 ( f32 , ptr ) ").to_string(), "i32(f32,ptr)");
        assert_eq!(prototype("i32(void)").to_string(), "i32()");
        for text in
            ["", "f64", "f64(", "f64(i32", "(i32)", "f64(i32,)", "f64(void,i32)", "int(i32)", "i32()x"]
        {
            assert!(text.parse::<Prototype>().is_err(), "{text}");
        }
    }

    #[test]
    fn values_keep_to_their_width() {
        let read = |scalar, text| Value::parse(scalar, text).ok();
        assert_eq!(read(ScalarType::I8, "-128"), Some(Value::I8(-128)));
        assert_eq!(read(ScalarType::I8, "255"), Some(Value::I8(-1)));
        assert_eq!(read(ScalarType::I8, "256"), None);
        assert_eq!(read(ScalarType::I8, "-129"), None);
        assert_eq!(read(ScalarType::I64, "0xffffffffffffffff"), Some(Value::I64(-1)));
        assert_eq!(read(ScalarType::I64, "18446744073709551616"), None);
        assert_eq!(read(ScalarType::I32, "--1"), None);
        assert_eq!(read(ScalarType::I32, "-+1"), None);
        assert_eq!(read(ScalarType::I32, "0x-1"), None);
        assert_eq!(read(ScalarType::Ptr, "null"), Some(Value::Ptr(0)));
        assert_eq!(read(ScalarType::F64, "-0.5e3"), Some(Value::F64(-500.0)));
        assert_eq!(read(ScalarType::F64, "one"), None);
        assert_eq!(read(ScalarType::Void, "0"), None);
    }

    extern "C" fn weighted(a: i8, b: f32, c: i64, d: f64, e: i16) -> f64 {
        f64::from(a) + 10.0 * f64::from(b) + 100.0 * c as f64 + 1000.0 * d + 10000.0 * f64::from(e)
    }

    #[test]
    fn registers_of_both_kinds_are_filled_in_order() {
        let arguments = [Value::I8(-1), Value::F32(2.0), Value::I64(3), Value::F64(-4.0), Value::I16(5)];
        // SAFETY: the prototype is that of `weighted`.
        let result =
            unsafe { call(weighted as *const () as u64, &prototype("f64(i8,f32,i64,f64,i16)"), &arguments) };
        assert_eq!(result, Ok(Value::F64(-1.0 + 20.0 + 300.0 - 4000.0 + 50000.0)));
    }

    #[rustfmt::skip]
    extern "C" fn many(
        a: i32, b: i32, c: i32, d: i32, e: i32, f: i32, g: i32,
        p: f32, q: f32, r: f32, s: f32, t: f32, u: f32, v: f32, w: f32, x: f32, h: i32,
    ) -> i32 {
        let integers = [a, b, c, d, e, f, g, h];
        let singles = [p, q, r, s, t, u, v, w, x];
        let sum: i32 = integers.iter().zip(1..).map(|(value, weight)| value * weight).sum();
        sum + singles.iter().zip(1i16..).map(|(value, weight)| value * f32::from(weight)).sum::<f32>() as i32
    }

    #[test]
    fn the_rest_goes_on_the_stack() {
        let prototype = prototype("i32(i32,i32,i32,i32,i32,i32,i32,f32,f32,f32,f32,f32,f32,f32,f32,f32,i32)");
        let mut arguments: Vec<_> = (1..=7).map(Value::I32).collect();
        arguments.extend((1..=9u8).map(|value| Value::F32(f32::from(value))));
        arguments.push(Value::I32(-8));
        // SAFETY: the prototype is that of `many`.
        let result = unsafe { call(many as *const () as u64, &prototype, &arguments) };
        let squares = |n: i32| (1..=n).map(|i| i * i).sum::<i32>();
        assert_eq!(result, Ok(Value::I32(squares(7) - 64 + squares(9))));
    }

    #[test]
    fn other_arguments_are_refused() {
        // SAFETY: nothing is called.
        let result = unsafe { call(0, &prototype("f64(f64)"), &[Value::F32(1.0)]) };
        assert!(matches!(result, Err(CallError::WrongArguments { .. })));
        let arguments = [Value::I64(0); INTEGER_REGISTERS + STACK_WORDS + 1];
        let prototype =
            Prototype { result: ScalarType::Void, parameters: vec![ScalarType::I64; arguments.len()] };
        // SAFETY: nothing is called.
        assert_eq!(unsafe { call(0, &prototype, &arguments) }, Err(CallError::TooManyArguments));
    }
}
