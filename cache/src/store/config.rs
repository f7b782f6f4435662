//! Settings, and where each comes from: the environment, a project's file, the user's file, a default.
//!
//! The first of these that has a setting decides it:
//!
//! 1. the environment: `OBJCACHE_MAX_SIZE=20G`;
//! 2. the project's file: the nearest `objcache.toml`, from the working directory upwards;
//! 3. the user's file: `objcache/config.toml` in `$XDG_CONFIG_HOME` or `~/.config`;
//! 4. the default.
//!
//! A program's own options stand before all of them. Files are TOML with one line per setting, `max_size = "20G"`.
//!
//! A project's file comes with whatever was checked out, so it is not the user's word. It may set what concerns the project's
//! own compilations ([`Setting::in_projects`]). It may not say *where* the cache is: it could name a directory in the checkout
//! with objects in it that are sound and somebody else's, whose code would run. (The same goes for layers.) Nor what the cache may *hold* or how long
//! others are waited for: a small limit would evict the entries of all other projects.
//!
//! Files that belong to another user, or that others may write, are passed over. What is not understood is left aside. Both
//! are complained about ([`Configuration::problems`]), and change no result.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, statat};
use rustix::io::Errno;
use toml::{Table, Value};

use crate::error::Reason;
use crate::store::options::{self, StoreOptions};
use crate::store::parents;

/// The name of a project's file.
pub const PROJECT_FILE: &str = "objcache.toml";

/// A file that is longer is no configuration.
const LONGEST_FILE: u64 = 64 * 1024;

/// Something that can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// Its name in files.
    pub key: &'static str,
    /// The variable of the environment that sets it.
    pub variable: &'static str,
    /// What values look like.
    pub like: &'static str,
    /// What it is unless it is set; empty for no limit, or where it depends.
    pub default: &'static str,
    /// What it is about, in a few words.
    pub about: &'static str,
    /// Whether a project's file may set it.
    pub in_projects: bool,
}

macro_rules! settings {
    ($($key:literal, $variable:literal, $like:literal, $default:literal, $in_projects:literal, $about:literal;)*) => {
        /// All settings.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            key: $key,
            variable: $variable,
            like: $like,
            default: $default,
            about: $about,
            in_projects: $in_projects,
        },)*];
    };
}

settings! {
    "dir", "OBJCACHE_DIR", "an absolute path", "", false, "where the cache is";
    "max_size", "OBJCACHE_MAX_SIZE", "500M or 10G", "10G", false, "what the whole cache may take on disk";
    "max_age", "OBJCACHE_MAX_AGE", "30d or 12h", "", false, "how long an entry may go unused";
    "max_entries", "OBJCACHE_MAX_ENTRIES", "a number", "", false, "how many entries there may be";
    "namespace_max_size", "OBJCACHE_NAMESPACE_MAX_SIZE", "debug=500M,test=1G", "", false,
        "what the entries of a namespace may take on disk";
    "min_compile_ms", "OBJCACHE_MIN_COMPILE_MS", "a number of milliseconds", "0", true,
        "what compiled faster is not kept";
    "max_object_size", "OBJCACHE_MAX_OBJECT_SIZE", "50M", "", true, "larger objects are not kept";
    "failure_ttl", "OBJCACHE_FAILURE_TTL", "1h or 1d", "", true, "how long failed compilations are remembered";
    "layers", "OBJCACHE_LAYERS", "absolute paths", "", false, "packs and directories asked after the cache";
    "promote", "OBJCACHE_PROMOTE", "true or false", "false", false, "what a layer has is taken into the cache";
    "trace", "OBJCACHE_TRACE", "an absolute path", "", false, "a file for the signatures of all entries used";
    "compression", "OBJCACHE_COMPRESSION", "auto, none, lz4 or zstd", "auto", true, "how objects are stored";
    "mac_key", "OBJCACHE_MAC_KEY", "an absolute path", "", false, "a file with the key of MACs that entries need";
    "trusted_keys", "OBJCACHE_TRUSTED_KEYS", "an absolute path", "", false,
        "a file with the public keys of those who sign entries";
    "signing_key", "OBJCACHE_SIGNING_KEY", "an absolute path", "", false, "a file with the key that signs entries";
    "durable", "OBJCACHE_DURABLE", "true or false", "false", true, "entries survive a power cut";
    "read_only", "OBJCACHE_READONLY", "true or false", "false", true, "the cache answers and takes nothing";
    "disable", "OBJCACHE_DISABLE", "true or false", "false", true, "the cache is off";
    "strict", "OBJCACHE_STRICT", "true or false", "false", true, "trouble with the cache is an error";
    "network", "OBJCACHE_NETWORK", "true or false", "", false,
        "the directory is on a network file system, where no catalogue is kept, or is not";
    "lock_wait", "OBJCACHE_LOCK_WAIT", "60s", "60s", false, "how long to wait for another that compiles the same";
}

