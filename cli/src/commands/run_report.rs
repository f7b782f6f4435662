//! What `run` says.

use std::io;
use std::time::Duration;

use objcache::call::{Prototype, Value};
use objcache::signature::Signature;
use serde::{Serialize, Serializer};

use super::compile::history;
use super::run::Program;
use crate::call::arguments::Arguments;
use crate::call::buffer::{Buffer, Content};
use crate::call::number::Json;
use crate::context::short;
use crate::output::{Report, Text};
use crate::units::{self, micros};

/// People see so many elements of a buffer; programs see all.
const SHOWN_ELEMENTS: usize = 256;

/// A call that returned.
pub(crate) struct RunReport<'a> {
    pub(crate) program: &'a Program,
    pub(crate) function: &'a str,
    pub(crate) prototype: Prototype,
    pub(crate) result: Value,
    pub(crate) arguments: &'a Arguments,
    pub(crate) call: Duration,
}

impl RunReport<'_> {
    /// How the result was come by, in one line.
    pub(crate) fn remark(&self) -> String {
        let Program { outcome, signature, timings, uncacheable, .. } = self.program;
        let (load, call) = (units::duration(timings.load), units::duration(self.call));
        match signature {
            Some(signature) if *outcome != "none" => {
                format!(
                    "{outcome} {}: {}, loaded in {load}, called in {call}",
                    short(signature),
                    history(timings, uncacheable.as_deref())
                )
            }
            _ => format!("loaded in {load}, called in {call}"),
        }
    }
}

impl Report for RunReport<'_> {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        if self.result != Value::Void {
            text.line(self.result.to_string())?;
        }
        for (argument, buffer) in &self.arguments.buffers {
            text.line(format!("argument {argument}: {}", buffer.shown(SHOWN_ELEMENTS)))?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Fields<'a> {
    outcome: &'a str,
    signature: Option<String>,
    function: &'a str,
    prototype: String,
    result: Json,
    buffers: Vec<BufferFields<'a>>,
    prepare_us: f64,
    lookup_us: f64,
    compile_us: f64,
    load_us: f64,
    call_us: f64,
    object_bytes: u64,
    compiler: Option<&'a str>,
    uncacheable: Option<&'a str>,
}

#[derive(Serialize)]
struct BufferFields<'a> {
    argument: usize,
    #[serde(rename = "type")]
    type_name: String,
    values: Content<'a>,
}

impl<'a> BufferFields<'a> {
    fn new((argument, buffer): &'a (usize, Buffer)) -> Self {
        Self { argument: *argument, type_name: buffer.type_name(), values: Content(buffer) }
    }
}

impl Serialize for RunReport<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let program = self.program;
        let timings = &program.timings;
        let fields = Fields {
            outcome: program.outcome,
            signature: program.signature.as_ref().map(Signature::to_string),
            function: self.function,
            prototype: self.prototype.to_string(),
            result: Json(self.result),
            buffers: self.arguments.buffers.iter().map(BufferFields::new).collect(),
            prepare_us: micros(timings.prepare),
            lookup_us: micros(timings.lookup),
            compile_us: micros(timings.compile.unwrap_or_default()),
            load_us: micros(timings.load),
            call_us: micros(self.call),
            object_bytes: program.object_bytes,
            compiler: program.compiler.as_deref(),
            uncacheable: program.uncacheable.as_deref(),
        };
        fields.serialize(to)
    }
}
