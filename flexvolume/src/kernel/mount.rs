//! Mounts by file descriptor (fsopen(2), open_tree(2), mount_setattr(2), move_mount(2)).
//!
//! A [`Tree`] is made detached, filled and restricted through its descriptor, and put onto its target as
//! the last step, so that nobody ever sees half a mount. A detached tree whose descriptor is closed is
//! gone, which is all the clean-up that a failure or a `kill -9` needs.

mod attributes;
pub mod classic;
mod detach;
mod identity;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use node::{Context, Error, Kind, Result};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

pub use attributes::{Attributes, Propagation, set_attributes, user_namespace};
pub use detach::{How, detach, detach_all_below, detach_apart};
pub use identity::{ask_server, is_root, listed_at, listed_id, unique_id};

/// Longer than any message that a file system puts into its context; a longer one is left out.
const MESSAGE: usize = 4096;
/// No context keeps more messages (`struct fc_log` has room for eight).
const MESSAGES: usize = 16;

/// A mount, held by a descriptor of its root.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    at: At,
}

/// Where a tree is.
#[derive(Debug)]
enum At {
    /// Nowhere: it is gone with its descriptor.
    Nowhere,
    /// At its target already, before it is finished: it is unmounted when it is dropped.
    Unfinished(classic::Unfinished),
    /// At its target.
    Placed,
}

impl Tree {
    /// A detached mount that came from elsewhere, such as another process's workshop.
    pub fn detached(root: OwnedFd) -> Self {
        Self { root, at: At::Nowhere }
    }

    /// A mount that is at its target already, such as one made by mount(2), which knows no detached ones.
    pub fn placed(root: OwnedFd) -> Self {
        Self { root, at: At::Placed }
    }

    /// A mount that is at its target, and goes from there when it is dropped before [`Tree::keep`].
    fn unfinished(root: OwnedFd, place: classic::Unfinished) -> Self {
        Self { root, at: At::Unfinished(place) }
    }

    /// Leaves the mount where it is, whole.
    pub fn keep(&mut self) {
        if let At::Unfinished(place) = std::mem::replace(&mut self.at, At::Placed) {
            place.keep();
        }
    }

    /// Whether the mount is at its target already, so that [`attach`] has nothing to do.
    pub fn is_placed(&self) -> bool {
        !matches!(self.at, At::Nowhere)
    }

    /// The descriptor of the mount's root (`O_PATH`), to send it to another process.
    pub fn into_fd(self) -> OwnedFd {
        self.root
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// One parameter of a file system, as fsconfig(2) takes it.
pub enum Parameter {
    /// A word alone: `noswap`.
    Flag(String),
    /// The same, and the file system is made without it where the kernel does not know it.
    Wish(String),
    /// A word with a value: `size`, `64M`.
    Text(String, String),
    /// A word with an open file: `fd` of fuse, `lowerdir+` of overlay. Where the kernel wants text
    /// instead, it gets the number for `fd`, and `/proc/self/fd/N` for everything else.
    Descriptor(String, OwnedFd),
}

impl Parameter {
    /// The value that must never be shown.
    fn secret(&self) -> Option<&str> {
        match self {
            Self::Text(name, value) if matches!(name.as_str(), "password" | "pass" | "password2") => {
                Some(value)
            }
            _ => None,
        }
    }
}

impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => f.write_str(name),
            Self::Wish(name) => write!(f, "{name}?"),
            Self::Text(name, _) if self.secret().is_some() => write!(f, "{name}=(not shown)"),
            Self::Text(name, value) => write!(f, "{name}={value}"),
            Self::Descriptor(name, file) => write!(f, "{name}=(descriptor {})", file.as_raw_fd()),
        }
    }
}

/// Makes a file system of `kind` and a detached mount of it. `read_only` is the file system's own state
/// and not only the mount's. An error carries what the kernel said about it.
pub fn make(kind: &str, source: Option<&str>, parameters: &[Parameter], read_only: bool) -> Result<Tree> {
    let doing = || format!("make a `{kind}`");
    let context = match fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC) {
        Err(Errno::NODEV) => return Err(unknown(kind, doing())),
        other => other.map_err(io::Error::from).doing(Kind::Kernel, doing)?,
    };
    configure(&context, source, parameters, read_only)
        .map_err(|e| refused(kind, parameters, &messages(&context), e))?;
    let attributes = if read_only { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|e| refused(kind, parameters, &messages(&context), e))?;
    Ok(Tree::detached(root))
}

