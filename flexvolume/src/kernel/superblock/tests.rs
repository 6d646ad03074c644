use std::fs::{self, OpenOptions};

use super::*;

/// A file of `size` bytes with something in it; its name is gone already.
fn image(size: u64, parts: Parts<'_>) -> File {
    let number = std::thread::current().id();
    let path = std::env::temp_dir().join(format!("nodeplug-superblock-{}-{number:?}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    file.set_len(size).unwrap();
    for (offset, bytes) in parts {
        file.write_all_at(bytes, *offset).unwrap();
    }
    file
}

/// Offsets and what lies there.
type Parts<'a> = &'a [(u64, &'a [u8])];

fn seen(size: u64, parts: Parts<'_>) -> Content {
    probe(&image(size, parts), size).unwrap()
}

const MIB: u64 = 1 << 20;

#[test]
fn empty_is_zero_at_both_ends() {
    let cases: [(&str, u64, Parts<'_>, Content); 8] = [
        ("nothing", 0, &[], Content::Empty),
        ("zeros", 64 * MIB, &[], Content::Empty),
        ("short zeros", 100, &[], Content::Empty),
        ("a byte at the start", 64 * MIB, &[(0, b"x")], Content::Unknown),
        ("a byte before 4 MiB", 64 * MIB, &[(4 * MIB - 1, b"x")], Content::Unknown),
        ("a byte at the end", 64 * MIB, &[(64 * MIB - 1, b"x")], Content::Unknown),
        ("a byte at the last 4 MiB", 64 * MIB, &[(60 * MIB, b"x")], Content::Unknown),
        ("the last byte of 5 MiB", 5 * MIB, &[(5 * MIB - 1, b"x")], Content::Unknown),
    ];
    for (name, size, parts, expect) in cases {
        assert_eq!(seen(size, parts), expect, "{name}");
    }
}

#[test]
fn what_is_not_ours_has_a_name() {
    let raid = [0xfc, 0x4e, 0x2b, 0xa9];
    let mut boot = [0; 512];
    boot[510..].copy_from_slice(b"\x55\xaa");
    let mut table = boot;
    table[446 + 4] = 0x83;
    let cases: [(&str, u64, &[u8]); 25] = [
        ("LUKS encryption", 0, b"LUKS\xba\xbe"),
        ("an LVM physical volume", 0x218, b"LVM2 001"),
        ("swap", 0xff6, b"SWAPSPACE2"),
        ("swap", 0xfff6, b"SWAPSPACE2"),
        ("ntfs", 3, b"NTFS    "),
        ("exfat", 3, b"EXFAT   "),
        ("vfat", 0x52, b"FAT32   "),
        ("vfat", 0x36, b"FAT16   "),
        ("iso9660", 0x8001, b"CD001"),
        ("udf", 0x8001, b"BEA01"),
        ("hfs+", 1024, b"H+\0\x04"),
        ("reiserfs", 0x1_0034, b"ReIsEr2Fs"),
        ("a member of a Linux RAID", 0, &raid),
        ("a member of a Linux RAID", 4096, &raid),
        ("a member of a Linux RAID", 64 * MIB - (8 << 10), &raid),
        ("a member of a Linux RAID", 64 * MIB - (64 << 10), &raid),
        ("a ZFS pool", (128 << 10) + 5 * 1024, &[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0]),
        ("a ZFS pool", 128 << 10, &[0, 0, 0, 0, 0, 0xba, 0xb1, 0x0c]),
        ("a GPT partition table", 512, b"EFI PART"),
        ("a GPT partition table", 4096, b"EFI PART"),
        ("a GPT partition table", 64 * MIB - 512, b"EFI PART"),
        ("a boot sector", 0, &boot),
        ("an MBR partition table", 0, &table),
        ("bcachefs", 0x1018, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"),
        ("a Ceph BlueStore device", 0, b"bluestore block device\n"),
    ];
    for (name, offset, bytes) in cases {
        assert_eq!(seen(64 * MIB, &[(offset, bytes)]), Content::Other(name), "{name} at {offset}");
    }
}

/// An ext superblock: block count, log2 of the block size over 1024, the three feature words.
fn ext(blocks: u64, log: u32, features: [u32; 3]) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    let mut put = |offset: usize, value: u32| bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    put(0x4, u32::try_from(blocks & 0xffff_ffff).unwrap());
    put(0x150, u32::try_from(blocks >> 32).unwrap());
    put(0x18, log);
    put(0x38, 0xef53);
    for (offset, value) in [0x5c, 0x60, 0x64].into_iter().zip(features) {
        put(offset, value);
    }
    bytes
}

#[test]
fn file_systems_are_told_apart_and_measured() {
    let ext2 = ext(100, 0, [0, 0x2, 0x1]);
    let ext3 = ext(100, 2, [0x4, 0x6, 0x1]);
    let ext4 = ext(1 << 33, 2, [0x4, 0x2c2, 0x46b]);
    let absurd = ext(100, 200, [0, 0x40, 0]);
    let xfs = [b"XFSB".as_slice(), &4096_u32.to_be_bytes(), &1000_u64.to_be_bytes()].concat();
    let btrfs = [b"_BHRfS_M".as_slice(), &[0; 40], &(200 * MIB).to_le_bytes()].concat();
    let squashfs = [b"hsqs".as_slice(), &[0; 36], &777_u64.to_le_bytes()].concat();
    let erofs =
        [[0xe2, 0xe1, 0xf5, 0xe0].as_slice(), &[0; 8], &[12], &[0; 23], &5_u32.to_le_bytes()].concat();
    let cases: [(Type, u64, &[u8], Option<u64>); 8] = [
        (Type::Ext2, 1024, &ext2, Some(100 * 1024)),
        (Type::Ext3, 1024, &ext3, Some(100 * 4096)),
        (Type::Ext4, 1024, &ext4, Some(1 << 45)),
        (Type::Ext4, 1024, &absurd, None),
        (Type::Xfs, 0, &xfs, Some(4096 * 1000)),
        (Type::Btrfs, 0x1_0040, &btrfs, Some(200 * MIB)),
        (Type::Squashfs, 0, &squashfs, Some(777)),
        (Type::Erofs, 1024, &erofs, Some(5 * 4096)),
    ];
    for (kind, offset, bytes, size) in cases {
        let file = image(64 * MIB, &[(offset, bytes)]);
        assert_eq!(probe(&file, 64 * MIB).unwrap(), Content::Filesystem(kind), "{kind}");
        assert_eq!(look(&file, 64 * MIB).unwrap().taken, size, "{kind}");
        // A boot loader's sector in front of it changes nothing where it is not the superblock itself.
        if offset != 0 {
            file.write_all_at(b"\x55\xaa", 510).unwrap();
            assert_eq!(probe(&file, 64 * MIB).unwrap(), Content::Filesystem(kind), "{kind}");
        }
    }
    let journal = ext(100, 0, [0, 0x8, 0]);
    assert_eq!(seen(MIB, &[(1024, &journal)]), Content::Other("an ext journal"));
    let inside = [(0, b"LUKS\xba\xbe".as_slice()), (1024, &ext2)];
    assert_eq!(seen(MIB, &inside), Content::Other("LUKS encryption"));
    assert_eq!(look(&image(MIB, &[]), MIB).unwrap().taken, None);
}
