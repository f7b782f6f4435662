//! What is done before a signal ends the program: by default nothing would be.
//!
//! Signals are taken on a thread, where everything is allowed that a handler must not do. It ends the program by the
//! same signal, so that whoever started it sees what happened.

use std::fs;
use std::sync::mpsc;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::{self, emulate_default_handler};

/// By these, people and systems tell a program to end.
const SIGNALS: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// Does `farewell` when a signal ends the program, from now on. Where that cannot be arranged (no file descriptor, no
/// thread), the program ends without.
pub(crate) fn before_ending(farewell: impl Fn() + Send + 'static) {
    let (tell, taken) = mpsc::channel();
    let take = move || {
        // Here, so that without a thread nobody takes signals that nobody looks at.
        let wanted: Vec<i32> = wanted().collect();
        let Ok(mut signals) = Signals::new(&wanted) else { return };
        wanted.into_iter().for_each(end_children_by);
        // Who waits for it is there.
        let _ = tell.send(());
        for signal in &mut signals {
            farewell();
            // It does not come back.
            let _ = emulate_default_handler(signal);
        }
    };
    if thread::Builder::new().name("objcache-signals".to_owned()).spawn(take).is_ok() {
        // An error: they are not taken.
        let _ = taken.recv();
    }
}

/// A child of `fork`, which the code that runs may make, has our handlers and not our thread: signals end it as if there
/// were none.
#[allow(unsafe_code)]
fn end_children_by(signal: i32) {
    let process = std::process::id();
    let action = move || {
        if std::process::id() != process {
            let _ = emulate_default_handler(signal);
        }
    };
    // SAFETY: in a handler it calls `getpid`, and what is made to be called in one.
    let _ = unsafe { low_level::register(signal, action) };
}

/// Those that whoever started us does not want to be ignored, as `nohup` does.
fn wanted() -> impl Iterator<Item = i32> {
    let ignored = fs::read_to_string("/proc/self/status").ok().and_then(|status| ignored(&status));
    SIGNALS.into_iter().filter(move |signal| ignored.unwrap_or(0) & (1 << (signal - 1)) == 0)
}

/// The set of ignored signals, as Linux tells it of a process. Elsewhere it is not known, and taken for empty.
fn ignored(status: &str) -> Option<u64> {
    let digits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(digits.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_known_by_their_bits() {
        assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0\n"), Some(0x1001));
        assert_eq!(ignored("Name:\tx\n"), None);
    }
}
