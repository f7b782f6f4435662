//! How a store is opened.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::admin::GcLimits;
use crate::compression::Compression;
use crate::cpu::HostFeatures;
use crate::error::{CacheError, Reason};
use crate::object::CompiledObject;
use crate::store::config::{Configuration, Given, base_directory};
use crate::trust::{KeyError, MacKey, SigningKey, Trust, read_trusted_keys};

/// The default of [`StoreOptions::max_size`], in bytes.
pub const DEFAULT_MAX_SIZE: u64 = 10 << 30;

/// The smallest [`StoreOptions::max_size`], in bytes: the catalogue alone takes half a megabyte.
pub const SMALLEST_MAX_SIZE: u64 = 4 << 20;

/// How a [`Store`](crate::Store) is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Where the store is kept. `None`: nowhere, the store is off.
    pub directory: Option<PathBuf>,
    /// What the whole directory may take in allocated blocks, in bytes; at least [`SMALLEST_MAX_SIZE`].
    ///
    /// It is passed by no more than one entry at any instant, however many processes put at once: a put that
    /// finds no room makes some first, or is not taken. When the store is nearly full a tenth goes in the
    /// background, so that few puts have to.
    pub max_size: u64,
    /// Entries not used for longer than this go when the store is next tidied. Default: no such limit.
    pub max_age: Option<Duration>,
    /// How many entries there may be, at any instant as well. Default: no such limit.
    pub max_entries: Option<u64>,
    /// What the entries of a namespace may take on disk, in bytes, by its name; kept to when the store is
    /// tidied, which it then is every few entries. Default: no such limits.
    pub namespace_max_size: BTreeMap<String, u64>,
    /// Objects whose compilation took less are not taken in. Default: zero, everything is.
    pub min_compile_time: Duration,
    /// Objects of more bytes are not taken in. Default: no such limit, but for half of `max_size` and 1 GiB.
    pub max_object_size: Option<u64>,
    /// How long a failed compilation is remembered with its diagnostics. Default: `None`, not at all.
    pub failure_ttl: Option<Duration>,
    /// Sync files and directories, so that what was acknowledged survives a power cut. Without it a power cut
    /// may cost entries, but never serves wrong bytes. Default: off.
    pub durable: bool,
    /// Never write; entries are still read. Default: off.
    pub read_only: bool,
    /// All trouble with the store is an error instead of doing less, for tests: also what no call was there to
    /// return (settings that are not understood, a wait that took too long, work in the background), which the next
    /// look-up or offer returns, or else [`Store::untold`](crate::Store::untold). A miss, an object that these options do
    /// not admit, and an eviction are no trouble. Default: off.
    pub strict: bool,
    /// Calls return the errors that they meet themselves, and all other trouble stays a warning: for programs that
    /// are about the store. Default: off; `strict` includes it.
    pub own_errors: bool,
    /// Switched off: every look-up is a miss. Default: not.
    pub disabled: bool,
    /// Whether the directory is on a network file system, where no catalogue is kept
    /// ([`network_file_system`](crate::Store::network_file_system)). Default: `None`, the system is asked.
    pub network: Option<bool>,
    /// How long to wait for another that compiles the same, before compiling as well. Default: 60 s.
    pub lock_wait: Duration,
    /// Packs and directories of other stores that are asked when this one has nothing, in their order, before
    /// those that are [mounted](crate::Store::mount). Nothing is written into them. Default: none.
    pub layers: Vec<PathBuf>,
    /// Copy what a layer had into the store. Default: off, it is read from the layer each time.
    pub promote: bool,
    /// Write the signature of every entry used into this file: a [trace](crate::Trace). Default: none.
    pub trace: Option<PathBuf>,
    /// How objects are stored when they are put. Default: [`Compression::Auto`].
    pub compression: Compression,
    /// Who must have vouched for an entry. Default: nobody, it lies in a directory that is ours.
    pub trust: Trust,
    /// The CPU features of whatever is going to run the objects; an entry that needs others is a miss. Where
    /// they are unknown all entries are handed over. Default: those of this host.
    pub host_features: HostFeatures,
    /// Why there must be no store, whatever else these options say.
    pub(crate) refused: Option<Reason>,
    /// What was wrong with the settings these options were made of.
    pub(crate) complaints: Vec<(Reason, String)>,
}

