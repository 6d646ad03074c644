//! What images and block devices have in common: a file system on a medium, which is told from its
//! superblock, made, checked, grown, and mounted with its own settings.

pub mod expand;
pub mod mkfs;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use node::{Error, Kind, Result};

use super::Common;
use crate::kernel::own::Scope;
use crate::kernel::superblock::{self, Content, Health, Type};
use crate::options::mount_options::{Attr, Fs};
use crate::options::{Quantity, Reader};
use crate::plan::{Limits, Medium, Setting, Source, Step};
use crate::policy::ImageFs;

/// So little is not worth growing into: a file system ends at a whole block or group of blocks.
const SLACK: u64 = 1 << 20;

/// The words of `fsType`. The kernel's ext4 mounts its two ancestors.
const TYPES: [(&str, ImageFs); 7] = [
    ("ext4", ImageFs::Ext4),
    ("ext3", ImageFs::Ext4),
    ("ext2", ImageFs::Ext4),
    ("xfs", ImageFs::Xfs),
    ("btrfs", ImageFs::Btrfs),
    ("erofs", ImageFs::Erofs),
    ("squashfs", ImageFs::Squashfs),
];

/// The options that both backends have.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The file system that is asked for; `None`: whatever is there.
    pub fs: Option<ImageFs>,
    /// Whether ext4 is repaired that says it needs it.
    pub fsck: bool,
    /// Whether freed blocks are given back to the medium.
    pub discard: bool,
    /// Whether copies of the medium, with the same UUID, may be mounted beside it: images are copied, and a
    /// device that looks like another one may be a second way to the same disk.
    pub copies: bool,
    /// The options of every backend.
    pub common: Common,
}

impl Wanted {
    /// Reads `fsType`, `fsck`, `discard`, and `mountOptions` where the file system is known already.
    pub fn read(common: &Common, copies: bool, reader: &mut Reader<'_>) -> Self {
        let fs = reader_fs(common, reader);
        let fsck = reader.choice("fsck", &[("auto", true), ("never", false)]).unwrap_or(true);
        let discard = reader.flag("discard").unwrap_or(false);
        if let Some(fs) = fs {
            let _ = reader.mount_options("mountOptions", options_of(fs));
        }
        Self { fs, fsck, discard, copies, common: common.clone() }
    }

    /// How what lies in `file` is mounted. `read_only` is the superblock's own state.
    pub fn mounted(&self, fs: ImageFs, read_only: bool) -> Result<Mounted> {
        let asked = self.common.mount_options(options_of(fs))?;
        let mut settings = own_settings(fs, read_only, self.discard);
        if fs == ImageFs::Xfs && self.copies {
            settings.push(Setting::flag("nouuid"));
        }
        settings.retain(|own| !asked.options.iter().any(|option| option.name == own.name));
        settings.extend(self.common.selinux.iter().map(|label| Setting::text("context", label.as_str())));
        settings.extend(asked.options.iter().map(Setting::from));
        Ok(Mounted { fs, settings, read_only, attributes: asked.attributes })
    }
}

fn reader_fs(common: &Common, reader: &mut Reader<'_>) -> Option<ImageFs> {
    let text = common.fs_type.as_deref()?;
    let found = TYPES.iter().find(|(name, _)| *name == text).map(|(_, fs)| *fs);
    if found.is_none() {
        let words: Vec<_> = TYPES.iter().map(|(name, _)| *name).collect();
        reader
            .problem("fsType", format!("({text}) is not a file system for it; write {}", words.join(" or ")));
    }
    found
}

/// Whose mount options are allowed.
fn options_of(fs: ImageFs) -> Fs {
    match fs {
        ImageFs::Ext4 => Fs::Ext4,
        ImageFs::Xfs => Fs::Xfs,
        ImageFs::Btrfs => Fs::Btrfs,
        ImageFs::Erofs => Fs::Erofs,
        ImageFs::Squashfs => Fs::Squashfs,
    }
}

/// Whether a file system can only be read.
pub fn only_read(fs: ImageFs) -> bool {
    matches!(fs, ImageFs::Erofs | ImageFs::Squashfs)
}

/// What goes without saying. A read-only medium cannot take a journal's replay, without which the kernel
/// would not mount it; an error must not take the node down.
fn own_settings(fs: ImageFs, read_only: bool, discard: bool) -> Vec<Setting> {
    let mut settings = Vec::new();
    if fs == ImageFs::Ext4 {
        settings.push(Setting::text("errors", "remount-ro"));
    }
    match fs {
        ImageFs::Ext4 if read_only => settings.push(Setting::flag("noload")),
        ImageFs::Xfs if read_only => settings.push(Setting::flag("norecovery")),
        ImageFs::Btrfs if read_only => settings.push(Setting::text("rescue", "nologreplay")),
        ImageFs::Ext4 | ImageFs::Xfs | ImageFs::Btrfs if discard && !read_only => {
            settings.push(Setting::flag("discard"));
        }
        _ => {}
    }
    settings
}

/// A file system with its settings.
#[derive(Debug, Clone)]
pub struct Mounted {
    /// Which.
    pub fs: ImageFs,
    /// Its parameters.
    pub settings: Vec<Setting>,
    /// The superblock's own state.
    pub read_only: bool,
    /// What the pod's `mountOptions` say of the mount.
    pub attributes: BTreeSet<Attr>,
}