impl Setting {
    /// The setting of this name.
    pub fn by_key(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// Files are read in other directories than they were written in: a path in them must not depend on that.
    fn is_absolute(&self, text: &str) -> bool {
        match self.like.contains("absolute") {
            true => std::env::split_paths(text).all(|path| path.is_absolute()),
            false => true,
        }
    }

    /// Whether it names a file with keys.
    fn is_key(&self) -> bool {
        ["mac_key", "trusted_keys", "signing_key"].contains(&self.key)
    }

    /// What is wrong with a value that is not understood. Keys are for whoever reads their files.
    fn misunderstood(&self, text: &OsStr, label: &str) -> Option<String> {
        if self.is_key() {
            return None;
        }
        let value = Given { text: text.to_owned(), label: label.to_owned() };
        let alone = |variable: &str| (variable == self.variable).then(|| value.clone());
        StoreOptions::from_settings(alone).complaints.pop().map(|(_, words)| words)
    }

    /// The name of a setting that is like `key`, for who has mistyped one.
    pub fn like_key(key: &str) -> Option<&'static str> {
        closest(key, SETTINGS.iter().map(|setting| setting.key))
    }

    /// Whether `text` is a value of it.
    ///
    /// # Errors
    /// What it should look like.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let value = Given { text: text.into(), label: self.key.to_owned() };
        let alone = |variable: &str| (variable == self.variable).then(|| value.clone());
        let complaints = StoreOptions::from_settings(alone).complaints;
        // Whether there is a key in a file is not for its name to say.
        let understood = complaints.iter().all(|(reason, _)| *reason == Reason::KeyUnusable);
        match understood && self.is_absolute(text) && !text.is_empty() {
            true => Ok(()),
            false => Err(format!("`{text}` is no value for `{}`, which is {}", self.key, self.like)),
        }
    }
}

/// The one of `known` that `word` most likely was to be, if it is like any.
pub fn closest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    const LIKE_ENOUGH: f64 = 0.85;
    let likeness = known.map(|name| (strsim::jaro_winkler(word, name), name));
    let (likeness, name) = likeness.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (likeness >= LIKE_ENOUGH).then_some(name)
}

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The user's file.
    User(PathBuf),
    /// The project's file.
    Project(PathBuf),
    /// This variable of the environment.
    Environment(&'static str),
}

/// A value that does not decide a setting, though it comes before what does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftAside {
    /// As it was given; `None`: no setting is written like that.
    pub value: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
    /// What is wrong with it, in words that name it and where it comes from.
    pub problem: String,
}

/// A value as it was given, and what to call it in complaints.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) text: OsString,
    pub(crate) label: String,
}

