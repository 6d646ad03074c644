//! What is done to the medium that a volume's file system lies on: an image file, the loop device over it,
//! or a block device. The medium itself is in [`crate::apply::Hands`].

use std::fmt;
use std::path::PathBuf;

use crate::options::Quantity;
use crate::policy::ImageFs;
use crate::record::Unfinished;

/// One step on the medium in hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Medium {
    /// Makes an image without a byte that root alone may open, and takes it in hand. This is its name for now.
    Create(PathBuf),
    /// Gives the image its own name, which nothing else has.
    Publish {
        /// The name so far.
        from: PathBuf,
        /// The image's name.
        to: PathBuf,
    },
    /// Removes a file that a mount made.
    Remove(PathBuf),
    /// Removes an image that goes with its volume, when no loop device has it any more.
    Delete(PathBuf),
    /// Makes the image in hand longer; never shorter.
    Lengthen {
        /// In bytes.
        to: u64,
        /// How its space is taken.
        allocate: Allocate,
    },
    /// Puts a loop device over the image in hand.
    Loop {
        /// Nothing is written through it.
        read_only: bool,
        /// No other loop device may have the image.
        alone: bool,
    },
    /// Takes this loop device in hand, which another volume has.
    Reuse(u32),
    /// Tells the loop device in hand that its image has another length.
    Capacity,
    /// Makes a file system on the device in hand.
    Format {
        /// Which.
        fs: ImageFs,
        /// The words for mkfs, without the device.
        arguments: Vec<String>,
    },
    /// Notes that the device in hand is formatted: what is on it from now on is data.
    Formatted,
    /// Formats a device whose formatting was cut off, unless it was not.
    Finish(Unfinished),
    /// Repairs the ext4 on the device in hand as far as that asks for no decision.
    Check {
        /// For a person: the image or the device.
        shown: PathBuf,
        /// Also where it says that it is in order.
        thorough: bool,
    },
    /// Grows the ext4 on the device in hand, which is not mounted.
    Resize,
    /// Grows the mounted file system to the end of its device.
    Grow {
        /// Which.
        fs: ImageFs,
        /// The device's size.
        bytes: u64,
    },
    /// Sets the permissions and the owner of the root folder; what is `None` stays.
    Root {
        /// Permissions.
        mode: Option<u32>,
        /// Owner.
        uid: Option<u32>,
        /// Group.
        gid: Option<u32>,
    },
}

/// How an image gets its space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Allocate {
    /// When it is written.
    #[default]
    Sparse,
    /// All at once.
    Full,
}

impl Medium {
    /// What takes the step back.
    pub fn inverse(&self) -> Option<Self> {
        match self {
            Self::Create(path) => Some(Self::Remove(path.clone())),
            // It was made by this call and nobody has seen it.
            Self::Publish { to, .. } => Some(Self::Remove(to.clone())),
            // A longer image is none the worse, and a loop device ends with its descriptor.
            Self::Lengthen { .. }
            | Self::Loop { .. }
            | Self::Reuse(_)
            | Self::Capacity
            | Self::Format { .. }
            | Self::Formatted
            | Self::Finish(_)
            | Self::Check { .. }
            | Self::Resize
            | Self::Grow { .. }
            | Self::Root { .. }
            | Self::Remove(_)
            | Self::Delete(_) => None,
        }
    }
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = |allocate: &Allocate| if *allocate == Allocate::Full { "allocated" } else { "sparse" };
        match self {
            Self::Create(path) => write!(f, "make the image `{}`", path.display()),
            Self::Publish { from, to } => write!(f, "rename `{}` to `{}`", from.display(), to.display()),
            Self::Remove(path) => write!(f, "remove `{}`", path.display()),
            Self::Delete(path) => write!(f, "delete the image `{}`", path.display()),
            Self::Lengthen { to, allocate } => {
                write!(f, "make the image {} long, {}", Quantity::of(*to), how(allocate))
            }
            Self::Loop { read_only, alone } => {
                let read_only = if *read_only { " read-only" } else { "" };
                let alone = if *alone { ", alone" } else { "" };
                write!(f, "put a{read_only} loop device over the image{alone}")
            }
            Self::Reuse(number) => write!(f, "take the loop device {number}"),
            Self::Capacity => f.write_str("tell the loop device the image's length"),
            Self::Format { fs, arguments } => {
                write!(f, "make a file system: `mkfs.{} {}`", fs.name(), arguments.join(" "))
            }
            Self::Formatted => f.write_str("remember that it is formatted"),
            Self::Finish(Unfinished { device, fs, .. }) => {
                write!(f, "finish the {} on `{}`", fs.name(), device.display())
            }
            Self::Check { shown, thorough } => {
                let flags = if *thorough { "-p -f" } else { "-p" };
                write!(f, "check `{}` by `e2fsck {flags}`", shown.display())
            }
            Self::Resize => f.write_str("grow the unmounted ext4 by `resize2fs`"),
            Self::Grow { fs, bytes } => {
                write!(f, "grow the mounted {} to {}", fs.name(), Quantity::of(*bytes))
            }
            Self::Root { mode, uid, gid } => {
                f.write_str("set the root folder's")?;
                mode.map_or(Ok(()), |mode| write!(f, " mode {mode:04o}"))?;
                uid.map_or(Ok(()), |uid| write!(f, " owner {uid}"))?;
                gid.map_or(Ok(()), |gid| write!(f, " group {gid}"))
            }
        }
    }
}
