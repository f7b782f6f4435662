//! What can go wrong with a cache, as one closed set of [`Reason`]s, and the error that carries one.
//!
//! No state of a cache may change a program's result. So a `Reason` is mostly a thing to count and to warn of
//! once; it becomes a [`CacheError`] only in `strict` mode and in administration.

use std::error::Error;
use std::fmt;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $words:literal;)*) => {
        /// Why a cache does less than it could. A closed set: each has a counter and is warned of once.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)* }

        impl Reason {
            /// All of them, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// A stable name in snake case, for machines.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            const fn words(self) -> &'static str {
                match self { $(Self::$name => $words,)* }
            }
        }
    };
}

// Their numbers are written to disk: new ones go to the end.
reasons! {
    /// The user switched the cache off.
    Disabled = "disabled", "the cache is switched off";
    /// There is no directory to keep it in: no setting, no `XDG_CACHE_HOME`, no `HOME`.
    NoHome = "no_home", "there is no home directory to keep a cache in";
    /// The process runs with another user's rights (set-user-ID); its environment is not to be trusted.
    SecureExecution = "secure_execution", "the process is set-user-ID";
    /// A setting could not be understood and was left aside.
    BadSetting = "bad_setting", "a setting is not understood";
    /// The path leads to something that is not a directory.
    NotADirectory = "not_a_directory", "it is not a directory";
    /// The directory belongs to another user.
    ForeignOwner = "foreign_owner", "it belongs to another user";
    /// Others may write into the directory.
    InsecureMode = "insecure_mode", "others may write into it";
    /// A later release wrote it.
    FutureFormat = "future_format", "it has the format of a later release";
    /// It cannot be written; entries are still read.
    ReadOnly = "read_only", "it cannot be written";
    /// The disk or the quota is full.
    DiskFull = "disk_full", "the disk or the quota is full";
    /// The process or the system has no file descriptor or memory left.
    OutOfResources = "out_of_resources", "file descriptors or memory are used up";
    /// Any other error of the operating system.
    Io = "io", "input or output failed";
    /// The directory was removed meanwhile.
    DirectoryGone = "directory_gone", "the directory is gone";
    /// Three I/O errors in a row: the cache is off for this process.
    CircuitBreaker = "circuit_breaker", "too many I/O errors in a row, switched off for this process";
    /// An entry is shorter than its lengths say, or longer.
    EntryLength = "entry_length", "the entry's length is wrong";
    /// An entry does not end like an entry.
    EntryMagic = "entry_magic", "it is not an entry";
    /// An entry has a format or codec that this release does not know.
    EntryVersion = "entry_version", "the entry has a format of another release";
    /// A valid entry of another signature lies under this one's name.
    EntrySignature = "entry_signature", "the entry belongs to another signature";
    /// An entry's bytes do not match its digest.
    EntryDigest = "entry_digest", "the entry's digest does not match";
    /// Not a regular file lies where an entry should.
    EntryNotAFile = "entry_not_a_file", "it is not a regular file";
    /// An entry belongs to another user.
    EntryForeignOwner = "entry_foreign_owner", "the entry belongs to another user";
    /// An object, or what is kept beside it, is above the limit.
    TooLarge = "too_large", "it is too large";
    /// The catalogue could not be opened and was started afresh; statistics are lost, objects are not.
    CatalogueRebuilt = "catalogue_rebuilt", "the catalogue was damaged and is rebuilt";
    /// Nobody could use the catalogue within the time allowed.
    CatalogueBusy = "catalogue_busy", "the catalogue is in use";
    /// Another compiled the same for longer than we wait.
    LockTimeout = "lock_timeout", "waiting for another compilation of the same took too long";
    /// The file system has no locks.
    LocksUnsupported = "locks_unsupported", "the file system has no locks";
    /// Another process has it open, and it takes only one.
    InUse = "in_use", "another process uses it";
    /// A cache implemented elsewhere failed.
    Other = "other", "the cache failed";
    /// There is no such directory, and it cannot be made (or must not be, in a cache that is only read).
    NoDirectory = "no_directory", "there is no such directory, and it cannot be made";
    /// The user opened it for reading only.
    OpenedReadOnly = "opened_read_only", "it is opened for reading only";
    /// A pack is cut short, changed, or none at all.
    PackDamaged = "pack_damaged", "it is damaged, or no pack";
    /// A read-only layer is missing, or not safe to use.
    LayerUnusable = "layer_unusable", "it is left out";
    /// An entry in a read-only layer is damaged. It is not served, and stays.
    LayerDamaged = "layer_damaged", "it is damaged there";
    /// A trace is as long as it may get, or cannot be written.
    TraceStopped = "trace_stopped", "the trace goes no further";
    /// Processes that ran an entry's code died, again and again; it is compiled afresh.
    CrashLoop = "crash_loop", "processes that ran it died, again and again";
    /// The store was last tidied in the future: the clock has been set back since, or was wrong then.
    ClockSetBack = "clock_set_back", "it was tidied in the future: the clock has been set back";
    /// An object needs CPU features that this host lacks. The entry stays: it is good elsewhere.
    CpuFeatures = "cpu_features", "the object needs CPU features that this host lacks";
    /// An object does not decompress to what its entry says.
    EntryCodec = "entry_codec", "the object does not decompress to what the entry says";
    /// Entries have to be vouched for, and nobody vouches for this one. It stays: others may believe it.
    Unsigned = "unsigned", "nobody vouches for the entry";
    /// An entry's MAC is by another key. It stays: others may believe it.
    EntryMac = "mac", "the entry's MAC is by another key";
    /// An entry is signed, but by nobody who is trusted. It stays: others may believe it.
    Untrusted = "untrusted", "the entry is signed by nobody who is trusted";
    /// A signature on an entry is false. It stays, and is replaced by the next offer.
    EntrySeal = "entry_seal", "a signature on the entry is false";
    /// An entry has another name, by which somebody could change it.
    EntryLinked = "entry_linked", "the entry has a second name (a hard link)";
    /// Others may write into an entry.
    EntryInsecureMode = "entry_insecure_mode", "others may write into the entry";
    /// A directory above belongs to somebody else, or others may write into it: they can put another in its place.
    InsecureParent = "insecure_parent", "others could put another directory in its place";
    /// A key that was asked for cannot be used: rather no cache than one that believes everybody.
    KeyUnusable = "key_unusable", "a key cannot be used";
    /// A process that has the journal locked is stopped, or hangs: nobody can tell whether there is room.
    JournalStuck = "journal_stuck", "not taken: a process that has the journal locked does not go on";
    /// The directory holds other things, and is no store: what lies under names that a store uses would be lost.
    NotAStore = "not_a_store", "it holds other things, and is no objcache store";
    /// There is no room for an entry, and none to be made. An error in strict mode; else the offer is not taken, and
    /// counted as one there was no room for.
    NoRoom = "no_room", "not taken: there is no room for it, and none to be made";
    /// A sound entry holds an object that does not load. An error in strict mode; else it is compiled afresh.
    DoesNotLoad = "does_not_load", "its object does not load";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

impl Reason {
    /// Whether an entry that is refused for it is sound, and good for others: it stays where it is.
    pub(crate) fn is_ours_alone(self) -> bool {
        matches!(
            self,
            Self::CpuFeatures
                | Self::Unsigned
                | Self::EntryMac
                | Self::Untrusted
                | Self::EntrySeal
                // No memory to decompress it into.
                | Self::OutOfResources
        )
    }

    /// Whether an entry that is refused for it is sound, and only vouched for by nobody who is believed.
    pub const fn is_of_trust(self) -> bool {
        matches!(self, Self::Unsigned | Self::EntryMac | Self::Untrusted)
    }

    /// The reason that stands for an error of the operating system.
    pub(crate) fn of(error: &std::io::Error) -> Self {
        use rustix::io::Errno;
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Self::DiskFull,
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Self::OutOfResources,
            Some(Errno::ROFS | Errno::ACCESS | Errno::PERM) => Self::ReadOnly,
            Some(Errno::NOTDIR) => Self::NotADirectory,
            _ => Self::Io,
        }
    }
}

/// What failed, and why.
#[derive(Debug)]
pub struct CacheError {
    reason: Reason,
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl CacheError {
    /// `what` names the thing that failed: an entry, a file, an operation.
    pub fn new(reason: Reason, what: impl Into<String>) -> Self {
        Self { reason, what: what.into(), source: None }
    }

    /// The same, with the error that caused it.
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(crate) fn io(what: impl Into<String>, error: std::io::Error) -> Self {
        Self::new(Reason::of(&error), what).with_source(error)
    }

    /// Why, out of a closed set.
    pub fn reason(&self) -> Reason {
        self.reason
    }
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.reason)?;
        match &self.source {
            Some(source) => write!(f, " ({source})"),
            None => Ok(()),
        }
    }
}

impl Error for CacheError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