/// The settings of this process, each with its origin.
#[derive(Debug, Clone, Default)]
pub struct Configuration {
    // By the names of settings. Few, and each once when all are read; until then the later one comes first.
    values: Vec<(&'static str, OsString, Origin)>,
    left_aside: Vec<(&'static str, LeftAside)>,
    user_file: Option<PathBuf>,
    project_file: Option<PathBuf>,
    problems: Vec<(Reason, String)>,
    // One was asked for, and left aside: without it everybody would be believed.
    key_is_missing: bool,
}

impl Configuration {
    /// A file that is longer is passed over, in bytes.
    pub const LONGEST_FILE: u64 = LONGEST_FILE;

    /// Reads the environment, the project's file and the user's file. What is wrong with them is left aside, and told by
    /// [`problems`](Self::problems).
    ///
    /// In a process with another user's rights (set-user-ID) all of them belong to somebody else: nothing is read, and a
    /// store opened with these options is off.
    pub fn load() -> Self {
        if options::has_rights_of_another() {
            let problems = vec![(Reason::SecureExecution, "environment".to_owned())];
            return Self { problems, ..Self::default() };
        }
        let working_directory = std::env::current_dir().ok();
        Self::of(&|name| std::env::var_os(name), working_directory.as_deref(), default_user_file())
    }

    fn of(
        variable: &dyn Fn(&str) -> Option<OsString>,
        working_directory: Option<&Path>,
        user_file: Option<PathBuf>,
    ) -> Self {
        let mut configuration = Self { user_file, ..Self::default() };
        if let Some(path) = configuration.user_file.clone() {
            configuration.read_file(&path, |path| Origin::User(path.to_owned()));
        }
        configuration.project_file = working_directory.and_then(nearest_project_file);
        if let Some(path) = configuration.project_file.clone() {
            configuration.read_file(&path, |path| Origin::Project(path.to_owned()));
        }
        for setting in SETTINGS {
            let Some(value) = variable(setting.variable) else { continue };
            if !value.is_empty() {
                configuration.values.push((setting.key, value, Origin::Environment(setting.variable)));
            } else if setting.is_key() {
                // An empty one is as good as none, but not where it may be a slip that makes everybody believed.
                let problem =
                    format!("{} is empty: it is to name a file, or not to be set", setting.variable);
                configuration.problems.push((Reason::KeyUnusable, problem));
                configuration.key_is_missing = true;
            }
        }
        configuration.decide();
        configuration
    }

    /// Leaves the one value of each setting that decides it: the first that is understood.
    fn decide(&mut self) {
        for (key, text, origin) in std::mem::take(&mut self.values).into_iter().rev() {
            let is_decided = self.values.iter().any(|(decided, ..)| *decided == key);
            let Some(setting) = Setting::by_key(key).filter(|_| !is_decided) else { continue };
            let Some(problem) = setting.misunderstood(&text, &label(setting, &origin)) else {
                self.values.push((key, text, origin));
                continue;
            };
            self.problems.push((Reason::BadSetting, problem.clone()));
            if key == "disable" {
                // Who sets it to something strange wants it off rather than on.
                self.values.push((key, "true".into(), origin.clone()));
            }
            let value = Some(text.to_string_lossy().into_owned());
            self.left_aside.push((key, LeftAside { value, origin, problem }));
        }
    }

    /// The options of a store that these settings make.
    pub fn options(&self) -> StoreOptions {
        let given = |variable: &str| {
            let setting = SETTINGS.iter().find(|setting| setting.variable == variable)?;
            let (text, origin) = self.get(setting)?;
            Some(Given { text: text.clone(), label: label(setting, origin) })
        };
        let mut options = StoreOptions::from_settings(given);
        if self.problems.iter().any(|(reason, _)| *reason == Reason::SecureExecution) {
            options.directory = None;
            options.refused = Some(Reason::SecureExecution);
            options.layers.clear();
            options.trace = None;
        }
        if self.key_is_missing {
            options.refused = Some(Reason::KeyUnusable);
        }
        options.complaints.extend(self.problems.iter().cloned());
        options
    }

    /// What would decide a setting and was left aside: values that are not understood, or that are not for a project to
    /// set. What decides instead is the [`value`](Self::value).
    pub fn left_aside(&self, setting: &Setting) -> impl Iterator<Item = &LeftAside> {
        let key = setting.key;
        self.left_aside.iter().filter(move |(of, _)| *of == key).map(|(_, it)| it)
    }

    /// What a setting is set to; `None` when nobody set it to anything that is understood.
    pub fn value(&self, setting: &Setting) -> Option<String> {
        self.get(setting).map(|(text, _)| text.to_string_lossy().into_owned())
    }

    /// Where a setting comes from.
    pub fn origin(&self, setting: &Setting) -> Origin {
        self.get(setting).map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// The user's file, whether or not it is there; `None` without a home directory.
    pub fn user_file(&self) -> Option<&Path> {
        self.user_file.as_deref()
    }

    /// The project's file, if there is one.
    pub fn project_file(&self) -> Option<&Path> {
        self.project_file.as_deref()
    }

    /// What was left aside, and why, in words; values that are not understood among them.
    pub fn problems(&self) -> Vec<String> {
        self.options().complaints.into_iter().map(|(_, words)| words).collect()
    }

    fn get(&self, setting: &Setting) -> Option<(&OsString, &Origin)> {
        let found = self.values.iter().find(|(key, ..)| *key == setting.key);
        found.map(|(_, text, origin)| (text, origin))
    }

    fn read_file(&mut self, path: &Path, origin: impl Fn(&Path) -> Origin) {
        match read_table(path) {
            Ok(Some(table)) => table.iter().for_each(|(key, value)| self.take(key, value, path, &origin)),
            Ok(None) => {}
            Err(Unread { problem, may_name_keys }) => {
                self.complain(path, &problem);
                // A project's file has no say in that.
                self.key_is_missing |= may_name_keys && matches!(origin(path), Origin::User(_));
            }
        }
    }

    fn take(&mut self, key: &str, value: &Value, path: &Path, origin: &dyn Fn(&Path) -> Origin) {
        let Some(setting) = Setting::by_key(key) else {
            let like = Setting::like_key(key);
            let is_key = like.and_then(Setting::by_key).is_some_and(Setting::is_key);
            self.key_is_missing |= is_key && matches!(origin(path), Origin::User(_));
            let meant = like.map(|key| format!(": is `{key}` meant?")).unwrap_or_default();
            return self.complain(path, &format!("there is no setting `{}`{meant}", key.escape_debug()));
        };
        let origin = origin(path);
        if matches!(origin, Origin::Project(_)) && !setting.in_projects {
            let problem = format!("`{key}` is not for projects to set");
            return self.leave_aside(setting, value, path, origin, &problem);
        }
        match text_of(value) {
            Some(text) if setting.is_absolute(&text) => {
                self.values.push((setting.key, text.into(), origin));
            }
            _ => {
                self.leave_aside(setting, value, path, origin, &format!("`{key}` is to be {}", setting.like));
                self.key_is_missing |= setting.is_key();
            }
        }
    }

    fn leave_aside(&mut self, setting: &Setting, value: &Value, path: &Path, origin: Origin, problem: &str) {
        self.complain(path, problem);
        let problem = format!("{}: {problem}", path.display());
        let value = text_of(value);
        self.left_aside.push((setting.key, LeftAside { value, origin, problem }));
    }

    fn complain(&mut self, path: &Path, problem: &str) {
        self.problems.push((Reason::BadSetting, format!("{}: {problem}", path.display())));
    }
}

/// What to call a value in complaints.
fn label(setting: &Setting, origin: &Origin) -> String {
    match origin {
        Origin::User(path) | Origin::Project(path) => format!("{}: {}", path.display(), setting.key),
        Origin::Environment(_) | Origin::Default => setting.variable.to_owned(),
    }
}

/// A value as the environment would have it.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(flag) => Some(flag.to_string()),
        Value::Array(paths) if !paths.is_empty() => {
            let paths = paths.iter().map(|path| path.as_str().filter(|path| !path.contains(':')));
            paths.collect::<Option<Vec<_>>>().map(|paths| paths.join(":"))
        }
        Value::Table(table) => {
            let parts = table.iter().map(|(name, value)| match value {
                Value::String(_) | Value::Integer(_) => Some(format!("{name}={}", text_of(value)?)),
                _ => None,
            });
            parts.collect::<Option<Vec<_>>>().map(|parts| parts.join(","))
        }
        _ => None,
    }
}

/// `config.toml` in the user's directory for configurations.
fn default_user_file() -> Option<PathBuf> {
    Some(base_directory("XDG_CONFIG_HOME", ".config")?.join("objcache").join("config.toml"))
}

/// A directory that the XDG Base Directory Specification gives a variable, and a place below the home directory where that is
/// not set. `HOME` alone tells where this is: the password file would have to be searched.
pub(crate) fn base_directory(variable: &str, below_home: &str) -> Option<PathBuf> {
    // Relative ones are to be ignored.
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    set(variable).or_else(|| Some(set("HOME")?.join(below_home)))
}

/// The nearest project's file, from `directory` upwards.
fn nearest_project_file(directory: &Path) -> Option<PathBuf> {
    directory.ancestors().map(|folder| folder.join(PROJECT_FILE)).find(|path| is_there(path))
}

/// Asked of the system directly: the standard library's first such question in a process is one more, whether it may ask so.
fn is_there(path: &Path) -> bool {
    statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// The content of a file; `None` when there is none.
///
/// # Errors
/// Why it is passed over, in words.
/// A file that cannot be made use of.
struct Unread {
    problem: String,
    /// It may be there that keys are asked for.
    may_name_keys: bool,
}

impl<P: Into<String>> From<P> for Unread {
    fn from(problem: P) -> Self {
        Self { problem: problem.into(), may_name_keys: true }
    }
}

fn read_table(path: &Path) -> Result<Option<Table>, Unread> {
    // Not blocking: a FIFO in place of a file would make us wait for a writer.
    let flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) if path.is_symlink() => return Err("it is a link to nothing".into()),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(io::Error::from(error).to_string().into()),
    };
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    let me = rustix::process::geteuid().as_raw();
    if !metadata.is_file() {
        return Err("it is not a regular file".into());
    } else if metadata.uid() != me && metadata.uid() != 0 {
        return Err("it belongs to another user and is passed over".into());
    } else if parents::is_open_to_others(metadata.mode(), metadata.uid(), metadata.gid(), me) {
        return Err("others may write it, so it is passed over".into());
    }
    let mut text = String::new();
    file.take(LONGEST_FILE + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(format!("it is longer than {LONGEST_FILE} bytes").into());
    }
    // The parser's message goes on for lines and shows the text; its first line says where and what.
    text.parse().map(Some).map_err(|error: toml::de::Error| {
        let line = error
            .span()
            .map_or(1, |span| 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count());
        let may_name_keys = SETTINGS.iter().any(|setting| setting.is_key() && text.contains(setting.key));
        Unread { problem: format!("line {line}: {}", error.message()), may_name_keys }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::store::options::DEFAULT_MAX_SIZE;

    /// A folder with both files, as far as they are given.
    fn configured(user: Option<&str>, project: Option<&str>, variables: &[(&str, &str)]) -> Configuration {
        let place = tempfile::tempdir().expect("a temporary directory");
        let work = place.path().join("project/deep/down");
        std::fs::create_dir_all(&work).expect("made");
        let user_file = place.path().join("config.toml");
        let write = |path: &Path, text: Option<&str>| {
            text.iter().for_each(|text| std::fs::write(path, text).expect("written"))
        };
        write(&user_file, user);
        write(&place.path().join("project").join(PROJECT_FILE), project);
        let variable =
            |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value));
        Configuration::of(&variable, Some(&work), Some(user_file))
    }