impl StoreOptions {
    /// A store in `directory`, everything else by default.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: Some(directory.into()),
            max_size: DEFAULT_MAX_SIZE,
            max_age: None,
            max_entries: None,
            namespace_max_size: BTreeMap::new(),
            min_compile_time: Duration::ZERO,
            max_object_size: None,
            failure_ttl: None,
            durable: false,
            read_only: false,
            strict: false,
            own_errors: false,
            disabled: false,
            network: None,
            lock_wait: Duration::from_secs(60),
            layers: Vec::new(),
            promote: false,
            trace: None,
            compression: Compression::default(),
            trust: Trust::default(),
            host_features: HostFeatures::default(),
            refused: None,
            complaints: Vec::new(),
        }
    }

    /// The default directory, as the environment has it: `$OBJCACHE_DIR`, else `objcache` in
    /// `$XDG_CACHE_HOME` or the platform's cache directory below the home directory. Below `/tmp` only where
    /// `$XDG_CACHE_HOME` is, and then others cannot plant it: who owns it, and all above it, is looked at.
    /// `None` when there is none.
    pub fn default_directory() -> Option<PathBuf> {
        Self::from_environment().directory
    }

    /// Options as the environment has them, and for what it does not set the files of project and user: see
    /// [`Configuration`], which also tells where each comes from.
    ///
    /// | variable | in files | meaning |
    /// |---|---|---|
    /// | `OBJCACHE_DIR` | `dir` | the directory |
    /// | `OBJCACHE_MAX_SIZE` | `max_size` | bytes, or a number with `K`, `M`, `G`, `T` (powers of 1024; `KiB`, `MB` … are the same) |
    /// | `OBJCACHE_MAX_AGE`, `OBJCACHE_FAILURE_TTL`, `OBJCACHE_LOCK_WAIT` | `max_age`, `failure_ttl`, `lock_wait` | a number with `s`, `min`, `h`, `d`, `w` or `y` |
    /// | `OBJCACHE_MAX_ENTRIES` | `max_entries` | a number |
    /// | `OBJCACHE_NAMESPACE_MAX_SIZE` | `namespace_max_size` | sizes by namespace, such as `debug=500M,test=1G` |
    /// | `OBJCACHE_MIN_COMPILE_MS` | `min_compile_ms` | a number of milliseconds |
    /// | `OBJCACHE_MAX_OBJECT_SIZE` | `max_object_size` | a size |
    /// | `OBJCACHE_COMPRESSION` | `compression` | `auto`, `none`, `lz4` or `zstd` |
    /// | `OBJCACHE_MAC_KEY` | `mac_key` | file with a key: entries need a MAC by it, and get one |
    /// | `OBJCACHE_TRUSTED_KEYS` | `trusted_keys` | file with public keys: entries need a signature by one of them |
    /// | `OBJCACHE_SIGNING_KEY` | `signing_key` | file with a key: entries are signed with it |
    /// | `OBJCACHE_LAYERS` | `layers` | packs and directories asked when the store has nothing, with `:` between; in files an array |
    /// | `OBJCACHE_TRACE` | `trace` | a file to write the signature of every entry used into |
    /// | `OBJCACHE_NETWORK` | `network` | `1` or `0`: the directory is on a network file system or not, whatever the system says |
    /// | `OBJCACHE_READONLY`, `OBJCACHE_STRICT`, `OBJCACHE_DISABLE`, `OBJCACHE_DURABLE`, `OBJCACHE_PROMOTE` | `read_only`, `strict`, `disable`, `durable`, `promote` | `1`, `true`, `yes` or `on` switch them on |
    ///
    /// A variable that is empty is as good as not set. A value that is not understood is left aside with a warning, and
    /// what comes next decides; but with a key that cannot be used, or a variable for one that is empty, the store is off,
    /// rather than to believe everybody. In a process with another user's rights
    /// (set-user-ID) environment and files belong to somebody else: the store is off.
    pub fn from_environment() -> Self {
        Configuration::load().options()
    }

    /// Options of which `given` tells what is set, by the names of variables.
    pub(crate) fn from_settings(given: impl Fn(&str) -> Option<Given>) -> Self {
        let mut options = Self::at("");
        let mut complaints = Vec::new();
        let mut settings = Settings { given: &given, complaints: &mut complaints };
        options.directory = match given("OBJCACHE_DIR") {
            Some(directory) => Some(directory.text.into()),
            None => base_directory("XDG_CACHE_HOME", ".cache").map(|cache| cache.join("objcache")),
        };
        let mut flag = |name| settings.read(name, "1 or 0", parse_flag);
        options.read_only = flag("OBJCACHE_READONLY").unwrap_or(false);
        options.strict = flag("OBJCACHE_STRICT").unwrap_or(false);
        options.promote = flag("OBJCACHE_PROMOTE").unwrap_or(false);
        options.durable = flag("OBJCACHE_DURABLE").unwrap_or(false);
        options.network = flag("OBJCACHE_NETWORK");
        // Who sets it to something strange wants it off rather than on.
        options.disabled = flag("OBJCACHE_DISABLE").unwrap_or(given("OBJCACHE_DISABLE").is_some());
        if let Some(size) = settings.read("OBJCACHE_MAX_SIZE", "like 500M or 10G", parse_size) {
            options.max_size = size;
        }
        options.max_age = settings.read("OBJCACHE_MAX_AGE", "like 30d or 12h", parse_span);
        options.max_entries = settings.read("OBJCACHE_MAX_ENTRIES", "a number", parse_count);
        options.namespace_max_size = settings
            .read("OBJCACHE_NAMESPACE_MAX_SIZE", "like debug=500M,test=1G", parse_sizes)
            .unwrap_or_default();
        options.min_compile_time = settings
            .read("OBJCACHE_MIN_COMPILE_MS", "a number of milliseconds", parse_count)
            .map_or(Duration::ZERO, Duration::from_millis);
        options.max_object_size = settings.read("OBJCACHE_MAX_OBJECT_SIZE", "like 50M", parse_size);
        let layers = given("OBJCACHE_LAYERS").map(|given| given.text).unwrap_or_default();
        options.layers = std::env::split_paths(&layers).filter(|path| !path.as_os_str().is_empty()).collect();
        options.trace = given("OBJCACHE_TRACE").map(|given| given.text.into());
        options.failure_ttl = settings.read("OBJCACHE_FAILURE_TTL", "like 1h or 1d", parse_span);
        if let Some(wait) = settings.read("OBJCACHE_LOCK_WAIT", "like 60s", parse_span) {
            options.lock_wait = wait;
        }
        let like = "auto, none, lz4 or zstd";
        options.compression =
            settings.read("OBJCACHE_COMPRESSION", like, |text| text.parse().ok()).unwrap_or_default();
        options.trust.mac = settings.key("OBJCACHE_MAC_KEY", |path| MacKey::read(path));
        options.trust.trusted =
            settings.key("OBJCACHE_TRUSTED_KEYS", |path| read_trusted_keys(path)).unwrap_or_default();
        options.trust.sign_with = settings.key("OBJCACHE_SIGNING_KEY", |path| SigningKey::read(path));
        let unusable = |(reason, _): &(Reason, String)| *reason == Reason::KeyUnusable;
        options.refused = complaints.iter().any(unusable).then_some(Reason::KeyUnusable);
        options.complaints = complaints;
        options
    }

    /// Whether a store may be opened with these options, and [`trust`](Self::trust) is what was asked for.
    ///
    /// # Errors
    /// [`Reason::KeyUnusable`] when a key that the settings name cannot be used, and
    /// [`Reason::SecureExecution`] in a program with the rights of somebody else.
    pub fn check(&self) -> Result<(), CacheError> {
        self.refused.map_or(Ok(()), |reason| Err(CacheError::new(reason, "store")))
    }

    /// Whether an object is wanted at all.
    pub(crate) fn admits(&self, compiled: &CompiledObject<'_>) -> bool {
        let fits = self.max_object_size.is_none_or(|max| compiled.object.len() as u64 <= max);
        fits && compiled.compile_time >= self.min_compile_time
    }

    /// The limits among these options, as a collection takes them.
    pub fn limits(&self) -> GcLimits {
        GcLimits {
            max_size: Some(self.max_size),
            max_age: self.max_age,
            max_entries: self.max_entries,
            namespace_max_size: self.namespace_max_size.clone(),
        }
    }
}

