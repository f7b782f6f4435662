//! Debuggers and profilers that are to see what `run` loads.

use std::sync::Arc;

use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};
use objcache::loader::{EventListener, GdbListener, JitDump, Loader, PerfMap};

/// Who is told of loaded code.
#[derive(Debug, Args)]
#[command(next_help_heading = "Debuggers and profilers")]
pub(crate) struct ObserverOptions {
    /// Tell gdb about the code; compile it with --flag -g to see lines and variables
    #[arg(long, env = "OBJCACHE_GDB", hide_env_values = true, value_parser = FalseyValueParser::new())]
    gdb: bool,

    /// Tell perf: `map` names functions, `jitdump` keeps code and lines for `perf inject`, in $JITDUMPDIR
    #[arg(long, value_name = "HOW", env = "OBJCACHE_PERF", hide_env_values = true)]
    perf: Option<PerfInterface>,
}

/// The ways in which perf learns of functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PerfInterface {
    /// `/tmp/perf-PID.map`.
    Map,
    /// `jit-PID.dump` in `$JITDUMPDIR`, else here.
    Jitdump,
}

impl ObserverOptions {
    pub(crate) fn observers(&self) -> Observers {
        let perf = |wanted| self.perf == Some(wanted);
        Observers {
            gdb: self.gdb.then(|| Arc::new(GdbListener::new())),
            map: perf(PerfInterface::Map).then(|| Arc::new(PerfMap::new())),
            jitdump: perf(PerfInterface::Jitdump).then(|| Arc::new(JitDump::from_environment())),
        }
    }
}

/// Those that were asked for.
pub(crate) struct Observers {
    gdb: Option<Arc<GdbListener>>,
    map: Option<Arc<PerfMap>>,
    jitdump: Option<Arc<JitDump>>,
}

impl Observers {
    /// A loader that tells them.
    pub(crate) fn loader(&self) -> Loader {
        fn listener<L: EventListener + 'static>(listener: &Option<Arc<L>>) -> Option<Arc<dyn EventListener>> {
            listener.clone().map(|listener| listener as Arc<dyn EventListener>)
        }
        let all = [listener(&self.gdb), listener(&self.map), listener(&self.jitdump)];
        all.into_iter().flatten().fold(Loader::builder(), |builder, one| builder.listener(one)).build()
    }

    /// What went wrong, which the program goes on without.
    pub(crate) fn report_problems(&self) {
        if let Some(problem) = self.gdb.as_ref().and_then(|gdb| gdb.take_problem()) {
            tracing::warn!("gdb sees no lines and variables: {problem}");
        }
        if let Some(problem) = self.map.as_ref().and_then(|map| map.take_problem()) {
            tracing::warn!("{}: {problem}", PerfMap::path().display());
        }
        if let Some((jitdump, problem)) =
            self.jitdump.as_ref().and_then(|dump| Some((dump, dump.take_problem()?)))
        {
            tracing::warn!("{}: {problem}", jitdump.path().display());
        }
    }
}
