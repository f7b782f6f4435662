//! What a process did to the files below a directory, recorded with strace, as a list of operations.

#![allow(unreachable_pub, dead_code, reason = "each test binary uses a part")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::child;

/// A file or directory, whatever it is called. 0 is the directory that was recorded.
pub type Node = usize;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Of a file or directory that is made, or of one that is renamed.
    Link {
        directory: Node,
        name: OsString,
        node: Node,
    },
    /// `renamed`: the link that goes with it was made just before.
    Unlink {
        directory: Node,
        name: OsString,
        renamed: bool,
    },
    Write {
        node: Node,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        node: Node,
        length: usize,
    },
    Sync {
        node: Node,
    },
    /// The process said something.
    Say(Vec<u8>),
}

/// What was there before, and what was done.
#[derive(Debug, Default)]
pub struct Recording {
    pub before: Tree,
    /// Which nodes are directories.
    pub directories: HashSet<Node>,
    pub operations: Vec<Operation>,
}

/// Files and directories by node.
#[derive(Debug, Default, Clone)]
pub struct Tree {
    pub directories: HashMap<Node, BTreeMap<OsString, Node>>,
    pub files: HashMap<Node, Vec<u8>>,
}

impl Tree {
    /// Reads what is below `path`.
    fn read(path: &Path) -> Self {
        let mut tree = Self::default();
        tree.read_directory(path, 0);
        tree
    }

    fn read_directory(&mut self, path: &Path, node: Node) {
        self.directories.insert(node, BTreeMap::new());
        for entry in fs::read_dir(path).expect("there").map(|entry| entry.expect("listed")) {
            let child = self.directories.len() + self.files.len();
            match entry.path().is_dir() {
                true => self.read_directory(&entry.path(), child),
                false => drop(self.files.insert(child, fs::read(entry.path()).expect("read"))),
            }
            self.directories.entry(node).or_default().insert(entry.file_name(), child);
        }
    }

    /// Writes it below `path`.
    pub fn write(&self, path: &Path) {
        self.write_directory(path, 0);
    }

    fn write_directory(&self, path: &Path, node: Node) {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        fs::DirBuilder::new().mode(0o700).create(path).expect("made");
        for (name, node) in &self.directories[&node] {
            let path = path.join(name);
            match self.files.get(node) {
                Some(bytes) => {
                    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
                    std::io::Write::write_all(&mut file.expect("made"), bytes).expect("written");
                }
                None => self.write_directory(&path, *node),
            }
        }
    }
}

const CALLS: &str = "trace=open,openat,creat,close,dup,dup2,dup3,fcntl,write,writev,pwrite64,pwritev,pwritev2,\
    ftruncate,truncate,fallocate,fsync,fdatasync,syncfs,sync_file_range,rename,renameat,renameat2,link,linkat,symlink,\
    symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,copy_file_range,sendfile,mmap";

/// Runs a role on the store `root`, and records what it does to what is below the directory of that.
pub fn record(role: &str, root: &Path) -> Recording {
    let below = root.parent().expect("has one");
    let logs = tempfile::tempdir().expect("a temporary directory");
    let log = logs.path().join("trace");
    let before = Tree::read(below);
    let log_name = log.to_string_lossy();
    let strace = ["strace", "-f", "-y", "-xx", "-s", "100000000", "-e", CALLS, "-o", &log_name];
    let output = child::command(&strace, &[&role, &root]).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut recorder = Recorder {
        below: below.to_owned(),
        next: before.directories.len() + before.files.len(),
        now: before.clone(),
        ..Recorder::default()
    };
    let log = fs::read_to_string(log).expect("written");
    let mut unfinished = HashMap::new();
    for line in log.lines() {
        let (thread, call) = line.split_once(' ').expect("a thread and a call");
        let call = call.trim_start();
        if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, begun);
        } else if let Some(rest) = call.strip_prefix("<... ") {
            // What another thread did meanwhile came before.
            let begun = unfinished.remove(thread).expect("it began");
            let (_, rest) = rest.split_once('>').expect("`resumed>`");
            recorder.call(&format!("{begun}{rest}"));
        } else {
            recorder.call(call);
        }
    }
    let directories = recorder.now.directories.keys().copied().collect();
    Recording { before, directories, operations: recorder.operations }
}

