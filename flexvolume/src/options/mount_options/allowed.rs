//! The allow-lists: options that tune how a filesystem works, and none that names a host's file or device,
//! changes who is served, or decides what happens to the node.

use std::fmt;

use super::shape::Shape::{self, Charset, Flag, FlagOr, Id, Level, Mode, Number, Size, Word, Words};

/// Whose options are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the filesystems'")]
pub enum Fs {
    Tmpfs,
    Ext4,
    Xfs,
    Btrfs,
    Erofs,
    Squashfs,
    Overlay,
    Bind,
    Nfs,
    Cifs,
    Fuse,
}

impl Fs {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Tmpfs,
        Self::Ext4,
        Self::Xfs,
        Self::Btrfs,
        Self::Erofs,
        Self::Squashfs,
        Self::Overlay,
        Self::Bind,
        Self::Nfs,
        Self::Cifs,
        Self::Fuse,
    ];

    /// The name that people write.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Erofs => "erofs",
            Self::Squashfs => "squashfs",
            Self::Overlay => "overlay",
            Self::Bind => "bind",
            Self::Nfs => "nfs",
            Self::Cifs => "cifs",
            Self::Fuse => "fuse",
        }
    }

    /// Name and shape of each option that a pod's author may write.
    pub(super) const fn allowed(self) -> &'static [(&'static str, Shape)] {
        match self {
            Self::Tmpfs => TMPFS,
            Self::Ext4 => EXT4,
            Self::Xfs => XFS,
            Self::Btrfs => BTRFS,
            Self::Erofs => EROFS,
            Self::Squashfs => SQUASHFS,
            Self::Overlay => OVERLAY,
            // A bind mount has attributes alone: the filesystem is mounted already.
            Self::Bind => &[],
            Self::Nfs => NFS,
            Self::Cifs => CIFS,
            Self::Fuse => FUSE,
        }
    }
}

impl fmt::Display for Fs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

type Table = &'static [(&'static str, Shape)];

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

// https://docs.kernel.org/filesystems/tmpfs.html
const TMPFS: Table = &[("inode32", Flag), ("inode64", Flag), ("lazytime", Flag)];

// https://docs.kernel.org/admin-guide/ext4.html
const EXT4: Table = &[
    ("acl", Flag),
    ("auto_da_alloc", Flag),
    ("barrier", FlagOr(&["0", "1"])),
    ("block_validity", Flag),
    ("commit", Number(1, 300)),
    ("data", Word(&["ordered", "writeback", "journal"])),
    ("delalloc", Flag),
    ("dirsync", Flag),
    ("discard", Flag),
    // `panic` would take the node down for an image that a pod filled with junk.
    ("errors", Word(&["remount-ro"])),
    ("grpid", Flag),
    ("init_itable", Number(0, 1000)),
    ("inode_readahead_blks", Number(0, 4096)),
    ("journal_ioprio", Number(0, 7)),
    ("lazytime", Flag),
    ("max_batch_time", Number(0, 1_000_000)),
    ("max_dir_size_kb", Number(1, 1 << 30)),
    ("min_batch_time", Number(0, 1_000_000)),
    ("noacl", Flag),
    ("noauto_da_alloc", Flag),
    ("nobarrier", Flag),
    ("noblock_validity", Flag),
    ("nodelalloc", Flag),
    ("nodiscard", Flag),
    ("nogrpid", Flag),
    ("noinit_itable", Flag),
    ("nouser_xattr", Flag),
    ("stripe", Number(0, 1 << 20)),
    ("sync", Flag),
    ("user_xattr", Flag),
];

// https://docs.kernel.org/admin-guide/xfs.html
const XFS: Table = &[
    ("allocsize", Size(4 * KIB, 1 << 30)),
    ("dirsync", Flag),
    ("discard", Flag),
    ("filestreams", Flag),
    ("grpid", Flag),
    ("inode32", Flag),
    ("inode64", Flag),
    ("largeio", Flag),
    ("lazytime", Flag),
    ("logbsize", Word(&["16k", "32k", "64k", "128k", "256k"])),
    ("logbufs", Number(2, 8)),
    ("noalign", Flag),
    ("nodiscard", Flag),
    ("nogrpid", Flag),
    ("nolargeio", Flag),
    ("noquota", Flag),
    // The copy of an image has its original's UUID.
    ("nouuid", Flag),
    ("sunit", Number(0, 1 << 20)),
    ("swalloc", Flag),
    ("swidth", Number(0, 1 << 24)),
    ("sync", Flag),
    ("wsync", Flag),
];

