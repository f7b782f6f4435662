//! A host on which thread-local variables are not served: whatever needs them is refused.

use std::ops::Range;

use super::{Template, Variable};
use crate::error::LoadError;
use crate::resolver::SymbolResolver;

/// None of these is ever made.
#[derive(Debug)]
pub(crate) enum Module {}

const REFUSED: &str = "thread-local storage on this system";

impl Module {
    pub(crate) fn new(_template: Template) -> Result<Self, &'static str> {
        Err(REFUSED)
    }

    pub(crate) fn word(&self) -> u64 {
        match *self {}
    }

    pub(crate) fn descriptor(&self, _offset: u64) -> [u64; 2] {
        match *self {}
    }
}

/// Nor this.
#[derive(Debug)]
pub(crate) enum Reserved {}

impl Reserved {
    pub(crate) fn offset(&self, _size: u64) -> Result<u64, LoadError> {
        match *self {}
    }

    pub(crate) fn keep(self) {
        match self {}
    }
}

pub(crate) fn set_aside(_size: u64, _align: u64) -> Option<Reserved> {
    None
}

pub(crate) fn thread_offsets(
    variables: &[Variable<'_>],
    _resolver: &dyn SymbolResolver,
) -> Vec<Result<u64, &'static str>> {
    vec![Err(REFUSED); variables.len()]
}

pub(crate) fn descriptor_of(_offset: u64) -> [u64; 2] {
    [0; 2]
}

pub(crate) fn get_addr() -> Option<u64> {
    None
}

pub(crate) fn thread_atexit() -> Option<u64> {
    None
}

pub(crate) fn run_and_forget(_segments: &[Range<u64>]) {}

pub(crate) fn forget(_segments: &[Range<u64>]) {}
