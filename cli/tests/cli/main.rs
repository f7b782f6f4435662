//! The `objcache` program as a user meets it: every test runs the real binary on files and a cache of its own.

mod arguments;
mod broken_caches;
mod cache_commands;
mod config;
mod crash_loop;
mod doctor;
mod documentation;
mod exit_codes;
mod faults;
mod fsck;
mod inspection;
mod key;
mod keys;
mod link;
mod man;
mod matrix;
mod observers;
mod packs;
mod room;
mod run;
mod signals;
#[path = "../../../cache/tests/support/states.rs"]
mod states;
mod statistics;
mod support;
mod terminal;
mod warm;
mod why;
