//! Calls that code of images registered with the C library, for the end of a thread or of the process.
//!
//! What the C library would call may be gone by then. So it is given functions of our own, with a call from here, which is
//! not made any more once the image is going; and while it is being made, the image waits.
#![allow(unsafe_code)] // Calls of loaded code by address.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::fork::{self, ThreadNumber};

pub(crate) type Destructor = unsafe extern "C" fn(*mut c_void);

/// Calls to come, by addresses in the images that registered them, in order.
pub(crate) struct Calls(Mutex<BTreeMap<u64, Vec<Arc<Call>>>>);

/// A call to come.
pub(crate) struct Call {
    image: u64,
    /// The thread that makes it, once that is known.
    maker: OnceLock<ThreadNumber>,
    /// Locked while it is made. `None`: it was, or is not made any more.
    pending: Mutex<Option<Pending>>,
}

#[derive(Clone, Copy)]
struct Pending {
    destructor: Destructor,
    object: *mut c_void,
}

// SAFETY: whoever makes the call says that it may be made; others only forget it.
unsafe impl Send for Pending {}

impl Calls {
    pub(crate) const fn new() -> Self {
        Calls(Mutex::new(BTreeMap::new()))
    }

    /// Notes a call. What is returned is for the C library, and comes back with [`from_library`](Self::from_library).
    pub(crate) fn add(
        &self,
        image: u64,
        destructor: Destructor,
        object: *mut c_void,
        maker: Option<ThreadNumber>,
    ) -> *mut c_void {
        let maker = maker.map_or_else(OnceLock::new, OnceLock::from);
        let call = Arc::new(Call { image, maker, pending: Mutex::new(Some(Pending { destructor, object })) });
        let of_library = Arc::into_raw(Arc::clone(&call));
        fork::lock(&self.0).entry(image).or_default().push(call);
        of_library.cast_mut().cast()
    }

    /// Takes a call back from the C library. Nobody else knows of it then but its image, until [`forget`](Self::forget).
    ///
    /// # Safety
    /// `call` is what [`add`](Self::add) gave, and taken back once.
    pub(crate) unsafe fn from_library(call: *mut c_void) -> Arc<Call> {
        // SAFETY: as the caller says.
        unsafe { Arc::from_raw(call.cast::<Call>().cast_const()) }
    }

    /// The call is out of the world.
    pub(crate) fn forget(&self, call: &Arc<Call>) {
        let mut calls = fork::lock(&self.0);
        let Some(of_image) = calls.get_mut(&call.image) else { return };
        if let Some(at) = of_image.iter().rposition(|other| Arc::ptr_eq(other, call)) {
            of_image.remove(at);
        }
        if of_image.is_empty() {
            calls.remove(&call.image);
        }
    }

    /// Takes out what was registered with an address.
    pub(crate) fn take_of(&self, image: u64) -> Vec<Arc<Call>> {
        fork::lock(&self.0).remove(&image).unwrap_or_default()
    }

    /// Takes out what was registered with one address of an image, in order. `None`: nothing is.
    pub(crate) fn take(&self, segments: &[Range<u64>]) -> Option<Vec<Arc<Call>>> {
        let mut calls = fork::lock(&self.0);
        let of_image = segments.iter().find_map(|segment| calls.range(segment.clone()).next());
        let address = *of_image?.0;
        calls.remove(&address)
    }
}

impl Call {
    /// Makes it, unless it is not to be made any more.
    ///
    /// # Safety
    /// Whoever registered it said that it may be made now, if its image is there, which waits for it before it goes.
    pub(crate) unsafe fn make(&self) {
        let _ = self.maker.set(ThreadNumber::current());
        // Held meanwhile, so that the image stays.
        let mut pending = self.pending.lock();
        if let Some(Pending { destructor, object }) = pending.take() {
            // SAFETY: as the caller says. Outside of forks' gate: it may do anything.
            fork::outside(|| unsafe { destructor(object) });
        }
    }

    /// Makes it if it is this thread's to make, and sees to it that nobody makes it later or is making it.
    ///
    /// # Safety
    /// As [`make`](Self::make).
    pub(crate) unsafe fn make_or_cancel(&self) {
        if let Some(Pending { destructor, object }) = self.cancel() {
            // SAFETY: as the caller says.
            unsafe { destructor(object) };
        }
    }

    /// Nobody makes it later, or is making it; what this thread would have made.
    fn cancel(&self) -> Option<Pending> {
        match self.maker.get() {
            // A thread of the process that this one was forked from may have been at it; here nobody ever is.
            Some(maker) if maker.is_lost() => None,
            // One that this thread is making drops the image.
            Some(maker) if *maker == ThreadNumber::current() => self.pending.try_lock()?.take(),
            _ => {
                self.pending.lock().take();
                None
            }
        }
    }

    /// Nobody makes it later, or is making it.
    pub(crate) fn make_no_more(&self) {
        self.cancel();
    }
}