#[derive(Default)]
struct Recorder {
    below: PathBuf,
    next: Node,
    // As the process sees it.
    now: Tree,
    open: HashMap<i32, Open>,
    operations: Vec<Operation>,
}

#[derive(Clone)]
struct Open {
    node: Node,
    position: usize,
}

/// A call, taken apart.
struct Call<'a> {
    name: &'a str,
    /// Arguments as they stand, strings and annotations of descriptors left out.
    words: Vec<String>,
    /// The strings.
    strings: Vec<Vec<u8>>,
    /// The paths of descriptors.
    paths: Vec<PathBuf>,
    result: i64,
}

impl<'a> Call<'a> {
    /// `None`: not a call, or one that failed.
    fn parse(line: &'a str) -> Option<Self> {
        let (name, rest) = line.split_once('(')?;
        let (arguments, result) = rest.rsplit_once(" = ")?;
        let result = result.split([' ', '<']).next()?;
        let result = match result.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16).ok()?,
            None => result.parse().ok()?,
        };
        let (mut words, mut strings, mut paths) = (String::new(), Vec::new(), Vec::new());
        let mut rest = arguments.trim_end().strip_suffix(')')?;
        while let Some(at) = rest.find(['"', '<']) {
            words.push_str(&rest[..at]);
            let (closing, is_string) = if rest[at..].starts_with('"') { ('"', true) } else { ('>', false) };
            let (inner, after) = rest[at + 1..].split_once(closing)?;
            match is_string {
                true => strings.push(unescape(inner)),
                false => paths.push(OsStr::from_bytes(&unescape(inner)).into()),
            }
            // What stands after the path of a file that lost its name.
            rest = after.strip_prefix("(deleted)").unwrap_or(after);
        }
        words.push_str(rest);
        let words = words.split(',').map(|word| word.trim().to_owned()).collect();
        (result >= 0).then_some(Self { name, words, strings, paths, result })
    }

    fn descriptor(&self) -> i32 {
        self.words[0].parse().unwrap_or_else(|_| panic!("no descriptor in {} of {:?}", self.name, self.words))
    }

    fn last_number(&self) -> usize {
        self.words.last().expect("has some").parse().expect("a number")
    }

    /// The `nth` name of a call, with the directory it is relative to.
    fn path(&self, nth: usize) -> PathBuf {
        let name = Path::new(OsStr::from_bytes(&self.strings[nth]));
        // Calls that end in `at` have as many directories as names.
        match self.paths.get(nth) {
            Some(directory) if name == Path::new("..") => directory.parent().unwrap_or(directory).to_owned(),
            Some(directory) => directory.join(name),
            None => name.to_owned(),
        }
    }
}

/// `\x41\x42`, which is how all bytes are written with `-xx`.
fn unescape(text: &str) -> Vec<u8> {
    let digits = text.split("\\x").skip(1);
    digits.map(|digits| u8::from_str_radix(digits, 16).expect("two digits")).collect()
}

impl Recorder {
    fn call(&mut self, line: &str) {
        let Some(call) = Call::parse(line) else { return };
        match call.name {
            "open" | "openat" | "creat" => self.open(&call),
            "close" => drop(self.open.remove(&call.descriptor())),
            "dup" | "dup2" | "dup3" => self.duplicate(&call),
            "fcntl" if call.words[1].starts_with("F_DUPFD") => self.duplicate(&call),
            "write" | "writev" => self.write(&call),
            "pwrite64" => {
                let at = call.last_number();
                self.write_at(&call, at);
            }
            "ftruncate" => {
                if let Some(open) = self.open.get(&call.descriptor()) {
                    let (node, length) = (open.node, call.last_number());
                    self.operations.push(Operation::Truncate { node, length });
                }
            }
            "fsync" | "fdatasync" => {
                if let Some(open) = self.open.get(&call.descriptor()) {
                    self.operations.push(Operation::Sync { node: open.node });
                }
            }
            "syncfs" => {
                let Tree { files, directories, .. } = &self.now;
                let nodes = files.keys().chain(directories.keys());
                self.operations.extend(nodes.map(|node| Operation::Sync { node: *node }));
            }
            // No promise about anything.
            "sync_file_range" | "fcntl" => {}
            "mkdir" | "mkdirat" => {
                if let Some((directory, name)) = self.place(&call.path(0)) {
                    let node = self.make();
                    self.now.directories.insert(node, BTreeMap::new());
                    self.link(directory, name, node);
                }
            }
            "rename" | "renameat" | "renameat2" => self.rename(&call),
            "unlink" | "unlinkat" | "rmdir" => {
                if let Some((directory, name)) = self.place(&call.path(0)) {
                    self.unlink(directory, name, false);
                }
            }
            "mmap" => assert!(
                !(call.words.iter().any(|word| word.contains("MAP_SHARED"))
                    && call.words.iter().any(|word| word.contains("PROT_WRITE"))
                    && call.paths.iter().any(|path| path.starts_with(&self.below))),
                "what is written through a mapping is not seen: {line}"
            ),
            other => {
                let ours = |path: &Path| path.starts_with(&self.below);
                assert!(!call.paths.iter().any(|path| ours(path)), "{other} is not recorded: {line}");
            }
        }
    }

