//! Which file system lies on a device or in a file, by its superblock, and how long it claims to be.
//!
//! Only reads. What is neither empty nor known is [`Content::Unknown`]: nobody may format it.

mod table;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use node::{Context, Kind, Result};

/// Where a file system, partition table or label could begin or end: what is all zero here is empty.
const EDGE: u64 = 4 << 20;
/// Nearly all superblocks lie in these first bytes; others are looked for one by one.
const HEAD: usize = 0x1_1000;
/// All labels and the superblocks of our file systems lie in these, but for that of btrfs: the others of [`HEAD`] are
/// read where there is none.
const NEAR: usize = 0x2000;
const FAR: u64 = 0x1_0000;
const FAR_LENGTH: usize = 0x80;

/// What lies on a device or in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The first and last 4 MiB are zero, or it has no bytes at all.
    Empty,
    /// A file system that a volume can have.
    Filesystem(Type),
    /// Something else, by its name: encrypted, a partition table, a part of a RAID, …
    Other(&'static str),
    /// Bytes that say nothing.
    Unknown,
}

/// The file systems that a volume can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the kernel's")]
pub enum Type {
    Ext2,
    Ext3,
    Ext4,
    Xfs,
    Btrfs,
    Squashfs,
    Erofs,
    F2fs,
}

impl Type {
    /// As fsopen(2) and mkfs know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
            Self::F2fs => "f2fs",
        }
    }

    /// Whether it can only be read.
    pub fn is_read_only(self) -> bool {
        matches!(self, Self::Squashfs | Self::Erofs)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What was found on a device or in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub content: Content,
    /// How many bytes the file system says it has; `None` where there is none of ours. An image that is shorter is
    /// cut off; a device that is longer has room to grow into.
    pub taken: Option<u64>,
    /// What it says about its own state.
    pub health: Health,
}

/// What lies in `file`, of `size` bytes.
pub fn probe(file: &File, size: u64) -> Result<Content> {
    look(file, size).map(|found| found.content)
}

/// The same, and how it is.
pub fn look(file: &File, size: u64) -> Result<Found> {
    let doing = || "read what lies on the device or in the image".to_owned();
    let near = read(file, 0, NEAR).doing(Kind::Io, doing)?;
    let far = read(file, FAR, FAR_LENGTH).doing(Kind::Io, doing)?;
    let seen = filesystem(&near, &far);
    let content = content(file, size, &near, seen.map(|(kind, _)| kind)).doing(Kind::Io, doing)?;
    Ok(Found { content, taken: seen.and_then(|(_, size)| size), health: extended_health(&near) })
}

fn content(file: &File, size: u64, near: &[u8], seen: Option<Type>) -> io::Result<Content> {
    // A label encloses what else is seen: a mirror's half shows its file system from the first byte on.
    let label = match table::label(near) {
        None => table::raid(file, size, near)?,
        label => label,
    };
    if let Some(name) = label {
        return Ok(Content::Other(name));
    }
    // A file system's superblock is a better answer than what was left over from before; what could be
    // either, such as a partition table, comes last.
    if let Some(kind) = seen {
        return Ok(Content::Filesystem(kind));
    }
    let head = &read(file, 0, HEAD)?;
    if let Some(name) = table::foreign(head) {
        return Ok(Content::Other(name));
    }
    if let Some(name) = table::at_odd_places(file, size)?.or_else(|| table::partitions(head)) {
        return Ok(Content::Other(name));
    }
    Ok(if is_empty(file, size)? { Content::Empty } else { Content::Unknown })
}

/// What an ext2, ext3 or ext4 says about its own state. Others look after themselves when they are mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// The kernel met errors in it, or it was not unmounted and has no journal.
    pub suspect: bool,
    /// Its journal has to be replayed, which the kernel does when it may write to the device.
    pub replay: bool,
}

/// The fields s_state and s_feature_incompat.
fn extended_health(head: &[u8]) -> Health {
    const VALID: u64 = 0x1;
    const ERRORS: u64 = 0x2;
    const RECOVER: u64 = 0x4;
    if extended(head).is_none() {
        return Health::default();
    }
    let state = little(head, 1024 + 0x3a, 2).unwrap_or(VALID);
    let incompatible = little(head, 1024 + 0x60, 4).unwrap_or(0);
    Health { suspect: state & VALID == 0 || state & ERRORS != 0, replay: incompatible & RECOVER != 0 }
}