const COMPRESSION: &[&str] = &["zlib", "lzo", "zstd", "no", "none"];

// https://btrfs.readthedocs.io/en/latest/ch-mount-options.html
const BTRFS: Table = &[
    ("acl", Flag),
    ("autodefrag", Flag),
    ("barrier", Flag),
    ("commit", Number(1, 300)),
    ("compress", Level(COMPRESSION)),
    ("compress-force", Level(COMPRESSION)),
    ("datacow", Flag),
    ("datasum", Flag),
    ("discard", FlagOr(&["sync", "async"])),
    ("flushoncommit", Flag),
    ("lazytime", Flag),
    ("max_inline", Size(0, 64 * KIB)),
    ("metadata_ratio", Number(0, 1000)),
    ("noacl", Flag),
    ("noautodefrag", Flag),
    ("nobarrier", Flag),
    ("nodatacow", Flag),
    ("nodatasum", Flag),
    ("nodiscard", Flag),
    ("noflushoncommit", Flag),
    ("nossd", Flag),
    ("notreelog", Flag),
    ("space_cache", Word(&["v1", "v2"])),
    ("ssd", Flag),
    ("ssd_spread", Flag),
    ("thread_pool", Number(1, 64)),
    ("treelog", Flag),
];

// https://docs.kernel.org/filesystems/erofs.html
const EROFS: Table = &[
    ("acl", Flag),
    ("cache_strategy", Word(&["disabled", "readahead", "readaround"])),
    ("noacl", Flag),
    ("nouser_xattr", Flag),
    ("user_xattr", Flag),
];

// https://docs.kernel.org/filesystems/squashfs.html
const SQUASHFS: Table =
    &[("errors", Word(&["continue"])), ("threads", Word(&["single", "multi", "percpu", "1", "2", "4", "8"]))];

// https://docs.kernel.org/filesystems/overlayfs.html
const OVERLAY: Table = &[
    ("fsync", Word(&["auto", "strict"])),
    ("uuid", Word(&["auto", "null", "off", "on"])),
    ("xino", Word(&["auto", "off", "on"])),
];

const TRANSPORTS: &[&str] = &["tcp", "tcp6", "udp", "udp6", "rdma", "rdma6"];

// nfs(5)
const NFS: Table = &[
    ("ac", Flag),
    ("acdirmax", Number(0, 86400)),
    ("acdirmin", Number(0, 86400)),
    ("acl", Flag),
    ("acregmax", Number(0, 86400)),
    ("acregmin", Number(0, 86400)),
    ("actimeo", Number(0, 86400)),
    ("cto", Flag),
    ("fsc", Flag),
    ("hard", Flag),
    ("local_lock", Word(&["all", "flock", "posix", "none"])),
    ("lock", Flag),
    ("lookupcache", Word(&["all", "none", "pos", "positive"])),
    ("max_connect", Number(1, 16)),
    ("minorversion", Number(0, 2)),
    ("mountport", Number(1, 65535)),
    ("mountproto", Word(&["tcp", "tcp6", "udp", "udp6"])),
    ("mountvers", Number(1, 3)),
    ("namlen", Number(1, 255)),
    ("nconnect", Number(1, 16)),
    ("nfsvers", Word(&["3", "4", "4.0", "4.1", "4.2"])),
    ("noac", Flag),
    ("noacl", Flag),
    ("nocto", Flag),
    ("nolock", Flag),
    ("nordirplus", Flag),
    ("noresvport", Flag),
    ("nosharecache", Flag),
    ("nosoftreval", Flag),
    ("port", Number(0, 65535)),
    ("proto", Word(TRANSPORTS)),
    ("rdirplus", FlagOr(&["none", "force"])),
    ("resvport", Flag),
    ("retrans", Number(0, 1000)),
    ("rsize", Size(KIB, 4 * MIB)),
    ("sec", Words(&["none", "sys", "krb5", "krb5i", "krb5p"])),
    ("sharecache", Flag),
    ("soft", Flag),
    ("softerr", Flag),
    ("softreval", Flag),
    ("sync", Flag),
    ("tcp", Flag),
    ("timeo", Number(1, 6000)),
    ("udp", Flag),
    ("vers", Word(&["3", "4", "4.0", "4.1", "4.2"])),
    ("wsize", Size(KIB, 4 * MIB)),
    ("xprtsec", Word(&["none", "tls", "mtls"])),
];

