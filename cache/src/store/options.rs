//! How a store is opened, and the one place where the environment is read.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use etcetera::BaseStrategy;

use crate::error::Reason;

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
    /// It is checked when objects are put, and undershot by a tenth then, so that not every put evicts.
    pub max_size: u64,
    /// Entries not used for longer than this go when the store is next tidied. Default: no such limit.
    pub max_age: Option<Duration>,
    /// Sync files and directories, so that what was acknowledged survives a power cut. Without it a power cut
    /// may cost entries, but never serves wrong bytes. Default: off.
    pub durable: bool,
    /// Never write; entries are still read. Default: off.
    pub read_only: bool,
    /// Report trouble as errors instead of doing less. For tests. Default: off.
    pub strict: bool,
    /// Switched off: every look-up is a miss. Default: not.
    pub disabled: bool,
    /// How long to wait for another that compiles the same, before compiling as well. Default: 60 s.
    pub lock_wait: Duration,
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
            durable: false,
            read_only: false,
            strict: false,
            disabled: false,
            lock_wait: Duration::from_secs(60),
            complaints: Vec::new(),
        }
    }

    /// The default directory, as the environment has it: `$OBJCACHE_DIR`, else `objcache` in
    /// `$XDG_CACHE_HOME` or the platform's cache directory below the home directory; never below `/tmp`.
    /// `None` when there is none.
    pub fn default_directory() -> Option<PathBuf> {
        Self::from_environment().directory
    }

    /// Options as the environment has them:
    ///
    /// | variable | meaning |
    /// |---|---|
    /// | `OBJCACHE_DIR` | the directory |
    /// | `OBJCACHE_MAX_SIZE` | bytes, or a number with `K`, `M`, `G`, `T` (powers of 1024; `KiB`, `MB` … are the same) |
    /// | `OBJCACHE_READONLY`, `OBJCACHE_STRICT`, `OBJCACHE_DISABLE` | `1`, `true`, `yes` or `on` switch them on |
    ///
    /// A value that is not understood is left aside with a warning. In a process with another user's rights
    /// (set-user-ID) the environment belongs to somebody else: the store is off.
    pub fn from_environment() -> Self {
        let mut options = Self::from_variables(|name| std::env::var_os(name));
        if has_rights_of_another() {
            options.directory = None;
            options.complaints.push((Reason::SecureExecution, "environment".to_owned()));
        }
        options
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut options = Self::at("");
        options.directory = match set("OBJCACHE_DIR") {
            Some(directory) => Some(directory.into()),
            // Asked for by name, because without `HOME` the password file would be searched.
            None if set("XDG_CACHE_HOME").is_some() || set("HOME").is_some() => platform_directory(),
            None => None,
        };
        let mut flag = |name: &str| {
            let value = set(name)?;
            let flag = parse_flag(&value.to_string_lossy());
            if flag.is_none() {
                let complaint = format!("{name}={} (1 or 0)", value.to_string_lossy());
                options.complaints.push((Reason::BadSetting, complaint));
            }
            flag
        };
        options.read_only = flag("OBJCACHE_READONLY").unwrap_or(false);
        options.strict = flag("OBJCACHE_STRICT").unwrap_or(false);
        // Who sets it to something strange wants it off rather than on.
        options.disabled = flag("OBJCACHE_DISABLE").unwrap_or(set("OBJCACHE_DISABLE").is_some());
        if let Some(text) = set("OBJCACHE_MAX_SIZE") {
            match parse_size(&text.to_string_lossy()) {
                Some(size) => options.max_size = size,
                None => {
                    let complaint =
                        format!("OBJCACHE_MAX_SIZE={} (like 500M or 10G)", text.to_string_lossy());
                    options.complaints.push((Reason::BadSetting, complaint));
                }
            }
        }
        options
    }
}

fn has_rights_of_another() -> bool {
    use rustix::process::{getegid, geteuid, getgid, getuid};
    getuid() != geteuid() || getgid() != getegid()
}

/// `objcache` in the user's cache directory.
fn platform_directory() -> Option<PathBuf> {
    let cache = etcetera::choose_base_strategy().ok()?.cache_dir();
    cache.is_absolute().then(|| cache.join("objcache"))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> StoreOptions {
        StoreOptions::from_variables(|name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_directory_comes_from_the_first_that_is_set() {
        let given = options(&[("OBJCACHE_DIR", "/d"), ("HOME", "/h")]);
        assert_eq!(given.directory, Some(PathBuf::from("/d")));
        assert_eq!(options(&[]).directory, None);
        assert_eq!(options(&[("HOME", "")]).directory, None);
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
        let strange = options(&[("OBJCACHE_MAX_SIZE", "lots")]);
        assert_eq!((strange.max_size, strange.complaints.len()), (DEFAULT_MAX_SIZE, 1));
    }
}
