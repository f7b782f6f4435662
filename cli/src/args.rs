//! The command line: options of every command, and the list of commands.
//!
//! The options of one command stand in that command's file. Texts here are the manual: the first paragraph is
//! what `-h` shows, the rest comes with `--help`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands;

/// Compile once: keep compiled object files, find them by what they are, run them.
#[derive(Debug, Parser)]
#[command(name = "objcache", version, max_term_width = 100, subcommand_required = true, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalOptions,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 fine; 1 findings (damage, an unknown signature, source that does not compile or load);
2 wrong usage; 3 a file or the cache directory cannot be read or written.

Settings: `objcache config list` shows them, and the variables of the environment that set them.

Environment: OBJCACHE_DIR, OBJCACHE_MAX_SIZE (such as 10G), OBJCACHE_READONLY=1, OBJCACHE_DISABLE=1,
OBJCACHE_LAYERS (packs and directories, with : between), OBJCACHE_TRACE (a file),
OBJCACHE_LOG (such as debug or objcache=info), OBJCACHE_GDB=1, OBJCACHE_PERF (map or jitdump), NO_COLOR.";

/// Options that every command takes, before or after its name.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct GlobalOptions {
    /// Keep the cache in this directory [default: $OBJCACHE_DIR, else $XDG_CACHE_HOME/objcache]
    #[arg(long, global = true, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,

    /// Print the result as one JSON object, errors too
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Colour letters
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    #[arg(help = "Colour letters: auto, always or never")]
    pub(crate) color: ColorChoice,

    /// Say more on stderr: -v what was done, -vv how
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    /// No remarks, progress or warnings on stderr
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

/// When letters are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal that knows colours, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(commands::run::Options),
    Compile(commands::compile::Options),
    Warm(commands::warm::Options),
    Link(commands::link::Options),
    Signature(commands::signature::Options),
    Why(commands::why::Options),
    Ls(commands::ls::Options),
    Show(commands::show::Options),
    Disasm(commands::disasm::Options),
    Symbols(commands::symbols::Options),
    Relocs(commands::relocs::Options),
    Get(commands::get::Options),
    Put(commands::put::Options),
    Rm(commands::rm::Options),
    Pin(commands::pin::PinOptions),
    Unpin(commands::pin::UnpinOptions),
    Du(commands::du::Options),
    Gc(commands::gc::Options),
    Recompress(commands::recompress::Options),
    Stats(commands::stats::Options),
    Top(commands::top::Options),
    Verify(commands::verify::Options),
    Fsck(commands::fsck::Options),
    Clear(commands::clear::Options),
    Doctor(commands::doctor::Options),
    Config(commands::config::Options),
    Pack(commands::pack::Options),
    Trace(commands::trace::Options),
    Key(commands::key::Options),
    Man(commands::man::Options),
    Completions(commands::completions::Options),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