    fn origin(configuration: &Configuration, key: &str) -> Origin {
        configuration.origin(Setting::by_key(key).expect("known"))
    }

    #[test]
    fn the_first_that_has_a_setting_decides_it() {
        let user = "strict = true\nread_only = true\nmin_compile_ms = 5\nmax_size = \"20G\"";
        let project = "read_only = false\nmin_compile_ms = 7";
        let configuration = configured(Some(user), Some(project), &[("OBJCACHE_MIN_COMPILE_MS", "9")]);
        assert_eq!(configuration.problems(), [""; 0]);
        let options = configuration.options();
        assert_eq!((options.strict, options.read_only, options.max_size), (true, false, 20 << 30));
        assert_eq!(options.min_compile_time, Duration::from_millis(9));
        assert!(matches!(origin(&configuration, "strict"), Origin::User(_)));
        assert!(matches!(origin(&configuration, "read_only"), Origin::Project(_)));
        assert_eq!(origin(&configuration, "min_compile_ms"), Origin::Environment("OBJCACHE_MIN_COMPILE_MS"));
        assert_eq!(origin(&configuration, "durable"), Origin::Default);
    }

    #[test]
    fn a_key_that_cannot_be_used_leaves_no_store_rather_than_one_that_believes_everybody() {
        for line in ["mac_key = \"key\"", "trusted_keys = 7", "signing_key = \"/no/such/file\""] {
            let options = configured(Some(line), None, &[]).options();
            assert_eq!(options.refused, Some(Reason::KeyUnusable), "{line}");
        }
        assert_eq!(configured(Some("strict = true"), None, &[]).options().refused, None);
    }