const CIFS_SECURITY: &[&str] = &["none", "krb5", "krb5i", "ntlmv2", "ntlmv2i", "ntlmssp", "ntlmsspi"];

// mount.cifs(8)
const CIFS: Table = &[
    ("acdirmax", Number(0, 86400)),
    ("acregmax", Number(0, 86400)),
    ("actimeo", Number(0, 86400)),
    ("bsize", Size(16 * KIB, 16 * MIB)),
    ("cache", Word(&["none", "strict", "loose"])),
    ("cifsacl", Flag),
    ("closetimeo", Number(0, 60)),
    ("dir_mode", Mode),
    ("domainauto", Flag),
    ("dynperm", Flag),
    ("echo_interval", Number(1, 600)),
    ("file_mode", Mode),
    ("forcegid", Flag),
    ("forceuid", Flag),
    ("fsc", Flag),
    ("gid", Id),
    ("handlecache", Flag),
    ("handletimeout", Number(0, 960_000)),
    ("hard", Flag),
    ("idsfromsid", Flag),
    ("ignorecase", Flag),
    ("iocharset", Charset),
    ("mapchars", Flag),
    ("mapposix", Flag),
    ("max_channels", Number(1, 16)),
    ("max_credits", Number(20, 60000)),
    ("mfsymlinks", Flag),
    ("modefromsid", Flag),
    ("multichannel", Flag),
    ("nobrl", Flag),
    ("nocase", Flag),
    ("nodfs", Flag),
    ("noforcegid", Flag),
    ("noforceuid", Flag),
    ("nohandlecache", Flag),
    ("nolease", Flag),
    ("nomapchars", Flag),
    ("nomapposix", Flag),
    ("nomultichannel", Flag),
    ("noperm", Flag),
    ("nopersistenthandles", Flag),
    ("noposixpaths", Flag),
    ("noserverino", Flag),
    ("nosharesock", Flag),
    ("nostrictsync", Flag),
    ("nounix", Flag),
    ("nouser_xattr", Flag),
    ("perm", Flag),
    ("persistenthandles", Flag),
    ("port", Number(1, 65535)),
    ("posixpaths", Flag),
    ("rasize", Size(0, 64 * MIB)),
    ("resilienthandles", Flag),
    ("retrans", Number(0, 100)),
    ("rsize", Size(KIB, 16 * MIB)),
    ("seal", Flag),
    ("sec", Word(CIFS_SECURITY)),
    ("serverino", Flag),
    ("sfu", Flag),
    ("sign", Flag),
    ("soft", Flag),
    ("strictsync", Flag),
    ("uid", Id),
    ("user_xattr", Flag),
    // SMB 1 is left out: it has neither encryption nor a safe signature.
    ("vers", Word(&["default", "2.0", "2.1", "3", "3.0", "3.02", "3.0.2", "3.1.1"])),
    ("wsize", Size(KIB, 16 * MIB)),
];

// https://docs.kernel.org/filesystems/fuse.html
const FUSE: Table = &[("default_permissions", Flag), ("max_read", Number(4096, 1 << 20))];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_is_in_order_without_doubles() {
        for fs in Fs::ALL {
            let names: Vec<_> = fs.allowed().iter().map(|(name, _)| *name).collect();
            assert!(names.is_sorted_by(|a, b| a < b), "{fs}");
        }
    }
}
