//! The node's /dev, and files elsewhere: what a path leads to, without opening it.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::allocate::{behind, kind, number, seen};
use crate::config::{FileKind, Host, NodeOptions};
use crate::inventory::{DeviceNumber, Node};

use super::rooted::{Rooted, Stray};

/// The node's /dev, and where the rest of its files is seen.
#[derive(Debug)]
pub struct Dev {
    rooted: Rooted,
    host: Host,
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
    /// The node's files where this process sees them.
    pub fn new(host: &Host) -> Self {
        Self { rooted: Rooted::new("/dev", &host.dev), host: host.clone() }
    }

    /// Whether the node's path is below /dev.
    pub fn holds(&self, named: &Path) -> bool {
        self.rooted.holds(named)
    }

    /// Where this process sees a path of the node.
    pub fn seen(&self, named: &Path) -> PathBuf {
        if self.holds(named) { self.rooted.to_seen(named) } else { seen(&self.host, named) }
    }

    /// The same behind all symlinks, where there is something.
    pub fn seen_behind(&self, named: &Path) -> Option<PathBuf> {
        self.real(named).ok().map(|real| self.seen(&real))
    }

    /// The same, for a path that was looked for in a folder: outside /dev, where somebody else may write, no symlink
    /// leads out of it.
    pub fn behind_within(&self, named: &Path, folder: &Path) -> Result<Behind, String> {
        let behind = self.behind(named)?;
        if self.holds(named) {
            return Ok(behind);
        }
        // The folder itself may be behind a symlink, as /var/run is.
        let folder = self.real(folder)?;
        if behind.real.starts_with(&folder) {
            return Ok(behind);
        }
        Err(Stray::Outside(behind.real).to_string())
    }

    /// What a path of the node leads to, or why it can't be had.
    pub fn behind(&self, named: &Path) -> Result<Behind, String> {
        speakable(named)?;
        let (real, found) = self.found(named)?;
        speakable(&real)?;
        let kind = kind(&found).ok_or_else(|| "it is of no known kind".to_owned())?;
        Ok(Behind { real, kind, number: number(&found) })
    }

    fn found(&self, named: &Path) -> Result<(PathBuf, fs::Metadata), String> {
        if self.holds(named) {
            let (seen, found) = self.rooted.find(&self.seen(named)).map_err(|stray| stray.to_string())?;
            return Ok((self.rooted.to_named(&seen), found));
        }
        behind(&self.host, named).map_err(|error| why(named, &error))
    }

    fn real(&self, named: &Path) -> Result<PathBuf, String> {
        if !self.holds(named) {
            return Ok(self.found(named)?.0);
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

fn why(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            format!("`{}` is not there", super::shown(path))
        }
        _ if error.raw_os_error() == Some(libc::ELOOP) => Stray::Circle.to_string(),
        _ => format!("`{}` can't be looked at: {error}", super::shown(path)),
    }
}
