//! The words for mkfs: ours, and those of `mkfsOptions` that are on the list.

use crate::options::quoted;
use crate::policy::ImageFs;

/// What may stand behind a flag.
#[derive(Clone, Copy)]
enum Value {
    /// A whole number within these bounds.
    Number(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Some of these words, joined by commas, each with or without `^` before it.
    Features(&'static [&'static str]),
    /// Some of these names with a number within their bounds behind `=`, joined by commas.
    Pairs(&'static [(&'static str, u64, u64)]),
}

type Table = &'static [(&'static str, Value)];

// mke2fs(8). Left out: what names files or devices, what belongs to one copy (UUID, label), and features
// that the kernel cannot mount or that would make an image a node's secret (encrypt, verity).
const EXT4: Table = &[
    ("-b", Value::Word(&["1024", "2048", "4096"])),
    ("-I", Value::Word(&["128", "256", "512", "1024"])),
    ("-i", Value::Number(1024, 64 << 20)),
    ("-m", Value::Number(0, 50)),
    ("-N", Value::Number(16, u32::MAX as u64)),
    (
        "-O",
        Value::Features(&[
            "64bit",
            "bigalloc",
            "dir_index",
            "dir_nlink",
            "extent",
            "extra_isize",
            "flex_bg",
            "has_journal",
            "huge_file",
            "inline_data",
            "large_dir",
            "large_file",
            "metadata_csum",
            "metadata_csum_seed",
            "orphan_file",
            "quota",
            "project",
            "resize_inode",
            "sparse_super",
            "sparse_super2",
            "uninit_bg",
        ]),
    ),
    ("-T", Value::Word(&["small", "default", "big", "huge", "news", "largefile", "largefile4"])),
];

// mkfs.xfs(8)
const XFS: Table = &[
    ("-b", Value::Pairs(&[("size", 512, 65536)])),
    ("-d", Value::Pairs(&[("agcount", 1, 1 << 20), ("sunit", 0, 1 << 20), ("swidth", 0, 1 << 24)])),
    ("-i", Value::Pairs(&[("size", 256, 2048), ("maxpct", 0, 100), ("sparse", 0, 1), ("nrext64", 0, 1)])),
    (
        "-m",
        Value::Pairs(&[
            ("bigtime", 0, 1),
            ("crc", 0, 1),
            ("finobt", 0, 1),
            ("inobtcount", 0, 1),
            ("reflink", 0, 1),
            ("rmapbt", 0, 1),
        ]),
    ),
    ("-n", Value::Pairs(&[("size", 512, 65536), ("ftype", 0, 1)])),
    ("-s", Value::Pairs(&[("size", 512, 32768)])),
];

const SUMS: &[&str] = &["crc32c", "xxhash", "sha256", "blake2"];

// mkfs.btrfs(8)
const BTRFS: Table = &[
    ("--checksum", Value::Word(SUMS)),
    ("--csum", Value::Word(SUMS)),
    ("-d", Value::Word(&["single", "dup"])),
    ("-m", Value::Word(&["single", "dup"])),
    ("-n", Value::Word(&["4k", "8k", "16k", "32k", "64k", "4096", "8192", "16384", "32768", "65536"])),
    (
        "-O",
        Value::Features(&[
            "block-group-tree",
            "extref",
            "free-space-tree",
            "mixed-bg",
            "no-holes",
            "quota",
            "skinny-metadata",
        ]),
    ),
    ("-s", Value::Word(&["4k", "4096"])),
];

/// The smallest size that a file system can have, in bytes, by its mkfs.
pub const fn least(fs: ImageFs) -> u64 {
    match fs {
        // Smaller ones have no journal.
        ImageFs::Ext4 => 8 << 20,
        // xfsprogs 6.0 and newer.
        ImageFs::Xfs => 300 << 20,
        // btrfs-progs: 114294784 bytes with two copies of the metadata.
        ImageFs::Btrfs => 109 << 20,
        ImageFs::Erofs | ImageFs::Squashfs => 0,
    }
}

