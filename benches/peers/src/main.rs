//! `peers [CASE]… [--minutes] [--plugin NAME=PATH]… [--peers WORD,…]`: measures the cases (all of them) and prints tables. `run` builds what
//! it takes.
//!
//! `--minutes` lets LLVM 22 load the objects that take it minutes; `--plugin` adds another build of our own plugin, to see
//! what a change does; `--peers` leaves out those whose names have none of the words.

#![deny(unsafe_code)]

use std::path::{Path, PathBuf};

use objcache_peers::cases::memory::Memory;
use objcache_peers::cases::{cold, exceptions, load, lookup, memory, threads, tiny};
use objcache_peers::measure::show;
use objcache_peers::peers::{self, Peer, Plugins};
use objcache_peers::table::Table;
use objcache_peers::workloads::Workloads;

const CASES: [&str; 6] = ["load", "sections", "small", "memory", "throw", "cold"];

fn main() {
    let options = Options::parse();
    let program = std::env::current_exe().expect("the path of this program");
    let folder = program.parent().expect("a folder").to_owned();
    let workloads = Workloads::in_folder(&folder.with_file_name("workloads"));
    let peers = peers::all(&Plugins { folder: &folder, others: &options.plugins });
    let is_wanted =
        |name: &str| options.peers.is_empty() || options.peers.iter().any(|word| name.contains(word));
    let wanted = |peer: &&dyn Peer| is_wanted(peer.name());
    let peers = peers.iter().map(|peer| &**peer).filter(wanted).collect();
    let others = options.plugins.iter().filter_map(|(name, path)| {
        let folder = Path::new(path).parent()?;
        folder.join("cold").exists().then(|| (name.clone(), folder.to_owned()))
    });
    let run = Run { peers, workloads, folder, others: others.collect(), minutes: options.minutes };
    match &options.words[..] {
        // Asked by this program itself.
        [case, peer] if case == "memory" && !CASES.contains(&peer.as_str()) => run.report_memory(peer),
        [case, peer] if case == "alive" => run.report_alive(peer),
        [case, peer] if case == "throw" && !CASES.contains(&peer.as_str()) => run.report_throw(peer),
        words => {
            if let Some(unknown) = words.iter().find(|word| !CASES.contains(&word.as_str())) {
                eprintln!("there is no case `{unknown}`: {} are", CASES.join(", "));
                std::process::exit(2);
            }
            let all: Vec<String> = CASES.map(str::to_owned).to_vec();
            for case in if words.is_empty() { &all } else { words } {
                run.case(case);
            }
        }
    }
}

#[derive(Default)]
struct Options {
    words: Vec<String>,
    minutes: bool,
    plugins: Vec<(String, String)>,
    peers: Vec<String>,
}

impl Options {
    fn parse() -> Self {
        let mut options = Options::default();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--minutes" => options.minutes = true,
                "--plugin" => {
                    let plugin = arguments.next().unwrap_or_default();
                    let (name, path) = plugin.split_once('=').expect("--plugin NAME=PATH");
                    options.plugins.push((name.to_owned(), path.to_owned()));
                }
                "--peers" => {
                    let words = arguments.next().unwrap_or_default();
                    options.peers = words.split(',').map(str::to_owned).collect();
                }
                _ => options.words.push(argument),
            }
        }
        options
    }
}

struct Run<'p> {
    peers: Vec<&'p dyn Peer>,
    workloads: Workloads,
    folder: PathBuf,
    /// Other builds that a whole process is measured of, and where they are.
    others: Vec<(String, PathBuf)>,
    minutes: bool,
}

