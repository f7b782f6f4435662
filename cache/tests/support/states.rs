//! Broken surroundings of every kind, for the matrix: each state of directory, disk and process, with what it is
//! called when it costs something. The tests of the program use this file as well.

#![allow(unreachable_pub, dead_code, reason = "each test binary uses a part")]

use std::any::Any;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Some user who is not us.
const NOBODY: u32 = 65_534;

/// A store that was used, with one entry, which is about to be asked for.
pub struct Scene<'a> {
    pub root: &'a Path,
    /// In hexadecimal.
    pub signature: &'a str,
}

impl Scene<'_> {
    fn entry(&self) -> PathBuf {
        self.root.join(&self.signature[..2]).join(&self.signature[2..])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// What must live as long as the state: a mount, a lock.
pub type Guard = Box<dyn Any>;

pub struct State {
    pub name: &'static str,
    /// The reasons that may be told of; at least one of them is. None: it is coped with, and nothing is said.
    pub reasons: &'static [&'static str],
    /// Whether it is an error in strict mode.
    pub strict: bool,
    /// The reasons that are told of in strict mode alone.
    pub only_strict: &'static [&'static str],
    /// An error says why the state cannot be made here.
    pub prepare: fn(&Scene<'_>) -> io::Result<Guard>,
    /// What runs the program; `ROOT` stands for the directory.
    pub under: &'static [&'static str],
    /// Variables to set, or to remove.
    pub environment: &'static [(&'static str, Option<&'static str>)],
}

impl State {
    const fn new(
        name: &'static str,
        reasons: &'static [&'static str],
        prepare: fn(&Scene<'_>) -> io::Result<Guard>,
    ) -> Self {
        Self {
            name,
            reasons,
            strict: !reasons.is_empty(),
            only_strict: &[],
            prepare,
            under: &[],
            environment: &[],
        }
    }

    /// It costs so little that nothing is said, and is an error in strict mode for one of these reasons.
    const fn only_strict(mut self, reasons: &'static [&'static str]) -> Self {
        (self.strict, self.only_strict) = (true, reasons);
        self
    }

    const fn under(mut self, words: &'static [&'static str]) -> Self {
        self.under = words;
        self
    }

    const fn with(mut self, environment: &'static [(&'static str, Option<&'static str>)]) -> Self {
        self.environment = environment;
        self
    }

    /// The words before those of the program.
    pub fn runner(&self, scene: &Scene<'_>) -> Vec<String> {
        let word = |word: &&str| match *word {
            "ROOT" => scene.root.display().to_string(),
            word => word.to_owned(),
        };
        self.under.iter().map(word).collect()
    }

    /// Whether an error of strict mode may have this reason.
    pub fn explains(&self, reason: &str) -> bool {
        self.reasons.contains(&reason) || self.only_strict.contains(&reason)
    }

    /// Sets and removes what belongs to the state. After everything else.
    pub fn adjust(&self, command: &mut Command, scene: &Scene<'_>) {
        let root = scene.root.display().to_string();
        for (name, value) in self.environment {
            match value {
                Some(value) => command.env(name, value.replace("ROOT", &root)),
                None => command.env_remove(name),
            };
        }
    }
}

fn nothing(_: &Scene<'_>) -> io::Result<Guard> {
    Ok(Box::new(()))
}

fn done(result: io::Result<()>) -> io::Result<Guard> {
    result.map(|()| Box::new(()) as Guard)
}

fn mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Makes a store of the size of a few pages, or one that may not be written, by mounting.
fn mounted(scene: &Scene<'_>, options: &str, then: Option<&str>) -> io::Result<Guard> {
    let run = |words: &[&str]| {
        let output = Command::new(words[0]).args(&words[1..]).arg(scene.root).output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
        }
    };
    let aside = scene.root.with_extension("aside");
    run(&["mount", "-t", "tmpfs", "-o", options, "tmpfs"])?;
    let guard = Mount(scene.root.to_owned());
    fs::create_dir_all(aside)?;
    if let Some(options) = then {
        run(&["mount", "-o", options])?;
    }
    Ok(Box::new(guard))
}

struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Locked as another process would, which never gives it back.
fn locked(path: &Path) -> io::Result<Guard> {
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    file.try_lock().map_err(io::Error::other)?;
    Ok(Box::new(file))
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<Guard> {
    let mut bytes = fs::read(path)?;
    change(&mut bytes);
    done(fs::write(path, bytes))
}

const SETTINGS: &[(&str, Option<&str>)] = &[("XDG_CONFIG_HOME", Some("ROOT.settings"))];

fn settings_file(scene: &Scene<'_>) -> PathBuf {
    scene.root.with_extension("settings").join("objcache/config.toml")
}

fn settings(scene: &Scene<'_>, text: &str) -> io::Result<Guard> {
    let file = settings_file(scene);
    fs::create_dir_all(file.parent().expect("a folder of its own"))?;
    done(fs::write(file, text))
}

/// The head of a journal of a store that was tidied in a year from now.
fn tidied_in_the_future(scene: &Scene<'_>) -> io::Result<Guard> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(io::Error::other)?;
    let then = u64::try_from(now.as_micros()).map_err(io::Error::other)? + 365 * 86_400_000_000;
    change(&scene.path("journal"), |bytes| {
        bytes[64..72].copy_from_slice(&then.to_le_bytes());
        let check = blake3::hash(&bytes[..104]);
        bytes[104..112].copy_from_slice(&check.as_bytes()[..8]);
    })
}

fn replaced(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<Guard> {
    match path.is_dir() {
        true => fs::remove_dir_all(path)?,
        false => fs::remove_file(path)?,
    }
    done(make(path))
}

const fn failing(
    name: &'static str,
    reasons: &'static [&'static str],
    words: &'static [&'static str],
) -> State {
    State::new(name, reasons, nothing).under(words)
}

macro_rules! strace {
    ($calls:literal, $error:literal) => {
        &[
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-P",
            "ROOT",
            "-e",
            concat!("trace=", $calls),
            "-e",
            concat!("inject=", $calls, ":error=", $error),
        ]
    };
}