impl Mounted {
    /// Makes the tree from the device in hand.
    pub fn make(&self) -> Step {
        Step::Make {
            kind: self.fs.name(),
            source: Source::Device,
            settings: self.settings.clone(),
            read_only: self.read_only,
        }
    }

    /// The file system and its settings in words, which two volumes must have alike to share it.
    pub fn words(&self) -> String {
        let mut settings: Vec<String> = self.settings.iter().map(ToString::to_string).collect();
        settings.sort_unstable();
        format!("{} {}", self.fs.name(), settings.join(","))
    }

    /// What the mount allows.
    pub fn limits(&self, limits: Limits) -> (Limits, bool) {
        let limits = limits.with(&self.attributes);
        (Limits { read_only: limits.read_only || self.read_only, ..limits }, false)
    }
}

/// What was found on a medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The file system.
    pub fs: ImageFs,
    /// The medium's length in bytes.
    pub length: u64,
    /// What of it the file system says it takes.
    pub taken: Option<u64>,
    /// What an ext4 says of itself.
    pub health: Health,
}

impl Found {
    /// Whether the file system ends so early before `length` that it should grow.
    pub fn lags_behind(&self, length: u64) -> bool {
        self.taken.is_some_and(|taken| taken.saturating_add(SLACK) <= length)
    }

    /// The steps on the device in hand before it is mounted: a repair where it is needed and allowed, and an
    /// ext4 grown to `length`. resize2fs takes only what e2fsck has just seen.
    pub fn before(&self, wanted: &Wanted, shown: &Path, length: u64) -> Vec<Step> {
        if self.fs != ImageFs::Ext4 {
            return Vec::new();
        }
        let grow = self.lags_behind(length);
        // Who mounts it read-only cannot replay the journal.
        let replay = self.health.replay && wanted.common.read_only;
        let mut steps = Vec::new();
        if grow || (wanted.fsck && (self.health.suspect || replay)) {
            steps.push(Medium::Check { shown: shown.to_owned(), thorough: grow });
        }
        if grow {
            steps.push(Medium::Resize);
        }
        steps.into_iter().map(Step::Medium).collect()
    }

    /// The steps on the tree in hand: xfs and btrfs grow when they are mounted.
    pub fn after(&self, length: u64) -> Option<Step> {
        let online = matches!(self.fs, ImageFs::Xfs | ImageFs::Btrfs);
        let grow = Medium::Grow { fs: self.fs, bytes: length };
        (online && self.lags_behind(length)).then_some(Step::Medium(grow))
    }
}

/// Tells what lies in `file` of `length` bytes; `None` where it is empty. What is no file system that a
/// volume can have, is not what was asked for, or is cut off, is refused by its name.
pub fn look(file: &File, length: u64, wanted: Option<ImageFs>, shown: &Path) -> Result<Option<Found>> {
    let doing = || format!("take `{}` for a volume", shown.display());
    let refuse = |why: String| Error::caused(Kind::Config, doing(), why);
    let seen = superblock::look(file, length)?;
    let kind = match seen.content {
        Content::Empty => return Ok(None),
        Content::Filesystem(kind) => kind,
        Content::Other(what) => {
            return Err(refuse(format!("there is {what} on it"))
                .hint("name another one; nothing is written over data"));
        }
        Content::Unknown => {
            return Err(refuse("there is data on it that is no file system".to_owned())
                .hint("name another one; nothing is written over data"));
        }
    };
    let fs = image_fs(kind).ok_or_else(|| refuse(format!("{kind} is no file system for volumes")))?;
    if let Some(other) = wanted.filter(|other| *other != fs) {
        return Err(refuse(format!("`fsType` is {} and there is {kind} on it", other.name()))
            .hint("set `fsType` to what is there, or leave it out"));
    }
    if let Some(taken) = seen.taken.filter(|taken| *taken > length) {
        let (taken, length) = (Quantity::of(taken), Quantity::of(length));
        return Err(refuse(format!("its {kind} has {taken}, and it is only {length} long"))
            .hint("it was cut off: copy it again, whole"));
    }
    Ok(Some(Found { fs, length, taken: seen.taken, health: seen.health }))
}

fn image_fs(kind: Type) -> Option<ImageFs> {
    match kind {
        Type::Ext2 | Type::Ext3 | Type::Ext4 => Some(ImageFs::Ext4),
        Type::Xfs => Some(ImageFs::Xfs),
        Type::Btrfs => Some(ImageFs::Btrfs),
        Type::Squashfs => Some(ImageFs::Squashfs),
        Type::Erofs => Some(ImageFs::Erofs),
        Type::F2fs => None,
    }
}

/// The last steps of a tree that the pod may write to: the root folder as the options want it, and the
/// whole as the pod's group needs it. `mode`, `uid` and `gid` are set at every mount, on the root alone.
pub fn give(common: &Common) -> Vec<Step> {
    if common.read_only {
        return Vec::new();
    }
    let give = common.give(Some(Scope::OnRootMismatch));
    let (mode, gid) = match &give {
        // What the group needs stays: it is how the next mount sees that all is given.
        Some(_) => (common.mode.map(|mode| mode | 0o2770), None),
        None => (common.mode, common.gid),
    };
    let root = Medium::Root { mode, uid: common.uid, gid };
    let wanted = mode.is_some() || common.uid.is_some() || gid.is_some();
    wanted.then_some(Step::Medium(root)).into_iter().chain(give).collect()
}
