//! Prototypes of the functions that a C caller can call.

use cranelift_codegen::ir::{AbiParam, ArgumentExtension, ArgumentPurpose, types};
use cranelift_codegen::isa::CallConv;

use super::definitions::Definition;
use crate::call::{Prototype, ScalarType};

/// The prototype of `definition`, when it is of scalars and in `convention`, the target's C convention.
pub(super) fn of(definition: &Definition, convention: CallConv) -> Option<(String, Prototype)> {
    let signature = &definition.function.signature;
    if signature.call_conv != convention {
        return None;
    }
    let result = match &signature.returns[..] {
        [] => ScalarType::Void,
        [single] => scalar(single)?,
        _ => return None,
    };
    let parameters = signature.params.iter().map(parameter).collect::<Option<Vec<_>>>()?;
    Some((definition.symbol.clone(), Prototype { result, parameters }))
}

/// A caller by prototype knows signed integers, so it cannot promise a callee zeros above a narrow one.
fn parameter(parameter: &AbiParam) -> Option<ScalarType> {
    let scalar = scalar(parameter)?;
    let wants_zeros = parameter.extension == ArgumentExtension::Uext && scalar != ScalarType::I64;
    (!wants_zeros).then_some(scalar)
}

fn scalar(parameter: &AbiParam) -> Option<ScalarType> {
    if parameter.purpose != ArgumentPurpose::Normal {
        return None;
    }
    Some(match parameter.value_type {
        types::I8 => ScalarType::I8,
        types::I16 => ScalarType::I16,
        types::I32 => ScalarType::I32,
        types::I64 => ScalarType::I64,
        types::F32 => ScalarType::F32,
        types::F64 => ScalarType::F64,
        _ => return None,
    })
}
