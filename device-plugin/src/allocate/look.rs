//! Where the node's files are seen, and whether what is handed out is there.
//!
//! In a container the node's /dev and /sys may be mounted elsewhere, and links in them still say `/dev/…`: so
//! links are followed here, one by one, and not by the kernel.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use node::{Error, Kind, Result};
use rustix::fs::FileType;

use super::given::{Given, Hand, Was};
use crate::config::{FileKind, Host};
use crate::inventory::DeviceNumber;

/// As many links as the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// A path as the node names it, as this process names it. No link is followed.
pub fn seen(host: &Host, path: &Path) -> PathBuf {
    for (own, theirs) in [(&host.dev, "/dev"), (&host.sys, "/sys")] {
        if let Ok(rest) = path.strip_prefix(theirs) {
            // Joining nothing would add a slash, and a file with a slash behind it is none.
            return if rest.as_os_str().is_empty() { own.clone() } else { own.join(rest) };
        }
    }
    path.strip_prefix("/").map_or_else(|_| path.to_owned(), |rest| host.root.join(rest))
}

/// What is behind all links, as the node names it, with what it is.
pub fn behind(host: &Host, path: &Path) -> io::Result<(PathBuf, Metadata)> {
    let mut links = 0;
    let mut done = PathBuf::from("/");
    let mut rest: Vec<PathBuf> = parts(path);
    let mut about = std::fs::symlink_metadata(seen(host, &done))?;
    while let Some(part) = rest.pop() {
        if part.as_os_str() == ".." {
            done.pop();
            about = std::fs::symlink_metadata(seen(host, &done))?;
            continue;
        }
        done.push(part);
        let here = seen(host, &done);
        about = std::fs::symlink_metadata(&here)?;
        if !about.is_symlink() {
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        let target = std::fs::read_link(&here)?;
        done.pop();
        if target.is_absolute() {
            done = PathBuf::from("/");
        }
        rest.extend(parts(&target));
    }
    Ok((done, about))
}

/// Where others may write, a folder could be exchanged for a symlink to any other.
fn same_file(given: &Given, was: &Was, real: &Path, about: &Metadata) -> Result<()> {
    let shown = given.host.display();
    let why = match kind(about) {
        _ if real != was.real => {
            format!("it leads to `{}` now and led to `{}`", real.display(), was.real.display())
        }
        Some(kind) if !was.kinds.contains(&kind) => {
            format!("it is {} now, which the resource has none of", kind.words())
        }
        _ => return Ok(()),
    };
    Err(Error::caused(Kind::Mismatch, format!("look at `{shown}`"), why).hint(format!(
        "it was exchanged a moment ago: look with `ls -ld {shown}` who may write there, then start the pod again"
    )))
}

/// What a file is; none for what is of no known kind.
pub fn kind(about: &Metadata) -> Option<FileKind> {
    match FileType::from_raw_mode(about.mode()) {
        FileType::CharacterDevice => Some(FileKind::Char),
        FileType::BlockDevice => Some(FileKind::Block),
        FileType::RegularFile => Some(FileKind::File),
        FileType::Directory => Some(FileKind::Folder),
        FileType::Fifo => Some(FileKind::Fifo),
        FileType::Socket => Some(FileKind::Socket),
        FileType::Symlink | FileType::Unknown => None,
    }
}

/// The components of a path, last first, without the root and `.`.
fn parts(path: &Path) -> Vec<PathBuf> {
    let part = |c: Component<'_>| {
        matches!(c, Component::Normal(_) | Component::ParentDir).then(|| c.as_os_str().into())
    };
    path.components().rev().filter_map(part).collect()
}

/// Whether the file is there as it has to be; `false` is only for what is optional.
pub(super) fn is_there(host: &Host, given: &Given) -> Result<bool> {
    let shown = given.host.display();
    match behind(host, &given.host) {
        Ok((real, about)) => same(given, &real, &about).map(|()| true),
        Err(e)
            if given.optional
                && matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(false)
        }
        Err(e) => {
            let hint = match given.hand {
                Hand::Node(..) => {
                    format!("look with `ls -lL {shown}` whether the device is plugged in and has its driver")
                }
                Hand::Mount(_) => format!(
                    "make `{shown}` on the node or mark the mount `optional`; in a container the daemon has to see it, \
                     too (`host.root`)"
                ),
            };
            Err(Error::caused(Kind::Unavailable, format!("look at `{shown}`"), e).hint(hint))
        }
    }
}

/// Whether it is what was found.
fn same(given: &Given, real: &Path, about: &Metadata) -> Result<()> {
    let doing = || format!("look at `{}`", given.host.display());
    let Hand::Node(_, expected) = &given.hand else {
        return given.was.as_ref().map_or(Ok(()), |was| same_file(given, was, real, about));
    };
    let Some(now) = number(about) else {
        return Err(Error::caused(Kind::Mismatch, doing(), "it is no device node")
            .hint("hand out by `allocate.mounts` what is none"));
    };
    match expected {
        Some(before) if *before != now => {
            let why = format!("it is {} now and was {}", words(now), words(*before));
            Err(Error::caused(Kind::Mismatch, doing(), why)
                .hint("the device was plugged in anew a moment ago; start the pod again"))
        }
        _ => Ok(()),
    }
}

/// The device number of a device node.
pub fn number(about: &Metadata) -> Option<DeviceNumber> {
    let block = match kind(about)? {
        FileKind::Char => false,
        FileKind::Block => true,
        _ => return None,
    };
    let device = about.rdev();
    Some(DeviceNumber { block, major: rustix::fs::major(device), minor: rustix::fs::minor(device) })
}

fn words(device: DeviceNumber) -> String {
    let kind = if device.block { "block" } else { "character" };
    format!("the {kind} device {}:{}", device.major, device.minor)
}
