//! Keys, and the files they are kept in: one line of text each, that says what it is.
//!
//! ```text
//! mac:…               secret, 64 hexadecimal digits: a key for MACs
//! ed25519-secret:…    secret, 64 hexadecimal digits: signs
//! ed25519:…           public, 64 hexadecimal digits: tells who signed
//! ```
//! Lines may be empty or begin with `#`. A file with a secret must belong to its reader (or to root) and be
//! closed to all others; a list of public keys must not be writable by others.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::str::FromStr;

use rustix::fs::OFlags;

/// The longest key file that is read, in bytes.
const FILE_LIMIT: u64 = 256 * 1024;

const MAC: &str = "mac:";
const SECRET: &str = "ed25519-secret:";
const PUBLIC: &str = "ed25519:";

/// A secret that all share who write and read the same entries.
#[derive(Clone)]
pub struct MacKey([u8; 32]);

/// A secret that signs entries.
#[derive(Clone)]
pub struct SigningKey(pub(super) ed25519_dalek::SigningKey);

/// Tells who signed. Shown and parsed as `ed25519:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Others could have read the secret, or have put their own key in its place.
    #[error("{0}")]
    Unsafe(&'static str),
    /// It is not a key of the kind that is wanted.
    #[error("{0}")]
    Malformed(&'static str),
}

impl MacKey {
    /// This key.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A key nobody else has.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self(random()?))
    }

    /// The key in a file.
    ///
    /// # Errors
    /// When it cannot be read, is open to others, or holds no such key.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        only_key(&read_file(path.as_ref(), Secrecy::Secret)?, MAC).map(Self)
    }

    /// The line that [`read`](Self::read) takes. It is the secret.
    pub fn to_secret_text(&self) -> String {
        line(MAC, &self.0)
    }

    pub(crate) fn mac(&self, digest: &[u8; 32]) -> blake3::Hash {
        blake3::keyed_hash(&self.0, digest)
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey")
    }
}

impl SigningKey {
    /// This key.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(&bytes))
    }

    /// A key nobody else has.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self::from_bytes(random()?))
    }

    /// The key in a file.
    ///
    /// # Errors
    /// When it cannot be read, is open to others, or holds no such key.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        only_key(&read_file(path.as_ref(), Secrecy::Secret)?, SECRET).map(Self::from_bytes)
    }

    /// The line that [`read`](Self::read) takes. It is the secret.
    pub fn to_secret_text(&self) -> String {
        line(SECRET, self.0.as_bytes())
    }

    /// What others need to believe what this key signed.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey of {}", self.public())
    }
}

impl PublicKey {
    /// Its bytes, as ed25519 has them.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// # Errors
    /// When no secret belongs to it, or one that everybody knows.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        match ed25519_dalek::VerifyingKey::from_bytes(&bytes) {
            Ok(key) if !key.is_weak() => Ok(Self(bytes)),
            _ => Err(KeyError::Malformed("it is not an ed25519 public key")),
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&line(PUBLIC, &self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        key(text, PUBLIC).and_then(Self::from_bytes)
    }
}