    fn make(&mut self) -> Node {
        self.next += 1;
        self.next - 1
    }

    fn open(&mut self, call: &Call<'_>) {
        let flags = &call.words[call.words.iter().position(|word| word.contains("O_")).unwrap_or(0)];
        let descriptor = i32::try_from(call.result).expect("a descriptor");
        self.open.remove(&descriptor);
        let path = call.path(0);
        let Some(node) = self.find(&path).or_else(|| {
            let (directory, name) = self.place(&path).filter(|_| flags.contains("O_CREAT"))?;
            let node = self.make();
            self.now.files.insert(node, Vec::new());
            self.link(directory, name, node);
            Some(node)
        }) else {
            return;
        };
        assert!(!flags.contains("O_APPEND"), "appending is not recorded");
        if flags.contains("O_TRUNC") {
            self.operations.push(Operation::Truncate { node, length: 0 });
        }
        self.open.insert(descriptor, Open { node, position: 0 });
    }

    fn duplicate(&mut self, call: &Call<'_>) {
        if let Some(open) = self.open.get(&call.descriptor()).cloned() {
            self.open.insert(i32::try_from(call.result).expect("a descriptor"), open);
        }
    }

    fn write(&mut self, call: &Call<'_>) {
        let Some(open) = self.open.get(&call.descriptor()) else {
            if call.descriptor() == 1 {
                self.operations.push(Operation::Say(call.strings.concat()));
            }
            return;
        };
        let at = open.position;
        self.write_at(call, at);
        if let Some(open) = self.open.get_mut(&call.descriptor()) {
            open.position += call.result as usize;
        }
    }

    fn write_at(&mut self, call: &Call<'_>, offset: usize) {
        let Some(open) = self.open.get(&call.descriptor()) else { return };
        let mut bytes = call.strings.concat();
        bytes.truncate(call.result as usize);
        assert_eq!(bytes.len(), call.result as usize, "all of it was recorded");
        self.operations.push(Operation::Write { node: open.node, offset, bytes });
    }

    fn rename(&mut self, call: &Call<'_>) {
        let (from, to) = (call.path(0), call.path(1));
        let (Some(node), Some((from_directory, from_name)), Some((directory, name))) =
            (self.find(&from), self.place(&from), self.place(&to))
        else {
            panic!("renamed from or to elsewhere: {from:?} {to:?}");
        };
        self.link(directory, name, node);
        self.unlink(from_directory, from_name, true);
    }

    fn link(&mut self, directory: Node, name: OsString, node: Node) {
        self.now.directories.entry(directory).or_default().insert(name.clone(), node);
        self.operations.push(Operation::Link { directory, name, node });
    }

    fn unlink(&mut self, directory: Node, name: OsString, renamed: bool) {
        self.now.directories.entry(directory).or_default().remove(&name);
        self.operations.push(Operation::Unlink { directory, name, renamed });
    }

    /// The node of a path below the directory that is recorded.
    fn find(&self, path: &Path) -> Option<Node> {
        let mut node = 0;
        for name in path.strip_prefix(&self.below).ok()?.components() {
            // A directory opened as itself: `.`
            if name.as_os_str() != "." {
                node = *self.now.directories.get(&node)?.get(name.as_os_str())?;
            }
        }
        Some(node)
    }

    /// The directory of a path, and its name in that.
    fn place(&self, path: &Path) -> Option<(Node, OsString)> {
        Some((self.find(path.parent()?)?, path.file_name()?.to_owned()))
    }
}
