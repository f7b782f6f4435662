//! Which file systems are shared over a network. There the store keeps no catalogue: sled counts on one machine,
//! and on a page cache that everybody sees.

use rustix::fd::AsFd;
use rustix::fs::fstatfs;

/// What Linux calls them (`f_type` of `statfs`).
const NETWORK: &[(u64, &str)] = &[
    (0x6969, "nfs"),
    (0x517b, "smb"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x0102_1997, "9p"),
    // sshfs, s3fs, glusterfs, virtiofs; what is local among them cannot be told from these.
    (0x6573_5546, "fuse"),
    (0x0bd0_0bd0, "lustre"),
    (0x00c3_6400, "ceph"),
    (0x5346_414f, "afs"),
    (0x6b41_4653, "kafs"),
    (0x7375_7245, "coda"),
    (0x564c, "ncp"),
    (0x0116_1970, "gfs2"),
    (0x7461_636f, "ocfs2"),
    (0x4750_4653, "gpfs"),
    (0xaad7_aaea, "panfs"),
    (0x1983_0326, "beegfs"),
    (0x2003_0528, "orangefs"),
    (0xbeef_dead, "snfs"),
    (0x6163_6673, "acfs"),
    (0xbacb_acbc, "vmhgfs"),
    (0x786f_4256, "vboxsf"),
    (0x7c7c_6673, "prl_fs"),
];

/// The name of the network file system that `file` is on; `None` for a local one, or when that cannot be told.
pub(crate) fn network(file: impl AsFd) -> Option<&'static str> {
    // Signed, and 32 bits wide, on some machines.
    #[allow(
        clippy::cast_lossless,
        clippy::unnecessary_cast,
        reason = "its type is another on other machines"
    )]
    fstatfs(file).ok().and_then(|found| network_of(found.f_type as u64 & 0xffff_ffff))
}

fn network_of(magic: u64) -> Option<&'static str> {
    NETWORK.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_told_from_local_ones() {
        for (magic, name) in [
            (0x6969, "nfs"),
            (0xff53_4d42, "cifs"),
            (0xfe53_4d42, "smb2"),
            (0x0102_1997, "9p"),
            (0x6573_5546, "fuse"),
            (0x0bd0_0bd0, "lustre"),
            (0x5346_414f, "afs"),
            (0x00c3_6400, "ceph"),
        ] {
            assert_eq!(network_of(magic), Some(name));
        }
        // ext4, xfs, btrfs, tmpfs, overlayfs, zfs, f2fs, bcachefs.
        for magic in [
            0xef53,
            0x5846_5342,
            0x9123_683e,
            0x0102_1994,
            0x794c_7630,
            0x2fc1_2fc1,
            0xf2f5_2010,
            0xca45_1a4e,
        ] {
            assert_eq!(network_of(magic), None, "{magic:x}");
        }
    }

    #[test]
    fn none_is_named_twice() {
        let mut magics: Vec<u64> = NETWORK.iter().map(|(magic, _)| *magic).collect();
        magics.sort_unstable();
        magics.dedup();
        assert_eq!(magics.len(), NETWORK.len());
    }

    #[test]
    fn a_file_system_in_memory_is_local() {
        let Ok(memory) = std::fs::File::open("/dev/shm") else { return };
        assert_eq!(network(memory), None);
    }
}
