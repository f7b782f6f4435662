//! `config`: settings, where each comes from, and the files that keep them.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use objcache::cache::{Configuration, LeftAside, Origin, PROJECT_FILE, SETTINGS, SMALLEST_MAX_SIZE, Setting};
use serde::Serialize;
use toml_edit::{DocumentMut, Item, Value};

use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::files;
use crate::output::table::{Column, table};
use crate::output::{Report, Text};
use crate::units;

/// Show and change settings
///
/// The first of these that has a setting decides it: an option of the command line, the environment, the project's
/// objcache.toml (the nearest, from the working directory upwards), the user's file
/// ($XDG_CONFIG_HOME/objcache/config.toml), the default. A project may set only what concerns its own compilations:
/// where the cache is and what it may hold is its user's to say.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the value of a setting
    Get {
        /// Its name, as `config list` has it
        #[arg(value_name = "KEY")]
        key: String,
    },
    /// Write a setting into the user's file, or the project's
    Set {
        /// Its name, as `config list` has it
        #[arg(value_name = "KEY")]
        key: String,
        /// Its value: sizes like 500M, times like 30d, true or false
        #[arg(value_name = "VALUE")]
        value: String,
        /// Into the project's file: the nearest objcache.toml, else a new one here
        #[arg(long)]
        project: bool,
    },
    /// Take a setting out of the user's file, or the project's
    Unset {
        /// Its name, as `config list` has it
        #[arg(value_name = "KEY")]
        key: String,
        /// Out of the project's file
        #[arg(long)]
        project: bool,
    },
    /// List all settings
    List {
        /// Say where each comes from
        #[arg(long)]
        origin: bool,
    },
}

/// An edit takes a millisecond: who has the folder locked for longer does not edit.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let configuration = Configuration::load();
    match &options.action {
        Action::Get { key } => {
            let setting = known(key)?;
            let fields = SettingFields::of(setting, &configuration, context);
            context.output.report(&fields)?;
            for problem in
                fields.left_aside.iter().map(|it| fields.instead_of(it)).chain(fields.below_the_least())
            {
                tracing::warn!("{problem}");
            }
        }
        Action::List { origin } => {
            let settings: Vec<_> =
                SETTINGS.iter().map(|it| SettingFields::of(it, &configuration, context)).collect();
            let mut problems = configuration.problems();
            problems.extend(settings.iter().filter_map(SettingFields::below_the_least));
            let file = |path: Option<&Path>| path.map(|path| path.display().to_string());
            context.output.report(&ListReport {
                settings,
                user_file: file(configuration.user_file()),
                project_file: file(configuration.project_file()),
                problems: problems.clone(),
                with_origin: *origin,
            })?;
            for problem in problems {
                tracing::warn!("{problem}");
            }
        }
        Action::Set { key, value, project } => {
            let setting = known(key)?;
            setting.check(value).map_err(|problem| Failure::usage("bad_value", problem))?;
            edit(setting, Some(value), *project, &configuration, context)?;
        }
        Action::Unset { key, project } => edit(known(key)?, None, *project, &configuration, context)?,
    }
    Ok(Status::Fine)
}

fn known(key: &str) -> Result<&'static Setting, Failure> {
    Setting::by_key(key).ok_or_else(|| {
        let failure = Failure::usage("unknown_setting", format!("there is no setting `{key}`"));
        match Setting::like_key(key) {
            Some(meant) => failure.hint(format!("is `{meant}` meant?")),
            None => failure.hint("objcache config list names all"),
        }
    })
}