fn configure(
    context: &OwnedFd,
    source: Option<&str>,
    parameters: &[Parameter],
    read_only: bool,
) -> rustix::io::Result<()> {
    if let Some(source) = source {
        fsconfig_set_string(context, "source", source)?;
    }
    if read_only {
        fsconfig_set_flag(context, "ro")?;
    }
    for parameter in parameters {
        match parameter {
            Parameter::Flag(name) => fsconfig_set_flag(context, name.as_str())?,
            Parameter::Wish(name) => match fsconfig_set_flag(context, name.as_str()) {
                // What the kernel said about it is nobody's trouble.
                Err(Errno::INVAL) => drop(messages(context)),
                other => other?,
            },
            Parameter::Text(name, value) => {
                fsconfig_set_string(context, name.as_str(), value.as_str())?;
            }
            Parameter::Descriptor(name, file) => set_descriptor(context, name, file)?,
        }
    }
    fsconfig_create(context)
}

fn set_descriptor(context: &OwnedFd, name: &str, file: &OwnedFd) -> rustix::io::Result<()> {
    match fsconfig_set_fd(context, name, file) {
        // overlay takes descriptors since Linux 6.13, fuse since 6.11; before, both take text alone.
        Err(Errno::INVAL) => {
            let _ = messages(context);
            fsconfig_set_string(context, name, as_text(name, file))
        }
        other => other,
    }
}

/// An open file as a parameter's text.
fn as_text(name: &str, file: &OwnedFd) -> String {
    if name == "fd" { file.as_raw_fd().to_string() } else { magic_path(file) }
}

/// The path by which this process, and nobody else, reaches an open file.
fn magic_path(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

/// What the file system said, without the level in front: each read takes one message out of the context
/// (fsopen(2), "Message retrieval").
fn messages(context: &OwnedFd) -> Vec<String> {
    let mut said = Vec::new();
    let mut buffer = vec![0; MESSAGE];
    for _ in 0..MESSAGES {
        match rustix::io::read(context, &mut buffer) {
            Ok(length) => {
                let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
                let words = text.split_once(' ').map_or(text.as_str(), |(_level, words)| words);
                said.push(words.trim().to_owned());
            }
            Err(Errno::MSGSIZE | Errno::INTR) => {}
            Err(_) => break,
        }
    }
    said
}

/// The error of a file system that was not made: the kernel's words, and the errno below them.
fn refused(kind: &str, parameters: &[Parameter], said: &[String], errno: Errno) -> Box<Error> {
    let doing = format!("make a `{kind}`");
    let cause = io::Error::from(errno);
    let mut words = said.join("; ");
    for secret in parameters.iter().filter_map(Parameter::secret).filter(|s| !s.is_empty()) {
        words = words.replace(secret, "(not shown)");
    }
    let sort = if errno == Errno::BUSY { Kind::TryAgain } else { Kind::Kernel };
    if errno == Errno::PERM {
        let error = Error::caused(sort, doing, cause);
        return error.hint("run as root with CAP_SYS_ADMIN in the node's own user namespace");
    }
    if words.is_empty() {
        // Many file systems tell the kernel's log alone.
        return Error::caused(sort, doing, cause).hint("the node's kernel log (dmesg) may say more");
    }
    Error::caused(sort, doing, Error::caused(sort, words, cause))
}

fn unknown(kind: &str, doing: String) -> Box<Error> {
    Error::caused(Kind::Unavailable, doing, io::Error::from(Errno::NODEV)).hint(format!(
        "this node's kernel has no file system `{kind}`: load its module (modprobe {kind}) or use another kernel"
    ))
}

/// A detached copy of the mount that `from` lies on, with `from` as its root: a bind mount that is not
/// anywhere yet. With `recursive`, the mounts below come along. `from` may be an `O_PATH` descriptor.
pub fn clone_tree(from: BorrowedFd<'_>, recursive: bool) -> Result<Tree> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(from, c"", flags)
        .map(Tree::detached)
        .map_err(io::Error::from)
        .doing(Kind::Kernel, || "clone the mount of the source".to_owned())
}

/// Puts a detached tree onto the folder or file that `target` holds. A tree that is in its place already
/// stays there.
pub fn attach(tree: &Tree, target: BorrowedFd<'_>) -> Result<()> {
    if tree.is_placed() {
        return Ok(());
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, c"", target, c"", flags)
        .map_err(io::Error::from)
        .doing(Kind::Kernel, || "move the mount onto its target".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown_and_neither_is_its_echo() {
        let parameters =
            [Parameter::Text("pass".into(), "hunter2".into()), Parameter::Text("size".into(), "1M".into())];
        assert_eq!(format!("{parameters:?}"), "[pass=(not shown), size=1M]");
        let error = refused("cifs", &parameters, &["cifs: bad word 'hunter2'".into()], Errno::INVAL);
        assert_eq!(
            error.chain(),
            "make a `cifs`: cifs: bad word '(not shown)': Invalid argument (os error 22)"
        );
        assert_eq!(error.errno(), Some(libc::EINVAL));
    }
}
