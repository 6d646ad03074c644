//! The node's /dev, and files elsewhere: what a path leads to, without opening it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::FileType;

use crate::config::{FileKind, NodeOptions};
use crate::inventory::{DeviceNumber, Node};

use super::rooted::Rooted;

/// The node's /dev.
#[derive(Debug)]
pub struct Dev {
    rooted: Rooted,
}

/// What is behind a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// The path behind all symlinks, as the node names it.
    pub real: PathBuf,
    /// What it is.
    pub kind: FileKind,
    /// The number of a device node.
    pub number: Option<DeviceNumber>,
}

impl Dev {
    /// The node's /dev where this process sees it.
    pub fn new(seen: &Path) -> Self {
        Self { rooted: Rooted::new("/dev", seen) }
    }

    /// Whether the node's path is below /dev.
    pub fn holds(&self, named: &Path) -> bool {
        self.rooted.holds(named)
    }

    /// Where this process sees a path of the node; one outside /dev as it is.
    pub fn seen(&self, named: &Path) -> PathBuf {
        self.rooted.to_seen(named)
    }

    /// The same behind all symlinks, where there is something.
    pub fn seen_behind(&self, named: &Path) -> Option<PathBuf> {
        self.real(named).ok().map(|real| self.seen(&real))
    }

    /// What a path of the node leads to, or why it can't be had.
    pub fn behind(&self, named: &Path) -> Result<Behind, String> {
        speakable(named)?;
        let (real, found) = self.found(named)?;
        speakable(&real)?;
        let (kind, block) = match FileType::from_raw_mode(found.mode()) {
            FileType::CharacterDevice => (FileKind::Char, Some(false)),
            FileType::BlockDevice => (FileKind::Block, Some(true)),
            FileType::RegularFile => (FileKind::File, None),
            FileType::Directory => (FileKind::Folder, None),
            FileType::Fifo => (FileKind::Fifo, None),
            FileType::Socket => (FileKind::Socket, None),
            FileType::Symlink | FileType::Unknown => return Err("it is of no known kind".to_owned()),
        };
        let (major, minor) = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
        let number = block.map(|block| DeviceNumber { block, major, minor });
        Ok(Behind { real, kind, number })
    }

    fn found(&self, named: &Path) -> Result<(PathBuf, fs::Metadata), String> {
        if self.holds(named) {
            let (seen, found) = self.rooted.find(&self.seen(named)).map_err(|stray| stray.to_string())?;
            return Ok((self.rooted.to_named(&seen), found));
        }
        let real = self.real(named)?;
        let found = fs::symlink_metadata(&real).map_err(|error| why(&real, &error))?;
        Ok((real, found))
    }

    fn real(&self, named: &Path) -> Result<PathBuf, String> {
        if !self.holds(named) {
            return fs::canonicalize(named).map_err(|error| why(named, &error));
        }
        let real = self.rooted.resolve(&self.seen(named)).map_err(|stray| stray.to_string())?;
        Ok(self.rooted.to_named(&real))
    }
}

impl Behind {
    /// A node that is handed out by this path.
    pub fn node(self, path: &Path) -> Node {
        Node { path: path.to_owned(), real: self.real, device: self.number, options: NodeOptions::default() }
    }
}

/// In a person's words: `a character device`.
pub fn kind_words(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Char => "a character device",
        FileKind::Block => "a block device",
        FileKind::File => "a plain file",
        FileKind::Folder => "a folder",
        FileKind::Fifo => "a FIFO",
        FileKind::Socket => "a socket",
    }
}

/// The kubelet's messages are UTF-8, and what has line breaks in its name is nobody's device.
fn speakable(path: &Path) -> Result<(), String> {
    match path.to_str() {
        None => Err("its name is not UTF-8".to_owned()),
        Some(text) if text.chars().any(char::is_control) => Err("its name has control characters".to_owned()),
        Some(_) if path.components().any(|part| part == Component::ParentDir) => {
            Err("its name has `..` in it".to_owned())
        }
        Some(_) => Ok(()),
    }
}

fn why(path: &Path, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("`{}` is not there", super::shown(path)),
        _ => format!("`{}` can't be looked at: {error}", super::shown(path)),
    }
}
