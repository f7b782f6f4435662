//! Values of a call as JSON.
//!
//! JSON knows neither NaN nor the infinities: they become the strings `"NaN"`, `"inf"` and `"-inf"`. Addresses
//! become strings like `"0x7f00"`, since many readers of JSON keep 53 bits of a number only.

use objcache::call::Value;
use serde::{Serialize, Serializer};

/// Serialises one value as described above; no value as null.
pub(crate) struct Json(pub(crate) Value);

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Void => to.serialize_none(),
            Value::I8(value) => to.serialize_i8(value),
            Value::I16(value) => to.serialize_i16(value),
            Value::I32(value) => to.serialize_i32(value),
            Value::I64(value) => to.serialize_i64(value),
            Value::F32(value) if value.is_finite() => to.serialize_f32(value),
            Value::F64(value) if value.is_finite() => to.serialize_f64(value),
            other => to.collect_str(&other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_value() {
        for (value, json) in [
            (Value::Void, "null"),
            (Value::I8(-1), "-1"),
            (Value::I64(i64::MIN), "-9223372036854775808"),
            (Value::F32(0.1), "0.1"),
            (Value::F64(1.0), "1.0"),
            (Value::F64(f64::NAN), "\"NaN\""),
            (Value::F32(f32::INFINITY), "\"inf\""),
            (Value::F64(f64::NEG_INFINITY), "\"-inf\""),
            (Value::Ptr(0x7f00), "\"0x7f00\""),
        ] {
            assert_eq!(serde_json::to_string(&Json(value)).unwrap(), json);
        }
    }
}