    #[test]
    fn a_project_says_neither_where_the_cache_is_nor_what_it_holds() {
        for setting in SETTINGS {
            let value = match setting.like {
                "an absolute path" => "\"/elsewhere\"",
                "absolute paths" => "[\"/a\", \"/b\"]",
                "true or false" => "true",
                "500M or 10G" | "50M" => "\"7M\"",
                "30d or 12h" | "1h or 1d" | "60s" => "\"7d\"",
                "debug=500M,test=1G" => "{ debug = \"7M\" }",
                "auto, none, lz4 or zstd" => "\"zstd\"",
                _ => "7",
            };
            let line = format!("{} = {value}\n", setting.key);
            let project = configured(None, Some(&line), &[]);
            assert_eq!(project.value(setting).is_some(), setting.in_projects, "{line}");
            assert_eq!(project.problems().len(), usize::from(!setting.in_projects), "{line}");
            let user = configured(Some(&line), None, &[]);
            assert!(user.value(setting).is_some(), "{line}");
            // There is no key at that path.
            assert_eq!(user.problems().len(), usize::from(setting.is_key()), "{line}: {:?}", user.problems());
            setting.check(&user.value(setting).expect("set")).expect("a value of it");
        }
        for key in [
            "dir",
            "max_size",
            "max_age",
            "max_entries",
            "namespace_max_size",
            "lock_wait",
            "layers",
            "promote",
            "trace",
        ] {
            assert!(!Setting::by_key(key).expect("known").in_projects, "{key}");
        }
    }