/// Changes one line of a file and leaves all others, comments included, as they are.
fn edit(
    setting: &'static Setting,
    value: Option<&str>,
    project: bool,
    configuration: &Configuration,
    context: &Context,
) -> Result<(), Failure> {
    if project && !setting.in_projects {
        let message = format!("`{}` is not for projects to set, but for their users", setting.key);
        return Err(Failure::usage("not_for_projects", message).hint("leave out --project"));
    }
    let path = file_to_edit(project, configuration)?;
    let _alone = lock_folder(&path)?;
    let (text, permissions) = read(&path)?;
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        Failure::finding("bad_config", format!("{}: line {line}: {}", path.display(), error.message()))
    })?;
    match value {
        Some(value) => set(&mut document, setting, value),
        None => drop(document.remove(setting.key)),
    }
    let text = document.to_string();
    if text.len() as u64 > Configuration::LONGEST_FILE {
        let most = Configuration::LONGEST_FILE;
        let message = format!("{} would be longer than {most} bytes, and be passed over", path.display());
        return Err(Failure::finding("bad_config", message).hint("take out what is not needed"));
    }
    files::replace(&path, text.as_bytes(), permissions).map_err(|error| Failure::io(&path, &error))?;
    let (origin, is_project) = (configuration.origin(setting), project);
    let overridden_by = match origin {
        Origin::Environment(variable) => Some(variable.to_owned()),
        Origin::Project(path) if !is_project => Some(path.display().to_string()),
        _ => None,
    };
    context.output.report(&EditReport {
        key: setting.key,
        value: value.map(str::to_owned),
        file: path.display().to_string(),
        overridden_by,
    })
}

/// The file as it is, and its permissions when it is there: keys may be named in it.
fn read(path: &Path) -> Result<(String, Option<Permissions>), Failure> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((String::new(), None)),
        metadata => metadata.map_err(|error| Failure::io(path, &error))?,
    };
    if !metadata.is_file() {
        // To read a FIFO would be to wait for whoever writes into it.
        let message = format!("{} is not a regular file", path.display());
        return Err(Failure::finding("bad_config", message));
    }
    let text = fs::read_to_string(path).map_err(|error| Failure::io(path, &error))?;
    Ok((text, Some(metadata.permissions())))
}

/// Keeps others from editing the file until the lock is dropped: each would write what it read, and lose what another wrote
/// meanwhile. The folder is locked, because the file is replaced. Where there are no locks one goes on without.
fn lock_folder(path: &Path) -> Result<Option<File>, Failure> {
    let Some(folder) = path.parent() else { return Ok(None) };
    fs::create_dir_all(folder).map_err(|error| Failure::io(folder, &error))?;
    let Ok(lock) = File::open(folder) else { return Ok(None) };
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(Some(lock)),
            Err(TryLockError::Error(_)) => return Ok(None),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                let message = format!("another process keeps the folder {} locked", folder.display());
                return Err(Failure::finding("config_busy", message)
                    .hint("see which does (fuser), and whether it hangs"));
            }
        }
    }
}

/// A value keeps the comment that stands behind it.
fn set(document: &mut DocumentMut, setting: &Setting, text: &str) {
    let mut value = match (text.parse::<bool>(), text.parse::<i64>()) {
        (Ok(flag), _) => Value::from(flag),
        (_, Ok(number)) => Value::from(number),
        _ => Value::from(text),
    };
    if let Some(old) = document.get(setting.key).and_then(Item::as_value) {
        *value.decor_mut() = old.decor().clone();
    }
    document[setting.key] = Item::Value(value);
}

fn file_to_edit(project: bool, configuration: &Configuration) -> Result<PathBuf, Failure> {
    let path = match project {
        true => configuration.project_file().unwrap_or(PROJECT_FILE.as_ref()),
        false => configuration.user_file().ok_or_else(|| {
            let failure =
                Failure::finding("no_home", "there is no home directory to keep a configuration in");
            failure.hint("set HOME or XDG_CONFIG_HOME")
        })?,
    };
    std::path::absolute(path).map_err(|error| Failure::io(path, &error))
}

/// One setting, for people and programs.
#[derive(Serialize)]
struct SettingFields {
    key: &'static str,
    value: Option<String>,
    origin: &'static str,
    source: Option<String>,
    variable: &'static str,
    in_projects: bool,
    about: &'static str,
    left_aside: Vec<LeftAsideFields>,
}

/// A value that does not decide a setting.
#[derive(Serialize)]
struct LeftAsideFields {
    value: Option<String>,
    origin: &'static str,
    source: Option<String>,
    problem: String,
}

