//! The end of the process, at which images may still be there: what the C library does then, and what it must not do any more
//! once an image is gone.

mod destructors;
mod finalizers;

pub(crate) use destructors::{
    REGISTRAR, add_caller, atexit, forget_registered, in_place_of, remove_caller, run_registered,
};
pub(crate) use finalizers::{finalize_at_exit, finalize_no_more, is_ended_by_another};