/// All of them.
pub const STATES: &[State] = &[
    State::new("a used store", &[], nothing),
    State::new("no directory", &[], |it| done(fs::remove_dir_all(it.root))),
    State::new("an empty directory", &[], |it| {
        fs::remove_dir_all(it.root)?;
        done(fs::create_dir(it.root))
    }),
    State::new("a link to a directory", &[], |it| {
        let elsewhere = it.root.with_extension("elsewhere");
        fs::rename(it.root, &elsewhere)?;
        done(symlink(elsewhere, it.root))
    }),
    State::new("a file in place of the directory", &["not_a_directory"], |it| {
        replaced(it.root, |path| fs::write(path, "in the way"))
    }),
    State::new("a dangling link", &["not_a_directory"], |it| {
        replaced(it.root, |path| symlink("nowhere", path))
    }),
    State::new("a place where nothing can be made", &["no_directory"], nothing)
        .with(&[("OBJCACHE_DIR", Some("/proc/objcache"))]),
    State::new("below a file", &["not_a_directory"], nothing)
        .with(&[("OBJCACHE_DIR", Some("/proc/self/status/store"))]),
    State::new("others may write into it", &["insecure_mode"], |it| done(mode(it.root, 0o777))),
    State::new("the group may write into it", &["insecure_mode"], |it| done(mode(it.root, 0o770))),
    State::new("others may read it", &[], |it| done(mode(it.root, 0o755))),
    State::new("it belongs to another user", &["foreign_owner"], |it| {
        done(chown(it.root, Some(NOBODY), None))
    }),
    State::new("a read-only file system", &["read_only"], |it| {
        mounted(it, "size=1m,mode=700", Some("remount,ro"))
    }),
    State::new("a full disk", &["disk_full"], |it| mounted(it, "size=8k,mode=700", None)),
    State::new("a limit on the size of files", &["disk_full"], |it| done(fs::remove_file(it.entry())))
        .under(&["sh", "-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh"]),
    failing("EIO", &["io", "circuit_breaker"], strace!("openat", "EIO")),
    failing("ESTALE", &["io", "circuit_breaker"], strace!("openat", "ESTALE")),
    failing("EMFILE", &["out_of_resources"], strace!("openat", "EMFILE")),
    failing("ENFILE", &["out_of_resources"], strace!("openat", "ENFILE")),
    failing("ENOMEM", &["out_of_resources"], strace!("openat", "ENOMEM")),
    State::new("ENOSPC", &["disk_full"], |it| done(fs::remove_file(it.entry())))
        .under(strace!("renameat,renameat2,mkdirat", "ENOSPC")),
    State::new("EDQUOT", &["disk_full"], |it| done(fs::remove_file(it.entry())))
        .under(strace!("renameat,renameat2,mkdirat", "EDQUOT")),
    State::new("EROFS", &["read_only"], |it| done(fs::remove_file(it.entry())))
        .under(strace!("renameat,renameat2,mkdirat", "EROFS")),
    State::new("a file system without locks", &["locks_unsupported", "io", "circuit_breaker"], |it| {
        done(fs::remove_file(it.entry()))
    })
    .under(&[
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=flock",
        "-e",
        "inject=flock:error=ENOLCK",
    ]),
    State::new("the format of a later release", &["future_format"], |it| {
        done(fs::write(it.path("VERSION"), "objcache store 2\n"))
    }),
    State::new("a version cut short", &[], |it| done(fs::write(it.path("VERSION"), "objc"))),
    State::new("a version of zeros", &[], |it| done(fs::write(it.path("VERSION"), [0; 17]))),
    State::new("a catalogue of garbage", &[], |it| done(fs::write(it.path("catalogue/db"), [0xa5; 9000]))),
    State::new("a file in place of the catalogue", &[], |it| {
        replaced(&it.path("catalogue"), |path| fs::write(path, "in the way"))
    }),
    State::new("a journal of garbage", &[], |it| done(fs::write(it.path("journal"), [0xa5; 5000]))),
    State::new("a directory in place of the journal", &[], |it| {
        replaced(&it.path("journal"), |path| fs::create_dir(path))
    }),
    State::new("a temporary file of a dead process", &[], |it| {
        done(fs::write(it.path("tmp/4711-5f-0"), "half"))
    }),
    State::new("a lock file of a dead process", &[], |it| {
        fs::remove_file(it.entry())?;
        done(fs::write(it.path("locks").join(it.signature), "4711"))
    }),
    State::new("a lock whose holder is stopped", &["lock_timeout"], |it| {
        fs::remove_file(it.entry())?;
        locked(&it.path("locks").join(it.signature))
    })
    .with(&[("OBJCACHE_LOCK_WAIT", Some("1s"))]),
    State::new("a keeper that is stopped", &[], |it| locked(&it.path("keeper"))),
    State::new("a journal whose holder is stopped", &["journal_stuck"], |it| {
        fs::remove_file(it.entry())?;
        locked(&it.path("journal"))
    }),
    State::new("a journal whose holder is stopped, with nothing to put", &[], |it| {
        locked(&it.path("journal"))
    })
    .with(&[("OBJCACHE_ONLY_HITS", Some("1"))])
    .only_strict(&["journal_stuck"]),
    State::new("files in place of all directories", &[], |it| {
        for name in ["tmp", "locks", "pins", "quarantine"] {
            replaced(&it.path(name), |path| fs::write(path, "in the way"))?;
        }
        nothing(it)
    }),
    State::new("an entry with a flipped bit", &["entry_digest"], |it| {
        change(&it.entry(), |bytes| bytes[99] ^= 4)
    }),
    State::new("an entry cut short", &["entry_magic", "entry_length"], |it| {
        change(&it.entry(), |bytes| bytes.truncate(bytes.len() / 2))
    }),
    State::new("an empty entry", &["entry_length"], |it| done(fs::write(it.entry(), ""))),
    State::new("an entry of a machine of the other byte order", &["entry_version"], |it| {
        change(&it.entry(), |bytes| {
            let at = (0..bytes.len() - 8).rev().find(|at| bytes[*at..].starts_with(b"objcache"));
            let version = at.expect("the trailer begins so") + 8;
            bytes[version..version + 4].reverse();
        })
    }),
    State::new("an entry of another user", &["entry_foreign_owner"], |it| {
        done(chown(it.entry(), Some(NOBODY), None))
    }),
    State::new("a link in place of an entry", &["entry_not_a_file"], |it| {
        let elsewhere = it.root.with_extension("elsewhere");
        fs::copy(it.entry(), &elsewhere)?;
        replaced(&it.entry(), |path| symlink(elsewhere, path))
    }),
    State::new("a directory in place of an entry", &["entry_not_a_file"], |it| {
        replaced(&it.entry(), |path| fs::create_dir(path))
    }),
    State::new("a pipe in place of an entry", &["entry_not_a_file"], |it| {
        replaced(&it.entry(), |path| Command::new("mkfifo").arg(path).status().map(drop))
    }),
    State::new("an entry of a terabyte", &["entry_length"], |it| {
        done(File::options().write(true).open(it.entry())?.set_len(1 << 40))
    }),
    State::new("a clock that was set back", &["clock_set_back"], tidied_in_the_future),
    State::new("no home", &["no_home"], nothing).with(&[
        ("OBJCACHE_DIR", None),
        ("XDG_CACHE_HOME", None),
        ("HOME", None),
    ]),
    State::new("a setting that is not understood", &["bad_setting"], nothing)
        .with(&[("OBJCACHE_MAX_SIZE", Some("lots"))]),
    State::new("a file of settings that is not understood", &["bad_setting"], |it| {
        settings(it, "max_size = 10 G")
    })
    .with(SETTINGS),
    State::new("a setting in a file that is not understood", &["bad_setting"], |it| {
        settings(it, "max_size = \"lots\"")
    })
    .with(SETTINGS),
    State::new("a file of settings that cannot be read", &["bad_setting", "key_unusable"], |it| {
        done(fs::create_dir_all(settings_file(it)))
    })
    .with(SETTINGS),
    State::new("a layer that is not there", &["layer_unusable"], |it| done(fs::remove_file(it.entry())))
        .with(&[("OBJCACHE_LAYERS", Some("ROOT.nowhere"))]),
    State::new("a layer that is no pack", &["layer_unusable"], |it| {
        fs::remove_file(it.entry())?;
        done(fs::write(it.root.with_extension("pack"), "no pack"))
    })
    .with(&[("OBJCACHE_LAYERS", Some("ROOT.pack"))]),
    State::new("a trace that cannot be written", &["trace_stopped"], nothing)
        .with(&[("OBJCACHE_TRACE", Some("/proc/nowhere/trace"))]),
    State::new("no room", &[], |it| done(fs::remove_file(it.entry())))
        .with(&[("OBJCACHE_MAX_ENTRIES", Some("0"))])
        .only_strict(&["no_room"]),
    State::new("an object that is not admitted", &[], |it| done(fs::remove_file(it.entry())))
        .with(&[("OBJCACHE_MAX_OBJECT_SIZE", Some("1"))]),
    State::new("a compilation that is not worth it", &[], |it| done(fs::remove_file(it.entry())))
        .with(&[("OBJCACHE_MIN_COMPILE_MS", Some("86400000"))]),
    State::new("a network file system", &[], nothing).with(&[("OBJCACHE_NETWORK", Some("1"))]),
];
