//! The marks of what a volume cannot be: labels, foreign file systems, partition tables. Their offsets are
//! those of libblkid's documentation and of the formats' own.

use std::fs::File;
use std::io;

use super::{big, has, little, read};

/// A mark: where, what, and what it means.
type Mark = (usize, &'static [u8], &'static str);

/// What encloses whatever else seems to lie there.
const LABELS: [Mark; 12] = [
    (0, b"LUKS\xba\xbe", "LUKS encryption"),
    (0, b"SKUL\xba\xbe", "LUKS encryption"),
    (3, b"-FVE-FS-", "BitLocker encryption"),
    (0x018, b"LVM2 001", "an LVM physical volume"),
    (0x218, b"LVM2 001", "an LVM physical volume"),
    (0x418, b"LVM2 001", "an LVM physical volume"),
    (0x618, b"LVM2 001", "an LVM physical volume"),
    (0, b"bluestore block device", "a Ceph BlueStore device"),
    (0, b"dmvdo001", "a VDO device"),
    (0x204, b"!Stra0tis\x86\xff\x02^\x41rh", "a Stratis pool"),
    (0x1018, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", "a bcache device"),
    (0x1018, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef", "bcachefs"),
];

/// File systems that are not ours.
const FOREIGN: [Mark; 24] = [
    (0xff6, b"SWAPSPACE2", "swap"),
    (0xff6, b"SWAP-SPACE", "swap"),
    (0x1ff6, b"SWAPSPACE2", "swap"),
    (0x3ff6, b"SWAPSPACE2", "swap"),
    (0xfff6, b"SWAPSPACE2", "swap"),
    (3, b"NTFS    ", "ntfs"),
    (3, b"EXFAT   ", "exfat"),
    (3, b"ReFS\0\0\0\0", "refs"),
    (0x52, b"FAT32   ", "vfat"),
    (0x36, b"FAT1", "vfat"),
    (0x36, b"FAT     ", "vfat"),
    (0x8001, b"CD001", "iso9660"),
    (0x8001, b"BEA01", "udf"),
    (1024, b"H+\0", "hfs+"),
    (1024, b"HX\0", "hfs+"),
    (1024, b"BD", "hfs"),
    (0x20, b"NXSB", "apfs"),
    (0x8000, b"JFS1", "jfs"),
    (0x1_0034, b"ReIsEr", "reiserfs"),
    (0x1_0000, b"\x01\x16\x19\x70", "gfs2"),
    (0x2000, b"OCFSV2", "ocfs2"),
    (0x406, b"\x34\x34", "nilfs2"),
    (0, b"\x45\x3d\xcd\x28", "cramfs"),
    (0, b"-rom1fs-", "romfs"),
];

/// A label of encryption, of a volume manager or of a cache.
pub(super) fn label(head: &[u8]) -> Option<&'static str> {
    // An ext journal on a device of its own has ext's magic and no files.
    let journal = little(head, 1024 + 0x38, 2) == Some(0xef53)
        && little(head, 1024 + 0x60, 4).is_some_and(|features| features & 0x8 != 0);
    if journal { Some("an ext journal") } else { find(&LABELS, head) }
}

/// A file system that is none of ours.
pub(super) fn foreign(head: &[u8]) -> Option<&'static str> {
    find(&FOREIGN, head)
}

fn find(marks: &[Mark], head: &[u8]) -> Option<&'static str> {
    marks.iter().find(|(offset, magic, _)| has(head, *offset, magic)).map(|(_, _, name)| *name)
}

/// The superblock of a Linux RAID member (md): at the start, 4 KiB after it, or near the end.
pub(super) fn raid(file: &File, size: u64, head: &[u8]) -> io::Result<Option<&'static str>> {
    const MAGIC: u64 = 0xa92b_4efc;
    let near_end = size.saturating_sub(8 << 10) & !4095;
    let old = (size & !0xffff).saturating_sub(0x1_0000);
    let is_one = |bytes: &[u8], at| little(bytes, at, 4) == Some(MAGIC) || big(bytes, at, 4) == Some(MAGIC);
    let mut found = is_one(head, 0) || is_one(head, 4096);
    for offset in [near_end, old] {
        found = found || is_one(&read(file, offset, 4)?, 0);
    }
    Ok(found.then_some("a member of a Linux RAID"))
}

/// Marks that lie far from the start.
pub(super) fn at_odd_places(file: &File, size: u64) -> io::Result<Option<&'static str>> {
    // The ring of ZFS's uberblocks in its first label: 128 KiB of slots of 1 KiB or more.
    let ring = read(file, 128 << 10, 128 << 10)?;
    for slot in ring.chunks(1024) {
        if little(slot, 0, 8) == Some(0x00ba_b10c) || big(slot, 0, 8) == Some(0x00ba_b10c) {
            return Ok(Some("a ZFS pool"));
        }
    }
    // GPT after one sector of 512 or 4096 bytes, and its copy in the last one.
    for offset in [512, 4096, size.saturating_sub(512), size.saturating_sub(4096)] {
        if read(file, offset, 8)? == b"EFI PART" {
            return Ok(Some("a GPT partition table"));
        }
    }
    Ok(None)
}

/// A boot sector's signature says a partition table where its four entries look like ones.
pub(super) fn partitions(head: &[u8]) -> Option<&'static str> {
    if !has(head, 510, b"\x55\xaa") {
        return None;
    }
    let entries: Vec<_> = (0..4).filter_map(|n| head.get(446 + 16 * n..462 + 16 * n)).collect();
    let plain = entries.iter().all(|e| matches!(e.first(), Some(0 | 0x80)));
    let any = entries.iter().any(|e| e.get(4).is_some_and(|kind| *kind != 0));
    Some(if plain && any { "an MBR partition table" } else { "a boot sector" })
}
