//! `top`: what the cache is used for, again and again.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry::Vacant;
use std::io::{self, IsTerminal, Write, stdout};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::{cursor, execute, queue, terminal};
use objcache::cache::{CacheAdmin, CacheStats, EntryInfo, Store};
use objcache::signature::Signature;
use serde::Serialize;

use super::entry::{EntryFields, entries};
use crate::context::{Context, short};
use crate::failure::{Failure, Status};
use crate::output::table::{Column, table};
use crate::output::{Report, Text, draws};
use crate::units;

/// Watch what the cache is used for
///
/// Processes write down what they did when they end, and every hour: what is seen is as old as that. Keys: h, v, z, u sort by
/// hits, saved compile time, size, last use; q ends. Where there is no terminal, and with --once, it is said once.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to sort by
    #[arg(long, value_name = "KEY", default_value = "saved")]
    sort: Key,

    /// How many entries to show [default: what fits; without a terminal 20]
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<usize>,

    /// Look again after so long, such as 2s
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = units::parse_span)]
    interval: Duration,

    /// Say it once and end
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Key {
    /// Number of uses.
    Hits,
    /// Compile time that they saved.
    Saved,
    /// Size of the object.
    Size,
    /// Last use.
    Used,
}

/// Entries when there is no terminal that tells how many fit.
const UNMEASURED: usize = 20;

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let store = context.store()?;
    if options.once || context.output.json || !stdout().is_terminal() || !draws() {
        let look = Look::at(&store, options.sort, None)?;
        context.output.report(&look.report(options.limit.unwrap_or(UNMEASURED)))?;
        return Ok(Status::Fine);
    }
    watch(&store, options, context)?;
    Ok(Status::Fine)
}

/// The cache as it was at one moment.
struct Look {
    at: Instant,
    stats: CacheStats,
    entries: Vec<EntryInfo>,
    sources: Sources,
    /// Hits since the last look, in a second.
    rate: Option<f64>,
    sort: Key,
}

/// The sources of entries. They do not change, so that each entry is read once.
type Sources = HashMap<Signature, Option<String>>;

impl Look {
    fn at(store: &Store, sort: Key, last: Option<Self>) -> Result<Self, Failure> {
        let at = Instant::now();
        let (stats, mut entries) = (store.stats()?, store.list()?);
        match sort {
            Key::Hits => entries.sort_by_key(|entry| Reverse(entry.hits)),
            Key::Saved => entries.sort_by_key(|entry| Reverse(saved_us(entry))),
            Key::Size => entries.sort_by_key(|entry| Reverse(entry.object_bytes)),
            Key::Used => entries.sort_by_key(|entry| Reverse(entry.last_used_unix_us)),
        }
        let rate = last.as_ref().map(|last| {
            let seconds = at.duration_since(last.at).as_secs_f64().max(1e-3);
            stats.hits.saturating_sub(last.stats.hits) as f64 / seconds
        });
        let mut sources = last.map(|last| last.sources).unwrap_or_default();
        const MOST_SHOWN: usize = 200;
        for entry in entries.iter().take(MOST_SHOWN) {
            if let Vacant(place) = sources.entry(entry.signature) {
                let source = store.record(&entry.signature)?.and_then(|record| record.provenance.source_path);
                place.insert(source);
            }
        }
        Ok(Self { at, stats, entries, sources, rate, sort })
    }

    fn report(&self, limit: usize) -> TopReport<'_> {
        let shown = self.entries.iter().take(limit);
        let source = |entry: &EntryInfo| self.sources.get(&entry.signature).cloned().flatten();
        TopReport {
            sort: self.sort.to_possible_value().map(|key| key.get_name().to_owned()).unwrap_or_default(),
            hits: self.stats.hits,
            misses: self.stats.misses,
            hits_per_second: self.rate,
            saved_compile_time_us: self.stats.saved_compile_time_us,
            entries: shown
                .map(|entry| TopEntry { info: entry, saved_us: saved_us(entry), source: source(entry) })
                .collect(),
            stats: &self.stats,
        }
    }
}

fn saved_us(entry: &EntryInfo) -> u64 {
    entry.hits.saturating_mul(entry.compile_time_us)
}

struct TopEntry<'a> {
    info: &'a EntryInfo,
    saved_us: u64,
    source: Option<String>,
}

impl Serialize for TopEntry<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            #[serde(flatten)]
            entry: EntryFields,
            source_path: Option<&'a str>,
            saved_us: u64,
        }
        let source_path = self.source.as_deref();
        Fields { entry: self.info.into(), source_path, saved_us: self.saved_us }.serialize(to)
    }
}

#[derive(Serialize)]
struct TopReport<'a> {
    sort: String,
    hits: u64,
    misses: u64,
    hits_per_second: Option<f64>,
    saved_compile_time_us: u64,
    entries: Vec<TopEntry<'a>>,
    #[serde(skip)]
    stats: &'a CacheStats,
}