/// Reads settings, and takes complaints about those that are not understood.
struct Settings<'a> {
    given: &'a dyn Fn(&str) -> Option<Given>,
    complaints: &'a mut Vec<(Reason, String)>,
}

impl Settings<'_> {
    fn read<T>(&mut self, name: &str, like: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let Given { text, label } = (self.given)(name)?;
        let value = parse(&text.to_string_lossy());
        if value.is_none() {
            let complaint = format!("{label}={} ({like})", text.to_string_lossy());
            self.complaints.push((Reason::BadSetting, complaint));
        }
        value
    }

    /// A key in a file.
    fn key<T>(&mut self, name: &str, read: impl Fn(&std::ffi::OsStr) -> Result<T, KeyError>) -> Option<T> {
        let Given { text, label } = (self.given)(name)?;
        match read(&text) {
            Ok(key) => Some(key),
            Err(error) => {
                let complaint = format!("{label}={} ({error})", text.to_string_lossy());
                self.complaints.push((Reason::KeyUnusable, complaint));
                None
            }
        }
    }
}

pub(crate) fn has_rights_of_another() -> bool {
    use rustix::process::{getegid, geteuid, getgid, getuid};
    getuid() != geteuid() || getgid() != getegid()
}

fn parse_flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A size in bytes: a whole number, and `K`, `M`, `G` or `T` for powers of 1024. `B` or `iB` may follow.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().trim_end_matches('b').trim_end_matches('i') {
        "" if !unit.contains('i') => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A time: a whole number and `s`, `m` or `min`, `h`, `d`, `w` or `y` (of 365 days).
pub fn parse_span(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit.trim() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" | "day" | "days" => 86_400,
        "w" | "week" | "weeks" => 7 * 86_400,
        "y" | "year" | "years" => 365 * 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

fn parse_count(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn parse_sizes(text: &str) -> Option<BTreeMap<String, u64>> {
    let one = |part: &str| {
        // A name may have one of its own, a size has none.
        let (name, size) = part.rsplit_once('=')?;
        Some((name.trim().to_owned(), parse_size(size)?))
    };
    text.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> StoreOptions {
        StoreOptions::from_settings(|name| {
            let value = variables.iter().find(|(n, value)| *n == name && !value.is_empty());
            value.map(|(name, value)| Given { text: value.into(), label: (*name).to_owned() })
        })
    }

    #[test]
    fn the_directory_that_is_set_is_taken() {
        assert_eq!(options(&[("OBJCACHE_DIR", "/d")]).directory, Some(PathBuf::from("/d")));
    }

    #[test]
    fn flags_are_on_off_or_complained_about() {
        let on =
            options(&[("OBJCACHE_READONLY", "1"), ("OBJCACHE_STRICT", "yes"), ("OBJCACHE_DISABLE", "on")]);
        assert!(on.read_only && on.strict && on.disabled && on.complaints.is_empty());
        let off = options(&[("OBJCACHE_READONLY", "0"), ("OBJCACHE_DISABLE", "")]);
        assert!(!off.read_only && !off.disabled && off.complaints.is_empty());
        let strange = options(&[("OBJCACHE_STRICT", "perhaps"), ("OBJCACHE_DISABLE", "perhaps")]);
        assert!(!strange.strict && strange.disabled);
        assert_eq!(strange.complaints.len(), 2);
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("0"), Some(0));
        assert_eq!(parse_size(" 12345 "), Some(12345));
        assert_eq!(parse_size("12b"), Some(12));
        assert_eq!(parse_size("500M"), Some(500 << 20));
        assert_eq!(parse_size("10 GiB"), Some(10 << 30));
        assert_eq!(parse_size("3kb"), Some(3 << 10));
        assert_eq!(parse_size("2t"), Some(2 << 40));
        for bad in ["", "G", "-1", "1.5G", "10X", "1ib", "99999999999999999999", "99999999999T"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
        let (ours, theirs) = (("debug".to_owned(), 500 << 20), ("x".to_owned(), 7));
        assert_eq!(parse_sizes("debug=500M, x=7"), Some(BTreeMap::from([ours, theirs])));
        assert_eq!(parse_sizes("500M"), None);
        let strange = options(&[("OBJCACHE_MAX_SIZE", "lots")]);
        assert_eq!((strange.max_size, strange.complaints.len()), (DEFAULT_MAX_SIZE, 1));
    }

    #[test]
    fn spans() {
        let seconds = |text| parse_span(text).map(|span| span.as_secs());
        assert_eq!((seconds("30s"), seconds(" 2 min "), seconds("12h")), (Some(30), Some(120), Some(43_200)));
        assert_eq!(
            (seconds("1d"), seconds("2w"), seconds("1y")),
            (Some(86_400), Some(1_209_600), Some(31_536_000))
        );
        for bad in ["", "7", "d", "-1d", "1.5h", "9 fortnights", "99999999999999999999d", "999999999999999y"]
        {
            assert_eq!(parse_span(bad), None, "{bad}");
        }
    }

    #[test]
    fn limits_come_from_the_environment() {
        let set = options(&[
            ("OBJCACHE_MAX_AGE", "30d"),
            ("OBJCACHE_MAX_ENTRIES", "1000"),
            ("OBJCACHE_NAMESPACE_MAX_SIZE", "debug=1M,mode=debug=2M"),
            ("OBJCACHE_MIN_COMPILE_MS", "20"),
            ("OBJCACHE_MAX_OBJECT_SIZE", "5M"),
            ("OBJCACHE_FAILURE_TTL", "1h"),
        ]);
        assert_eq!(set.max_age, Some(Duration::from_secs(30 * 86_400)));
        assert_eq!((set.max_entries, set.max_object_size), (Some(1000), Some(5 << 20)));
        assert_eq!(set.namespace_max_size.get("debug"), Some(&(1 << 20)));
        assert_eq!(set.namespace_max_size.get("mode=debug"), Some(&(2 << 20)));
        assert_eq!(set.min_compile_time, Duration::from_millis(20));
        assert_eq!(set.failure_ttl, Some(Duration::from_secs(3600)));
        assert_eq!(set.complaints.len(), 0);
        let strange = options(&[("OBJCACHE_MAX_AGE", "old"), ("OBJCACHE_MIN_COMPILE_MS", "-3")]);
        assert_eq!((strange.max_age, strange.min_compile_time), (None, Duration::ZERO));
        assert_eq!(strange.complaints.len(), 2);
    }
}
