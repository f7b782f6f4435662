//! The directories above a store: whoever may rename in one of them can put another store in its place.
//!
//! So each must belong to us or to root, and nobody else may write into it, unless it is sticky (as `/tmp` is).
//! What counts is where the store really lies, by `..` from what was opened, and not the path that led there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, Stat, fstat, open, statat};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Whether nobody but us (`me`) and root can put another directory in place of the one that is open, which is `found`.
///
/// Each is asked for by its way from there. Once one was seen to be safe, nobody else can move what leads up to it, so
/// that longer ways pass through the same.
pub(super) fn are_safe(directory: BorrowedFd<'_>, found: &Stat, me: u32) -> bool {
    let place = |stat: &Stat| (stat.st_dev, stat.st_ino);
    let (mut below, mut way) = (place(found), String::from(".."));
    loop {
        let parent = match statat(directory, &way, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(parent) => parent,
            // One that we may not even pass, or that is out of sight beyond a mount, is not ours to judge: it is no way
            // for us, nor for others like us.
            Err(Errno::ACCESS | Errno::NOENT) => return true,
            Err(_) => return false,
        };
        if place(&parent) == below {
            return true;
        }
        if !is_safe(&parent, me) {
            return false;
        }
        below = place(&parent);
        way.push_str("/..");
    }
}

/// Whether nobody but us and root can put another file in place of this one, links on the way followed.
pub(super) fn of_file_are_safe(path: &Path) -> io::Result<bool> {
    let real = path.canonicalize()?;
    let Some(folder) = real.parent() else { return Ok(true) };
    let folder = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let (stat, me) = (fstat(&folder)?, geteuid().as_raw());
    Ok(is_safe(&stat, me) && are_safe(folder.as_fd(), &stat, me))
}

/// Whether others than its owner may write what is so described.
pub(super) fn is_open_to_others(mode: u32, uid: u32, gid: u32, me: u32) -> bool {
    let mode = Mode::from_raw_mode(mode);
    // Where every user has a group of their own, files that are open to the group are open to nobody else.
    let group = mode.contains(Mode::WGRP) && gid != 0 && !(gid == me && uid == me);
    mode.contains(Mode::WOTH) || group
}

fn is_safe(stat: &Stat, me: u32) -> bool {
    let mode = Mode::from_raw_mode(stat.st_mode);
    if stat.st_uid != 0 && stat.st_uid != me && !is_of_no_user_here(stat.st_uid) {
        return false;
    }
    mode.contains(Mode::SVTX) || !is_open_to_others(stat.st_mode, stat.st_uid, stat.st_gid, me)
}

/// In a container that has its own users, those outside of it all look like one that nobody in it can be.
fn is_of_no_user_here(uid: u32) -> bool {
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else { return false };
    map.lines().all(|line| {
        let mut numbers = line.split_whitespace().map(|word| word.parse::<u64>().unwrap_or(0));
        let (first, _, count) = (numbers.next(), numbers.next(), numbers.next());
        let first = first.unwrap_or(0);
        !(first..first + count.unwrap_or(u64::from(u32::MAX))).contains(&u64::from(uid))
    })
}