    #[test]
    fn what_is_not_understood_is_left_aside_and_complained_about() {
        for (text, complaint) in [
            ("max_sise = 1", "there is no setting `max_sise`: is `max_size` meant?"),
            ("colour = 1", "there is no setting `colour`"),
            ("max_size = \"lots\"", "max_size=lots (like 500M or 10G)"),
            ("max_size = 1.5", "`max_size` is to be 500M or 10G"),
            ("max_size = [1]", "`max_size` is to be 500M or 10G"),
            ("layers = [\"/a\", \"b\"]", "`layers` is to be absolute paths"),
            ("layers = [\"/a:/b\"]", "`layers` is to be absolute paths"),
            ("dir = \"relative\"", "`dir` is to be an absolute path"),
            ("durable = true\nmax_size = \n", "line 2: "),
            ("strict = 3", "strict=3 (1 or 0)"),
        ] {
            let configuration = configured(Some(text), None, &[]);
            let problems = configuration.problems();
            assert!(problems.len() == 1 && problems[0].contains(complaint), "{text}: {problems:?}");
            assert!(problems[0].contains("config.toml"), "{problems:?}");
            assert_eq!(configuration.options().max_size, DEFAULT_MAX_SIZE);
        }
    }

    #[test]
    fn the_next_decides_where_one_is_not_understood() {
        let user = "max_size = \"1G\"\nmin_compile_ms = 5\nmax_age = \"never\"";
        let project = "min_compile_ms = \"soon\"\nmax_size = \"2G\"";
        let variables =
            [("OBJCACHE_MAX_SIZE", "lots"), ("OBJCACHE_MAX_AGE", "1d"), ("OBJCACHE_DISABLE", "perhaps")];
        let configuration = configured(Some(user), Some(project), &variables);
        let options = configuration.options();
        assert_eq!((options.max_size, options.min_compile_time), (1 << 30, Duration::from_millis(5)));
        assert!(options.disabled, "rather off than on");
        assert!(matches!(origin(&configuration, "max_size"), Origin::User(_)));
        assert!(matches!(origin(&configuration, "min_compile_ms"), Origin::User(_)));
        let left_aside = |key| {
            let found = configuration.left_aside(Setting::by_key(key).expect("known"));
            found.map(|it| (it.value.as_deref().expect("a text"), it.origin.clone())).collect::<Vec<_>>()
        };
        let project_file = configuration.project_file().expect("there").to_owned();
        let of_project = || Origin::Project(project_file.clone());
        assert_eq!(
            left_aside("max_size"),
            [("2G", of_project()), ("lots", Origin::Environment("OBJCACHE_MAX_SIZE")),]
        );
        assert_eq!(left_aside("min_compile_ms"), [("soon", of_project())]);
        assert_eq!(left_aside("disable"), [("perhaps", Origin::Environment("OBJCACHE_DISABLE"))]);
        assert_eq!(left_aside("max_age"), [], "nobody looks at what another decides");
        assert_eq!(configuration.problems().len(), 4, "each is told once: {:?}", configuration.problems());
    }