impl Report for TopReport<'_> {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        let lookups = self.hits.saturating_add(self.misses);
        let share = if lookups == 0 { 0.0 } else { 100.0 * self.hits as f64 / lookups as f64 };
        let rate = self.hits_per_second.map(|rate| format!(", {rate:.1} hits/s")).unwrap_or_default();
        text.line(format!(
            "{} in {}, {} hits of {lookups} look-ups ({share:.1} %){rate}, {} of compilation saved",
            entries(self.stats.entries),
            units::size(self.stats.disk_bytes),
            self.hits,
            units::duration(Duration::from_micros(self.saved_compile_time_us)),
        ))?;
        let columns = [
            Column::Left("SIGNATURE"),
            Column::Right("HITS"),
            Column::Right("SAVED"),
            Column::Right("SIZE"),
            Column::Right("USED"),
            Column::Left("SOURCE"),
        ];
        let rows = self.entries.iter().map(|TopEntry { info, saved_us, source }| {
            vec![
                short(&info.signature),
                info.hits.to_string(),
                units::duration(Duration::from_micros(*saved_us)),
                units::size(info.object_bytes),
                units::ago(info.last_used_unix_us),
                source.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        });
        text.laid_out(&table(&columns, rows, text.styled))
    }
}

/// Columns and lines of the terminal; some do not tell.
fn size() -> (u16, u16) {
    terminal::size().ok().filter(|(width, height)| *width > 0 && *height > 0).unwrap_or((80, 24))
}

/// How long a terminal may take to be given back when a signal ends the program.
const LONGEST_FAREWELL: Duration = Duration::from_millis(500);

/// The terminal, with a screen of its own until this is dropped.
struct Screen;

impl Screen {
    fn take() -> io::Result<Self> {
        crate::signals::before_ending(leave_at_once);
        terminal::enable_raw_mode()?;
        let screen = Self;
        execute!(stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    /// Draws over what was there, line by line, so that nothing flickers.
    fn draw(&self, report: &TopReport<'_>, styled: bool) -> io::Result<()> {
        let (width, height) = size();
        let mut lines = Vec::new();
        report.write_text(&mut Text { out: &mut lines, styled, width: Some(width.into()) })?;
        let mut out = stdout().lock();
        queue!(out, cursor::MoveTo(0, 0), terminal::DisableLineWrap)?;
        for line in String::from_utf8_lossy(&lines).lines().take(height.into()) {
            write!(out, "{line}")?;
            queue!(out, terminal::Clear(terminal::ClearType::UntilNewLine), cursor::MoveToNextLine(1))?;
        }
        queue!(out, terminal::Clear(terminal::ClearType::FromCursorDown))?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is left to be told that the terminal cannot be given back.
        let _ = leave(&mut stdout());
        let _ = terminal::disable_raw_mode();
    }
}

fn leave(out: &mut impl Write) -> io::Result<()> {
    execute!(out, terminal::EnableLineWrap, cursor::Show, terminal::LeaveAlternateScreen)
}

/// Gives the terminal back before a signal ends the program, while it may be drawn on.
fn leave_at_once() {
    let _ = terminal::disable_raw_mode();
    let (tell, left) = mpsc::channel();
    // A terminal that takes nothing any more must not keep the program from ending.
    let drawn = thread::Builder::new().spawn(move || {
        let mut out = stdout().lock();
        let _ = leave(&mut out);
        let _ = tell.send(());
        // Nobody draws after this.
        loop {
            thread::park();
        }
    });
    if drawn.is_ok() {
        let _ = left.recv_timeout(LONGEST_FAREWELL);
    }
}

fn watch(store: &Store, options: &Options, context: &Context) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::io("terminal".as_ref(), &error);
    let screen = Screen::take().map_err(failed)?;
    let styled = context.output.styled(true);
    let (mut sort, mut last) = (options.sort, None);
    loop {
        let look = Look::at(store, sort, last.take())?;
        // The first two lines are not entries.
        let fits = usize::from(size().1).saturating_sub(2);
        screen.draw(&look.report(options.limit.unwrap_or(fits).min(fits)), styled).map_err(failed)?;
        match next(options.interval).map_err(failed)? {
            Next::End => return Ok(()),
            Next::Sort(key) => sort = key,
            Next::Look => {}
        }
        last = Some(look);
    }
}

enum Next {
    Look,
    Sort(Key),
    End,
}

/// Waits for a key that means something, at most so long.
fn next(interval: Duration) -> io::Result<Next> {
    let until = Instant::now() + interval;
    while event::poll(until.saturating_duration_since(Instant::now()))? {
        let key = match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => key,
            Event::Resize(..) => return Ok(Next::Look),
            _ => continue,
        };
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Ok(Next::End),
            KeyCode::Char('c') if control => return Ok(Next::End),
            KeyCode::Char('h') => return Ok(Next::Sort(Key::Hits)),
            KeyCode::Char('v') => return Ok(Next::Sort(Key::Saved)),
            KeyCode::Char('z') => return Ok(Next::Sort(Key::Size)),
            KeyCode::Char('u') => return Ok(Next::Sort(Key::Used)),
            _ => {}
        }
    }
    Ok(Next::Look)
}
