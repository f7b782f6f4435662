//! The executor's side: maps what it is sent, calls what it is told to.

#![allow(unsafe_code)] // Maps memory at given addresses, and calls loaded code.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::mm::{self, MapFlags, ProtFlags};

use super::protocol::{ARGUMENTS, Reply, Request, receive_request, send_reply};
use crate::memory::{HostCache, InstructionCache};
use crate::process::ProcessSymbols;
use crate::resolver::SymbolResolver;

/// Does what the other end of the socket asks for, until that is closed. This is all that an executor does; a program of
/// one's own may do it to offer its symbols and its state to the code.
///
/// # Safety
/// Whoever holds the other end runs any code in this process, and may write to any of its memory. The calls happen on
/// this thread.
///
/// # Errors
/// What the socket says, and messages that are none.
pub unsafe fn serve_executor(mut stream: UnixStream) -> io::Result<()> {
    let mut executing = Executing::default();
    while let Some((request, file)) = receive_request(&mut stream)? {
        let reply = executing.answer(request, file);
        send_reply(&mut stream, &reply)?;
    }
    Ok(())
}

/// Address space that was handed out: lengths by first address.
#[derive(Default)]
struct Executing {
    reserved: BTreeMap<u64, u64>,
}

impl Executing {
    fn answer(&mut self, request: Request, file: Option<OwnedFd>) -> Reply {
        match request {
            Request::Reserve { len, low } => self.reserve(len, low),
            Request::Map { base, skip, segments } => {
                self.map(base, skip, segments, &file.ok_or("no file came along")?)
            }
            Request::Free { base } => self.free(base),
            Request::Resolve { name } => Ok(ProcessSymbols.resolve(&name).unwrap_or(0)),
            Request::Call { address, arguments } => Ok(call(address, arguments)),
        }
    }

    fn reserve(&mut self, len: u64, low: bool) -> Reply {
        let low = if low { low_addresses()? } else { MapFlags::empty() };
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | low;
        // SAFETY: the kernel chooses the address, so nothing that exists is touched.
        let base =
            unsafe { mm::mmap_anonymous(std::ptr::null_mut(), len as usize, ProtFlags::empty(), flags) };
        let base = base.map_err(|error| format!("reserving {len} bytes: {error}"))? as u64;
        self.reserved.insert(base, len);
        Ok(base)
    }

    fn map(&self, base: u64, skip: u64, segments: [u64; 3], file: &OwnedFd) -> Reply {
        let reserved = *self.reserved.get(&base).ok_or("no address space begins there")?;
        let total = segments.iter().try_fold(0u64, |sum, len| sum.checked_add(*len));
        let page = rustix::param::page_size() as u64;
        let is_inside = total.and_then(|total| total.checked_add(skip)).is_some_and(|end| end <= reserved);
        if !is_inside || segments.iter().chain([&skip]).any(|len| len % page != 0) {
            return Err(format!("{segments:x?} bytes at {skip:#x} are not what was reserved"));
        }
        let start = base + skip;
        let length = rustix::fs::fstat(file).map_err(|error| format!("the file: {error}"))?.st_size as u64;
        if total > Some(length) {
            return Err(format!("the file has {length} bytes only"));
        }
        let protections =
            [ProtFlags::READ | ProtFlags::EXEC, ProtFlags::READ, ProtFlags::READ | ProtFlags::WRITE];
        let mut at = 0;
        for (len, protection) in segments.into_iter().zip(protections) {
            if len > 0 {
                let flags = MapFlags::PRIVATE | MapFlags::FIXED;
                let place = (start + at) as *mut _;
                // SAFETY: the range is inside of address space that was reserved for this and is nobody else's. The
                // file is as long as that, and sealed by the other side.
                let mapped = unsafe { mm::mmap(place, len as usize, protection, flags, file.as_fd(), at) };
                mapped.map_err(|error| format!("mapping {len} bytes: {error}"))?;
            }
            at += len;
        }
        // SAFETY: the code was just mapped and is readable.
        let code = unsafe { std::slice::from_raw_parts(start as *const u8, segments[0] as usize) };
        HostCache.synchronize(code).map_err(|error| error.to_string())?;
        Ok(0)
    }

    fn free(&mut self, base: u64) -> Reply {
        let len = self.reserved.remove(&base).ok_or("no address space begins there")?;
        // SAFETY: the range was reserved for the other side, which gives it back.
        unsafe { mm::munmap(base as *mut _, len as usize) }.map_err(|error| format!("unmapping: {error}"))?;
        Ok(0)
    }
}

fn low_addresses() -> Result<MapFlags, &'static str> {
    match cfg!(target_arch = "x86_64") {
        // `mmap(2)`, MAP_32BIT.
        true => Ok(MapFlags::from_bits_retain(0x40)),
        false => Err("only x86-64 can be asked for the lowest 2 GiB"),
    }
}

/// Registers that a function does not take its arguments from are not looked at.
fn call(address: u64, arguments: [u64; ARGUMENTS]) -> u64 {
    type Function = extern "C" fn(u64, u64, u64, u64, u64, u64) -> u64;
    // SAFETY: the other side vouches that a function is there, which takes that many integers or less.
    let function = unsafe { std::mem::transmute::<usize, Function>(address as usize) };
    let [a, b, c, d, e, f] = arguments;
    function(a, b, c, d, e, f)
}