impl SettingFields {
    fn of(setting: &'static Setting, configuration: &Configuration, context: &Context) -> Self {
        let Setting { key, variable, in_projects, about, default, .. } = *setting;
        let file = |path: &Path| Some(path.display().to_string());
        let (origin, source) = origin_and_source(&configuration.origin(setting));
        let left_aside = configuration.left_aside(setting).map(LeftAsideFields::from).collect();
        let value = configuration.value(setting).or((!default.is_empty()).then(|| default.to_owned()));
        let fields = Self { key, value, origin, source, variable, in_projects, about, left_aside };
        match (key, context.directory_option()) {
            ("dir", Some(given)) => {
                Self { value: file(given), origin: "flag", source: Some("--dir".to_owned()), ..fields }
            }
            ("dir", None) if fields.origin == "default" => {
                Self { value: configuration.options().directory.as_deref().and_then(file), ..fields }
            }
            _ => fields,
        }
    }
}

fn origin_and_source(origin: &Origin) -> (&'static str, Option<String>) {
    let file = |path: &Path| Some(path.display().to_string());
    match origin {
        Origin::Default => ("default", None),
        Origin::User(path) => ("user", file(path)),
        Origin::Project(path) => ("project", file(path)),
        Origin::Environment(variable) => ("environment", Some((*variable).to_owned())),
    }
}

impl From<&LeftAside> for LeftAsideFields {
    fn from(LeftAside { value, origin, problem }: &LeftAside) -> Self {
        let (origin, source) = origin_and_source(origin);
        Self { value: value.clone(), origin, source, problem: problem.clone() }
    }
}

impl SettingFields {
    /// What is said of a value that does not decide.
    fn instead_of(&self, left_aside: &LeftAsideFields) -> String {
        let value = self.value.as_deref().unwrap_or("no value");
        let from = self.source.as_ref().map(|source| format!(": {source}")).unwrap_or_default();
        format!("{} is left aside; what applies is {value} ({}{from})", left_aside.problem, self.origin)
    }

    /// What is said of a size that the cache does not go by.
    fn below_the_least(&self) -> Option<String> {
        let value = self.value.as_deref().filter(|_| self.key == "max_size")?;
        let is_below = units::parse_size(value).is_ok_and(|size| size < SMALLEST_MAX_SIZE);
        let least = SMALLEST_MAX_SIZE >> 20;
        is_below.then(|| format!("max_size={value}: {least} MiB is the least, and what the cache goes by"))
    }
}

impl Report for SettingFields {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        match &self.value {
            Some(value) => text.line(value),
            None => Ok(()),
        }
    }
}

#[derive(Serialize)]
struct ListReport {
    settings: Vec<SettingFields>,
    user_file: Option<String>,
    project_file: Option<String>,
    problems: Vec<String>,
    #[serde(skip)]
    with_origin: bool,
}

impl Report for ListReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        let last = if self.with_origin { "ORIGIN" } else { "ABOUT" };
        let columns = [Column::Left("SETTING"), Column::Left("VALUE"), Column::Left(last)];
        let rows = self.settings.iter().map(|setting| {
            let last = match (self.with_origin, &setting.source) {
                (false, _) => setting.about.to_owned(),
                (true, None) => setting.origin.to_owned(),
                (true, Some(source)) => format!("{}: {source}", setting.origin),
            };
            vec![setting.key.to_owned(), setting.value.clone().unwrap_or_else(|| "-".to_owned()), last]
        });
        text.laid_out(&table(&columns, rows, text.styled))
    }
}

#[derive(Serialize)]
struct EditReport {
    key: &'static str,
    value: Option<String>,
    file: String,
    overridden_by: Option<String>,
}

impl Report for EditReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        match &self.value {
            Some(value) => text.line(format!("{} = {value} in {}", self.key, self.file))?,
            None => text.line(format!("{} is not set in {} any more", self.key, self.file))?,
        }
        match &self.overridden_by {
            Some(other) => text.line(format!("but {other} sets it, and decides")),
            None => Ok(()),
        }
    }
}