/// All words but the device: quiet, over whatever is there (that there is nothing was seen), without
/// discarding (the medium is empty, and an allocated image is to stay so), without a label.
pub fn arguments(fs: ImageFs, asked: &[String]) -> Vec<String> {
    let own: &[&str] = match fs {
        ImageFs::Ext4 => &["-q", "-F", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"],
        ImageFs::Xfs | ImageFs::Btrfs => &["-q", "-f", "-K"],
        ImageFs::Erofs | ImageFs::Squashfs => &[],
    };
    let mut words: Vec<String> = own.iter().map(|word| (*word).to_owned()).collect();
    // Blocks that only root may fill help a system's own disk, and take a twentieth of a volume.
    let missing = |flag: &str| fs == ImageFs::Ext4 && !asked.iter().any(|word| word == flag);
    if missing("-m") {
        words.extend(["-m", "0"].map(str::to_owned));
    }
    // mke2fs takes smaller blocks for a small volume, which may grow.
    if missing("-b") {
        words.extend(["-b", "4096"].map(str::to_owned));
    }
    words.extend(asked.iter().cloned());
    words
}

/// Reads `mkfsOptions`: flags and their values, separated by blanks. The error says what to write.
pub fn check(fs: ImageFs, text: &str) -> Result<Vec<String>, String> {
    let table = match fs {
        ImageFs::Ext4 => EXT4,
        ImageFs::Xfs => XFS,
        ImageFs::Btrfs => BTRFS,
        ImageFs::Erofs | ImageFs::Squashfs => {
            return Err(format!("has no meaning for {}, which is only read", fs.name()));
        }
    };
    let mut words = text.split_ascii_whitespace();
    let mut found: Vec<String> = Vec::new();
    while let Some(flag) = words.next() {
        let Some((_, value)) = table.iter().find(|(known, _)| *known == flag) else {
            let all: Vec<_> = table.iter().map(|(known, _)| *known).collect();
            return Err(format!("has {}; allowed for {} are {}", quoted(flag), fs.name(), all.join(", ")));
        };
        let given = words.next().unwrap_or_default();
        if found.iter().any(|word| word == flag) {
            return Err(format!("has {} twice", quoted(flag)));
        }
        if !value.takes(given) {
            return Err(format!("has {} behind `{flag}`; write {}", quoted(given), value.write()));
        }
        found.extend([flag.to_owned(), given.to_owned()]);
    }
    Ok(found)
}

impl Value {
    fn takes(self, text: &str) -> bool {
        match self {
            Self::Number(least, most) => number(text).is_some_and(|n| (least..=most).contains(&n)),
            Self::Word(words) => words.contains(&text),
            Self::Features(words) => {
                text.split(',').all(|word| words.contains(&word.strip_prefix('^').unwrap_or(word)))
            }
            Self::Pairs(names) => text.split(',').all(|pair| {
                let Some((name, value)) = pair.split_once('=') else { return false };
                let bounds = names.iter().find(|(known, _, _)| *known == name);
                let value = number(value);
                bounds.zip(value).is_some_and(|((_, least, most), n)| (*least..=*most).contains(&n))
            }),
        }
    }

    fn write(self) -> String {
        match self {
            Self::Number(least, most) => format!("a whole number from {least} to {most}"),
            Self::Word(words) => words.join(" or "),
            Self::Features(words) => format!("some of {}, joined by commas", words.join(", ")),
            Self::Pairs(names) => {
                let all: Vec<_> = names.iter().map(|(n, a, b)| format!("{n}={a}…{b}")).collect();
                format!("some of {}, joined by commas", all.join(", "))
            }
        }
    }
}

fn number(text: &str) -> Option<u64> {
    Some(text).filter(|t| t.bytes().all(|b| b.is_ascii_digit())).and_then(|t| t.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_words_reach_mkfs() {
        use ImageFs::{Btrfs, Erofs, Ext4, Xfs};
        let table: [(ImageFs, &str, Result<&str, &str>); 18] = [
            (Ext4, "", Ok("")),
            (Ext4, "-N 1000  -m 1", Ok("-N 1000 -m 1")),
            (Ext4, "-O ^has_journal,quota", Ok("-O ^has_journal,quota")),
            (Ext4, "-O encrypt", Err("has `encrypt` behind `-O`; write some of")),
            (Ext4, "-E root_owner=0:0", Err("has `-E`; allowed for ext4 are -b, -I")),
            (Ext4, "-d /etc", Err("has `-d`; allowed")),
            (Ext4, "-J device=/dev/sda", Err("has `-J`; allowed")),
            (Ext4, "/dev/sda", Err("has `/dev/sda`; allowed")),
            (Ext4, "-N", Err("has `` behind `-N`; write a whole number from 16")),
            (Ext4, "-N 20 -N 30", Err("has `-N` twice")),
            (Ext4, "-m -1", Err("has `-1` behind `-m`; write a whole number from 0 to 50")),
            (Xfs, "-m reflink=0,crc=1 -i size=512", Ok("-m reflink=0,crc=1 -i size=512")),
            (Xfs, "-d file=1,name=/etc/shadow", Err("has `file=1,name=/etc/shadow` behind `-d`; write some")),
            (Xfs, "-p /etc/proto", Err("has `-p`; allowed for xfs")),
            (Btrfs, "-n 16k -m single --csum xxhash", Ok("-n 16k -m single --csum xxhash")),
            (Btrfs, "-r /etc", Err("has `-r`; allowed")),
            (Btrfs, "-m raid1", Err("has `raid1` behind `-m`; write single or dup")),
            (Erofs, "-z", Err("has no meaning for erofs")),
        ];
        for (fs, text, expect) in table {
            match (check(fs, text), expect) {
                (Ok(words), Ok(expect)) => assert_eq!(words.join(" "), expect, "{text}"),
                (Err(why), Err(expect)) => assert!(why.starts_with(expect), "{text}: {why}"),
                (seen, expect) => panic!("{text}: {seen:?}, not {expect:?}"),
            }
        }
    }

    #[test]
    fn mkfs_is_quiet_and_discards_nothing() {
        let words = |fs, asked: &[&str]| {
            arguments(fs, &asked.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()).join(" ")
        };
        let lazy = "-q -F -E nodiscard,lazy_itable_init=1,lazy_journal_init=1";
        assert_eq!(words(ImageFs::Ext4, &[]), format!("{lazy} -m 0 -b 4096"));
        assert_eq!(words(ImageFs::Ext4, &["-m", "1", "-b", "1024"]), format!("{lazy} -m 1 -b 1024"));
        assert_eq!(words(ImageFs::Xfs, &[]), "-q -f -K");
        assert_eq!(words(ImageFs::Btrfs, &["-n", "16k"]), "-q -f -K -n 16k");
    }
}