/// The public keys in a file, one a line. Nothing may follow a key but blanks and a remark.
///
/// # Errors
/// When it cannot be read, others may write it, a line is not a key, or it has none: who trusts nobody is not to believe
/// everybody.
pub fn read_trusted_keys(path: impl AsRef<Path>) -> Result<Vec<PublicKey>, KeyError> {
    let text = read_file(path.as_ref(), Secrecy::Public)?;
    let keys = lines(&text).map(|line| line.split_whitespace().next().unwrap_or_default().parse());
    match keys.collect::<Result<Vec<_>, _>>() {
        Ok(keys) if keys.is_empty() => Err(KeyError::Malformed("there is no key in it")),
        keys => keys,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrecy {
    Secret,
    Public,
}

fn read_file(path: &Path, secrecy: Secrecy) -> Result<String, KeyError> {
    // A link is followed, since its owner may keep keys elsewhere; what counts is the file that was opened. Not
    // blocking, because it might be a FIFO.
    let flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = std::fs::File::options().read(true).custom_flags(flags.bits() as i32).open(path)?;
    let metadata = file.metadata()?;
    let shared = match secrecy {
        Secrecy::Secret => 0o077,
        Secrecy::Public => 0o022,
    };
    if !metadata.is_file() {
        return Err(KeyError::Unsafe("it is not a regular file"));
    }
    if ![0, rustix::process::geteuid().as_raw()].contains(&metadata.uid()) {
        return Err(KeyError::Unsafe("it belongs to another user"));
    }
    if metadata.mode() & shared != 0 {
        return Err(match secrecy {
            Secrecy::Secret => KeyError::Unsafe("it is open to others: its mode should be 0600"),
            Secrecy::Public => KeyError::Unsafe("others may write it: its mode should be 0644"),
        });
    }
    let mut text = String::new();
    file.take(FILE_LIMIT + 1).read_to_string(&mut text)?;
    match text.len() as u64 > FILE_LIMIT {
        true => Err(KeyError::Malformed("it is too large for a key file")),
        false => Ok(text),
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn only_key(text: &str, kind: &str) -> Result<[u8; 32], KeyError> {
    let mut lines = lines(text);
    match (lines.next(), lines.next()) {
        (Some(line), None) => key(line, kind),
        _ => Err(KeyError::Malformed("it should hold one key")),
    }
}

fn key(line: &str, kind: &str) -> Result<[u8; 32], KeyError> {
    let wanted = match kind {
        MAC => "it should be `mac:` and 64 hexadecimal digits",
        SECRET => "it should be `ed25519-secret:` and 64 hexadecimal digits",
        _ => "it should be `ed25519:` and 64 hexadecimal digits",
    };
    let digits = line.strip_prefix(kind).ok_or(KeyError::Malformed(wanted))?;
    let hash = blake3::Hash::from_hex(digits).map_err(|_| KeyError::Malformed(wanted))?;
    Ok(*hash.as_bytes())
}

fn line(kind: &str, bytes: &[u8; 32]) -> String {
    format!("{kind}{}", blake3::Hash::from_bytes(*bytes).to_hex())
}

fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let place = tempfile::tempdir().expect("a temporary directory");
        let path = place.path().join("key");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("ours");
        (place, path)
    }

    #[test]
    fn keys_come_back_from_their_files() {
        let mac = MacKey::generate().expect("random");
        let (_place, path) = file(&mac.to_secret_text(), 0o600);
        assert_eq!(MacKey::read(path).expect("read").0, mac.0);
        let signing = SigningKey::generate().expect("random");
        let (_place, path) = file(&format!("# mine\n\n{}\n", signing.to_secret_text()), 0o400);
        assert_eq!(SigningKey::read(path).expect("read").public(), signing.public());
        let other = SigningKey::generate().expect("random").public();
        assert_ne!(other, signing.public());
        let (_place, path) = file(&format!("{} CI\n# old\n{other}\n", signing.public()), 0o644);
        assert_eq!(read_trusted_keys(path).expect("read"), [signing.public(), other]);
        for text in ["", "# nobody\n\n"] {
            let (_place, path) = file(text, 0o644);
            assert!(matches!(read_trusted_keys(path), Err(KeyError::Malformed(_))));
        }
    }

    #[test]
    fn files_that_others_can_get_at_are_refused() {
        let text = MacKey::from_bytes([7; 32]).to_secret_text();
        for mode in [0o640, 0o604, 0o622, 0o666, 0o610] {
            let (_place, path) = file(&text, mode);
            assert!(matches!(MacKey::read(path), Err(KeyError::Unsafe(_))), "{mode:o}");
        }
        let public = SigningKey::from_bytes([7; 32]).public().to_string();
        for mode in [0o664, 0o646] {
            let (_place, path) = file(&public, mode);
            assert!(matches!(read_trusted_keys(path), Err(KeyError::Unsafe(_))), "{mode:o}");
        }
        let (place, _path) = file("", 0o600);
        assert!(matches!(MacKey::read(place.path()), Err(KeyError::Unsafe(_))));
        assert!(matches!(MacKey::read(place.path().join("none")), Err(KeyError::Io(_))));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let mac = MacKey::from_bytes([7; 32]).to_secret_text();
        let public = SigningKey::from_bytes([7; 32]).public().to_string();
        for text in ["", "mac:", &mac[1..], &mac[..mac.len() - 1], &public, &format!("{mac}\n{mac}")] {
            let (_place, path) = file(text, 0o600);
            assert!(matches!(MacKey::read(path), Err(KeyError::Malformed(_))), "{text}");
        }
        let long = "#".repeat(FILE_LIMIT as usize + 1);
        let (_place, path) = file(&long, 0o600);
        assert!(matches!(MacKey::read(path), Err(KeyError::Malformed(_))));
        // The neutral element: it "signs" everything.
        let weak = format!("ed25519:01{}", "00".repeat(31));
        assert!(weak.parse::<PublicKey>().is_err());
        assert!("ed25519:".parse::<PublicKey>().is_err());
    }
}
