//! Which compiler a program is, and where to find one.

use std::path::{Path, PathBuf};

use super::run::{Environment, Run};
use crate::error::{CompileError, Stage};

/// Compilers whose command line we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Family {
    Clang,
    Gcc,
    Llc,
}

impl Family {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Clang => "clang",
            Self::Gcc => "gcc",
            Self::Llc => "llc",
        }
    }

    fn of(version_text: &str) -> Option<Self> {
        if version_text.contains("clang version") {
            Some(Self::Clang)
        } else if version_text.contains("LLVM version") && version_text.contains("Registered Targets") {
            Some(Self::Llc)
        } else if version_text.contains("Free Software Foundation") {
            Some(Self::Gcc)
        } else {
            None
        }
    }
}

/// What a program says about itself.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) family: Family,
    /// Its version text: one line, or for `llc` two.
    pub(super) version: String,
    /// The triple it compiles for by default.
    pub(super) triple: String,
}

impl Program {
    /// Asks the program at `path`.
    pub(super) fn ask(path: PathBuf, temporary: &Path) -> Result<Self, CompileError> {
        let none = Environment::new();
        let run = Run {
            program: &path,
            environment: &none,
            temporary,
            stage: Stage::Identify,
            what: path.display().to_string(),
        };
        let ask = |argument: &str| {
            let output = run.output(&[argument.to_owned()], None)?;
            Ok::<_, CompileError>(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let text = ask("--version")?;
        let family = Family::of(&text).ok_or_else(|| {
            run.error(format!("it is neither clang, gcc nor llc; it says: {}", first_line(&text)))
        })?;
        let triple = match family {
            Family::Clang => value_of(&text, "Target:"),
            Family::Llc => value_of(&text, "Default target:"),
            Family::Gcc => Some(ask("-dumpmachine")?.trim().to_owned()),
        };
        let triple = triple
            .filter(|triple| !triple.is_empty())
            .ok_or_else(|| run.error("it does not tell its target".to_owned()))?;
        let version = match family {
            Family::Llc => {
                text.lines().map(str::trim).find(|line| line.contains("LLVM version")).unwrap_or_default()
            }
            Family::Clang | Family::Gcc => first_line(&text),
        };
        Ok(Self { version: version.to_owned(), family, triple, path })
    }
}

fn first_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("nothing")
}

fn value_of(text: &str, label: &str) -> Option<String> {
    text.lines().find_map(|line| line.trim().strip_prefix(label)).map(|value| value.trim().to_owned())
}

/// Where `name` is: a path as it stands, a bare name on `PATH`.
pub(super) fn locate(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return is_executable(name).then(|| name.to_owned());
    }
    search_path().into_iter().map(|folder| folder.join(name)).find(|path| is_executable(path))
}

/// The program `stem`, or of its versions `stem-NN` on `PATH` the newest.
pub(super) fn newest(stem: &str) -> Option<PathBuf> {
    locate(Path::new(stem)).or_else(|| newest_version(stem, &search_path()))
}

fn newest_version(stem: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let version = |path: &Path| -> Option<u32> {
        path.file_name()?.to_str()?.strip_prefix(stem)?.strip_prefix('-')?.parse().ok()
    };
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let versions = entries.map(|entry| entry.path()).filter_map(|path| Some((version(&path)?, path)));
    versions.filter(|(_, path)| is_executable(path)).max_by_key(|(version, _)| *version).map(|(_, path)| path)
}

fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect()
}

fn is_executable(path: &Path) -> bool {
    let Ok(metadata) = std::fs::metadata(path) else { return false };
    #[cfg(unix)]
    let executable = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0;
    #[cfg(not(unix))]
    let executable = true;
    metadata.is_file() && executable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_by_their_version_text() {
        let of = Family::of;
        assert_eq!(of("Debian clang version 22.1.8\nTarget: x"), Some(Family::Clang));
        assert_eq!(of("Apple clang version 17.0.0"), Some(Family::Clang));
        assert_eq!(
            of("cc (Debian 12.2.0) 12.2.0\nCopyright (C) 2022 Free Software Foundation"),
            Some(Family::Gcc)
        );
        assert_eq!(of("Debian LLVM version 22.1.8\n  Registered Targets:\n"), Some(Family::Llc));
        assert_eq!(of("tcc version 0.9.27"), None);
    }

    #[cfg(unix)]
    #[test]
    fn the_newest_version_is_found_by_number() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        for (name, mode) in
            [("cx-9", 0o755), ("cx-22", 0o755), ("cx-23", 0o644), ("cx-tool", 0o755), ("cx-", 0o755)]
        {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        assert_eq!(newest_version("cx", &[folder.path().to_owned()]), Some(folder.path().join("cx-22")));
        assert_eq!(newest_version("cy", &[folder.path().to_owned()]), None);
    }
}