impl Run<'_> {
    fn case(&self, case: &str) {
        match case {
            "load" => self.loads(),
            "sections" => self.sections(),
            "small" => self.small(),
            "memory" => self.memory(),
            "throw" => self.throws(),
            _ => self.cold(),
        }
    }

    fn table(&self, title: &str) -> Table {
        Table::of(title, self.peers.iter().map(|peer| peer.name()))
    }

    /// Compares all peers that `may` take part, and gives results by the numbers of all.
    fn among<T>(
        &self,
        may: impl Fn(&str) -> bool,
        compare: impl FnOnce(&[&dyn Peer]) -> Vec<Option<T>>,
    ) -> Vec<Option<T>> {
        let takes_part: Vec<bool> = self.peers.iter().map(|peer| may(peer.name())).collect();
        let chosen = self.peers.iter().zip(&takes_part).filter(|(_, may)| **may).map(|(peer, _)| *peer);
        let mut results = compare(&chosen.collect::<Vec<_>>()).into_iter();
        takes_part.into_iter().map(|may| if may { results.next().flatten() } else { None }).collect()
    }

    fn loads(&self) {
        let mut table = self.table("Object bytes → callable address (unload)");
        let both = |times: Option<load::Times>| {
            times.map(|times| format!("{} ({})", show(times.load), show(times.unload)))
        };
        let tiny = tiny::compare(&self.peers, &self.workloads.tiny(), 15);
        table.add("a tiny object, of 1,000", tiny.into_iter().map(both));
        for functions in [420, 4_000, 30_000] {
            let code = self.workloads.program(functions);
            // LLVM 19 takes more than 15 GB of memory for the largest.
            let may = |name: &str| functions < 30_000 || !name.contains("LLVM 19");
            let times = self.among(may, |peers| load::compare(peers, &code));
            let title = format!("{functions} functions, {} KB", code.object.len() / 1000);
            table.add(&title, times.into_iter().map(both));
        }
        table.add_line("our goal", &["0.8 µs (1 µs)", "40 µs, and less than dlopen", "350 µs", "3.5 ms"]);
        println!("{table}");
    }

    fn sections(&self) {
        let mut table = self.table("Object bytes → callable address, a section for each function");
        for functions in [420, 1_000, 4_000] {
            let code = self.workloads.sections(functions);
            let takes_minutes = |name: &str| functions > 1_000 && name == "LLVM 22 LLJIT (JITLink)";
            let may = |name: &str| self.minutes || !takes_minutes(name);
            let times = self.among(may, |peers| load::compare(peers, &code));
            table.add(
                &format!("{functions} sections"),
                times.into_iter().map(|times| Some(show(times?.load))),
            );
        }
        table.add_line("our goal", &["100 µs", "200 µs", "700 µs"]);
        println!("{table}");
    }

    fn small(&self) {
        let mut table = self.table("A further symbol, and two threads");
        let found = lookup::compare(&self.peers, &self.workloads.program(4_000), 4_000);
        table.add("lookup among 4,000", found.into_iter().map(|time| Some(show(time?))));
        let ratios = threads::compare(&self.peers, &self.workloads.tiny());
        table.add(
            "loads of two threads ÷ those of one",
            ratios.into_iter().map(|ratio| Some(format!("{:.2}", ratio?))),
        );
        table.add_line("our goal", &["0.06 µs", "1.8"]);
        println!("{table}");
    }

    fn memory(&self) {
        let mut table = self.table("Live tiny objects");
        let memory = self.peers.iter().map(|peer| peer.runs().then(|| memory::of_peer(*peer)).flatten());
        let memory: Vec<_> = memory.collect();
        let cells = |cell: &dyn Fn(&Memory) -> String| {
            memory.iter().map(|memory| memory.as_ref().map(cell)).collect::<Vec<_>>()
        };
        table.add("resident memory each", cells(&|memory| memory::show(memory.resident)));
        table.add("mappings each", cells(&|memory| format!("{:.2}", memory.mappings)));
        let alive = self.peers.iter().map(|peer| {
            let asked = is_ours(*peer) || peer.name().contains("LLJIT (JITLink)");
            let alive = asked.then(|| memory::alive_in_peer(*peer)).flatten()?;
            let (time, resident) = (show(alive.time), memory::show(alive.resident));
            Some(format!("{} ({time}, {resident} each)", alive.count))
        });
        table.add("alive at once, of 1,000,000", alive.collect::<Vec<_>>());
        table.add_line("our goal", &["0.8 KB", "0", "1000000"]);
        println!("{table}");
    }

    fn report_memory(&self, peer: &str) {
        if let Some(measured) = memory::measure(self.peer(peer), &self.workloads.tiny()) {
            println!("{} {}", measured.resident, measured.mappings);
        }
    }

    fn report_alive(&self, peer: &str) {
        let alive = memory::count_alive(self.peer(peer), self.workloads.renamable(), 1_000_000);
        println!("{} {} {}", alive.count, alive.time, alive.resident);
        // Nobody waits for a million objects to go.
        std::process::exit(0);
    }

    fn throws(&self) {
        let mut table =
            self.table("A throw and catch in the host, with 10,000 objects loaded that catch exceptions");
        let registers = |peer: &dyn Peer| is_ours(peer) || peer.name().contains("LLJIT");
        let throws =
            self.peers.iter().map(|peer| registers(*peer).then(|| exceptions::of_peer(*peer)).flatten());
        let throws: Vec<_> = throws.collect();
        table.add("before", throws.iter().map(|throw| Some(show(throw.as_ref()?.before))));
        table.add("with them", throws.iter().map(|throw| Some(show(throw.as_ref()?.after))));
        let slower = throws
            .iter()
            .map(|throw| throw.as_ref().map(|throw| format!("{:.2} ×", throw.after / throw.before)));
        table.add("", slower);
        table.add_line("our goal", &["", "", "1.2 ×"]);
        println!("{table}");
    }

    fn report_throw(&self, peer: &str) {
        if let Some(throw) = exceptions::measure(self.peer(peer), self.workloads.throwing()) {
            println!("{} {}", throw.before, throw.after);
        }
        std::process::exit(0);
    }

    fn cold(&self) {
        let code = self.workloads.renamable();
        let shared = PathBuf::from(code.shared.to_str().expect("a path in UTF-8"));
        let ways = cold::ways(&self.folder, &self.others);
        let times = cold::compare(&self.folder, &ways, &shared.with_extension("o"), &shared);
        let title = "A whole process: start, load, first call (CPU time)";
        let mut table = Table::of(title, ways.iter().map(|way| way.name.as_str()));
        table.add("process", times.iter().map(|time| time.map(show)));
        let more = ways.iter().zip(&times).map(|(way, time)| {
            let more = (*time)? - times[way.nothing]?;
            Some(format!("{:+.2} ms", more / 1e6))
        });
        table.add("more than nothing", more);
        table.add_line("our goal", &["", "+0.2 ms"]);
        println!("{table}");
    }

    fn peer(&self, name: &str) -> &dyn Peer {
        *self.peers.iter().find(|peer| peer.name() == name).expect("a peer of that name")
    }
}

/// objcache, or another build of it.
fn is_ours(peer: &dyn Peer) -> bool {
    peer.runs() && !peer.name().contains("LLVM") && !peer.name().contains("dlopen")
}