/// The file system whose superblock lies in the first bytes, or further on, and its size.
fn filesystem(head: &[u8], far: &[u8]) -> Option<(Type, Option<u64>)> {
    // One that mkfs.xfs has not finished says so in sb_inprogress; btrfs and ext4 get their magic last.
    if has(head, 0, b"XFSB") && little(head, 126, 1) == Some(0) {
        let blocks = big(head, 8, 8);
        return Some((
            Type::Xfs,
            big(head, 4, 4).zip(blocks).and_then(|(size, count)| size.checked_mul(count)),
        ));
    }
    if has(far, 0x40, b"_BHRfS_M") {
        return Some((Type::Btrfs, little(far, 0x70, 8)));
    }
    if has(head, 0, b"hsqs") {
        return Some((Type::Squashfs, little(head, 40, 8)));
    }
    match little(head, 1024, 4) {
        Some(0xe0f5_e1e2) => {
            let bits = little(head, 1024 + 12, 1).unwrap_or(0);
            return Some((Type::Erofs, shifted(little(head, 1024 + 36, 4), bits)));
        }
        Some(0xf2f5_2010) => {
            let bits = little(head, 1024 + 16, 4).unwrap_or(0);
            return Some((Type::F2fs, shifted(little(head, 1024 + 36, 8), bits)));
        }
        _ => {}
    }
    extended(head)
}

/// ext2, ext3 and ext4 differ in what their features say
/// (<https://docs.kernel.org/filesystems/ext4/super.html>).
fn extended(head: &[u8]) -> Option<(Type, Option<u64>)> {
    const JOURNAL: u64 = 0x4;
    const WIDE: u64 = 0x80;
    const OLD_INCOMPATIBLE: u64 = 0x2 | 0x4 | 0x10;
    const OLD_READ_ONLY: u64 = 0x1 | 0x2 | 0x4;
    if little(head, 1024 + 0x38, 2) != Some(0xef53) {
        return None;
    }
    let feature = |offset: usize| little(head, 1024 + offset, 4).unwrap_or(0);
    let (compatible, incompatible, read_only) = (feature(0x5c), feature(0x60), feature(0x64));
    let kind = if incompatible & !OLD_INCOMPATIBLE != 0 || read_only & !OLD_READ_ONLY != 0 {
        Type::Ext4
    } else if compatible & JOURNAL != 0 {
        Type::Ext3
    } else {
        Type::Ext2
    };
    let high = if incompatible & WIDE == 0 { 0 } else { feature(0x150) };
    Some((kind, shifted(Some(feature(0x4) | high << 32), feature(0x18).saturating_add(10))))
}

/// A count of blocks of 2^bits bytes; `None` where that is no size at all.
fn shifted(count: Option<u64>, bits: u64) -> Option<u64> {
    let block = 1_u64.checked_shl(u32::try_from(bits).ok()?)?;
    count?.checked_mul(block)
}

fn is_empty(file: &File, size: u64) -> io::Result<bool> {
    let first = size.min(EDGE);
    let last = size.saturating_sub(EDGE).max(first);
    Ok(is_zero(file, 0, first)? && is_zero(file, last, size)?)
}

/// Looks at places all over what [`probe`] calls empty, the copies of ext4's superblock among them; gives
/// the offset of the first one where something lies.
pub fn sample(file: &File, size: u64) -> Result<Option<u64>> {
    const PIECE: u64 = 64 << 10;
    const PLACES: u64 = 1024;
    // Groups of 32768 blocks of 4 KiB and of 8192 blocks of 1 KiB; copies are in 1 and in powers of 3, 5, 7.
    let groups = [1, 3, 5, 7, 9, 25, 27, 49];
    let copies = groups.iter().flat_map(|n| [n * (128 << 20), n * (8 << 20)]);
    let even = (1..PLACES).map(|n| size / PLACES * n);
    let mut places: Vec<u64> = copies.chain(even).filter(|at| *at < size).collect();
    places.sort_unstable();
    for at in places {
        let end = at.saturating_add(PIECE).min(size);
        if !is_zero(file, at, end).doing(Kind::Io, || "look all over the device".to_owned())? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn is_zero(file: &File, from: u64, to: u64) -> io::Result<bool> {
    let mut at = from;
    while at < to {
        let piece = read(file, at, usize::try_from((to - at).min(1 << 16)).unwrap_or(1 << 16))?;
        if piece.is_empty() {
            break;
        }
        if piece.iter().any(|b| *b != 0) {
            return Ok(false);
        }
        at += piece.len() as u64;
    }
    Ok(true)
}

/// `length` bytes at `offset`, fewer at the end.
fn read(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn has(bytes: &[u8], offset: usize, magic: &[u8]) -> bool {
    bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic))
}

/// A number of up to eight bytes, the lowest first.
fn little(bytes: &[u8], offset: usize, length: usize) -> Option<u64> {
    let field = bytes.get(offset..offset.checked_add(length)?)?;
    Some(field.iter().rev().fold(0, |sum, b| sum << 8 | u64::from(*b)))
}

/// A number of up to eight bytes, the highest first.
fn big(bytes: &[u8], offset: usize, length: usize) -> Option<u64> {
    let field = bytes.get(offset..offset.checked_add(length)?)?;
    Some(field.iter().fold(0, |sum, b| sum << 8 | u64::from(*b)))
}

#[cfg(test)]
mod tests;
