//! A progress bar on stderr, for work that takes long and only when somebody watches.

use std::cell::Cell;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use objcache::cache::Progress;

use super::draws;

/// Work that is done sooner needs no bar: it would only flicker.
const LONG: Duration = Duration::from_millis(300);

/// A bar that follows [`Progress`] reports. It disappears when it is dropped.
pub(crate) struct Bar {
    bar: ProgressBar,
    started: Instant,
    wanted: Cell<bool>,
}

impl Bar {
    /// A bar under this title; one that draws nothing when `quiet`, or when stderr is no terminal.
    pub(crate) fn new(title: &str, quiet: bool) -> Self {
        let bar = ProgressBar::hidden();
        if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len}  {msg}  {eta} left") {
            bar.set_style(style);
        }
        bar.set_prefix(title.to_owned());
        Self { bar, started: Instant::now(), wanted: Cell::new(!quiet && stderr().is_terminal() && draws()) }
    }

    /// Draws how far it is.
    pub(crate) fn show(&self, progress: Progress) {
        if self.started.elapsed() > LONG && self.wanted.take() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        }
        self.bar.set_length(progress.total);
        self.bar.set_message(crate::units::size(progress.bytes));
        self.bar.set_position(progress.done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