    /// Rather no cache than one that believes everybody, because of a slip of the pen.
    #[test]
    fn where_keys_may_be_asked_for_and_are_not_understood_there_is_no_cache() {
        let refused = |user: &str| configured(Some(user), None, &[]).options().refused;
        for text in [
            "trusted_keys = \"/k\"\nmax_size =",
            "mac_key = \"/k\"\nmac_key = \"/k\"",
            "trusted_key = \"/k\"",
            "signing_keys = \"/k\"",
            "[trusted_keys]",
            "trusted_keys = \"relative\"",
        ] {
            assert_eq!(refused(text), Some(Reason::KeyUnusable), "{text}");
        }
        for variable in ["OBJCACHE_MAC_KEY", "OBJCACHE_TRUSTED_KEYS", "OBJCACHE_SIGNING_KEY"] {
            let configuration = configured(None, None, &[(variable, "")]);
            assert_eq!(configuration.options().refused, Some(Reason::KeyUnusable), "{variable}");
            assert!(configuration.problems()[0].contains(variable), "{:?}", configuration.problems());
        }
        let empty = configured(
            Some("max_size = \"1G\""),
            None,
            &[("OBJCACHE_MAX_SIZE", ""), ("OBJCACHE_DISABLE", "")],
        );
        assert_eq!((empty.options().max_size, empty.options().disabled), (1 << 30, false), "as if not set");
        for text in
            ["max_size =", "durable = true\ndurable = true", "max_sise = 1", "[durable]", "colour = 1"]
        {
            assert_eq!(refused(text), None, "{text}");
        }
        let projects = configured(None, Some("trusted_keys = \"/k\"\nmax_size ="), &[]);
        assert_eq!(projects.options().refused, None, "no project decides whom to believe");

        let place = tempfile::tempdir().expect("a temporary directory");
        let path = place.path().join("config.toml");
        std::os::unix::fs::symlink("nowhere", &path).expect("made");
        let configuration = Configuration::of(&|_| None, None, Some(path));
        assert!(configuration.problems()[0].contains("a link to nothing"));
        assert_eq!(configuration.options().refused, Some(Reason::KeyUnusable));
    }

    #[test]
    fn files_that_others_may_write_or_that_are_none_are_passed_over() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let path = place.path().join("config.toml");
        let problems = || Configuration::of(&|_| None, None, Some(path.clone())).problems();
        assert_eq!(problems(), [""; 0], "none there");
        std::fs::write(&path, "strict = true").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("set");
        assert!(problems()[0].contains("others may write it"));
        std::fs::write(&path, "#".repeat(100_000)).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        assert!(problems()[0].contains("longer than"));
        std::fs::remove_file(&path).expect("removed");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).expect("made");
        assert!(problems()[0].contains("not a regular file"));
    }

    #[test]
    fn defaults_are_those_of_a_store() {
        let defaults = StoreOptions::at("/d");
        for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
            setting.check(setting.default).expect("a value of it");
        }
        let default = |key| Setting::by_key(key).expect("known").default;
        assert_eq!(options::parse_size(default("max_size")), Some(defaults.max_size));
        assert_eq!(options::parse_span(default("lock_wait")), Some(defaults.lock_wait));
        assert_eq!(defaults.min_compile_time.as_millis().to_string(), default("min_compile_ms"));
        assert!(!defaults.durable && !defaults.read_only && !defaults.disabled && !defaults.strict);
    }

    /// A variable that only the environment can set would be one that nobody finds.
    #[test]
    fn every_variable_has_a_setting() {
        let source = include_str!("options.rs");
        let code = source.split("mod tests").next().expect("code");
        let mut named = 0;
        for rest in code.split("\"OBJCACHE_").skip(1) {
            let name = format!("OBJCACHE_{}", rest.split('"').next().expect("a name"));
            assert!(SETTINGS.iter().any(|setting| setting.variable == name), "{name}");
            named += 1;
        }
        assert!(named >= SETTINGS.len(), "the text was not understood: {named}");
    }
}
