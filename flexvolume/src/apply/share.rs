//! Shares: a helper at work where nobody sees it, and what its words mean.

mod words;

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use node::{Context, Error, Kind, Result, store};
use rustix::fs::Mode;
use zeroize::Zeroizing;

use super::Hands;
use crate::kernel::helper::{self, Helper};
use crate::kernel::mount::{self, How, Tree};
use crate::kernel::own::{self, Scope};
use crate::kernel::path::{self, Want};
use crate::kernel::workshop;
use crate::options::Secrets;
use crate::plan::{NewFolder, Share, SubFolder, credential};
use crate::record::STATE;

/// Mounts a share in a child's own mount namespace, and takes a copy of it (or of its folder) in hand.
///
/// The helper and the child inherit the call's locks: one that the kernel does not let end keeps them.
pub fn mount(hands: &mut Hands<'_>, share: &Share) -> Result<()> {
    let stage = Path::new(STATE).join("stage");
    store::make_folder(&stage)?;
    let credentials = credentials(hands.secrets, share)?;
    let secrets = hands.secrets;
    let mut keep = hands.locked();
    keep.extend(credentials.as_ref().map(AsFd::as_fd));
    let (root, _) = workshop::build(&stage, hands.patience(), &keep, |point, deadline| {
        run(share, secrets, credentials.as_ref(), &keep, point, deadline)?;
        let tree = take(share, point)?;
        // A program that the helper left in the background keeps this namespace, and not the share.
        let parent = path::open_root(&stage)?;
        mount::detach(parent.as_fd(), point.file_name().unwrap_or_default(), How::Lazy)?;
        Ok((tree.into_fd(), Vec::new()))
    })?;
    hands.hold(Tree::detached(root));
    Ok(())
}

/// Gives the tree to the pod's group.
pub fn give(hands: &Hands<'_>, gid: u32, scope: Scope) -> Result<()> {
    let tree = hands.tree()?.as_fd();
    let mut keep = hands.locked();
    keep.push(tree);
    let until = hands.patience();
    let given =
        workshop::apart(until, &keep, || own::give(tree, gid, scope, false, until).map(|()| Vec::new()));
    given.map(drop).map_err(|error| match error.errno() {
        Some(libc::EPERM | libc::EACCES) => error.hint(
            "the server does not let this node's root change owners (root_squash): export with \
             no_root_squash, or set `fsGroupPolicy: none` and let the server say who may write",
        ),
        _ => error,
    })
}

/// The memory file with the lines of the credentials: read by the helper under its own descriptor.
fn credentials(secrets: &Secrets, share: &Share) -> Result<Option<OwnedFd>> {
    if share.credentials.is_empty() {
        return Ok(None);
    }
    let mut content = Zeroizing::new(Vec::new());
    for (word, key) in &share.credentials {
        content.extend_from_slice(word.as_bytes());
        content.push(b'=');
        content.extend_from_slice(credential(secrets.get(key).unwrap_or_default()));
        content.push(b'\n');
    }
    helper::memory_file("credentials", &content).map(Some)
}

/// Runs the helper to its end.
fn run(
    share: &Share,
    secrets: &Secrets,
    credentials: Option<&OwnedFd>,
    keep: &[BorrowedFd<'_>],
    point: &Path,
    deadline: Instant,
) -> Result<()> {
    let file = credentials.map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let arguments = share.arguments(point, file.as_deref());
    let arguments: Vec<OsString> = arguments.into_iter().map(OsString::from).collect();
    let redact = |text: &str| secrets.redact(text);
    let run = Helper { keep, redact: &redact, ..Helper::new(&share.helper, &arguments, deadline) };
    let outcome = helper::run(&run)?;
    if outcome.status.success() {
        return Ok(());
    }
    Err(words::refused(share.protocol, outcome.status, &outcome.text))
}

/// A copy of what the helper mounted, with the wanted folder as its root.
fn take(share: &Share, point: &Path) -> Result<Tree> {
    let root = path::open_root(point)?;
    if !mount::is_root(root.as_fd()).doing(Kind::Kernel, || "look at what was mounted".to_owned())? {
        let why = "it ended well, and nothing is mounted";
        return Err(Error::caused(Kind::Mismatch, format!("run `{}`", share.helper.display()), why)
            .hint("check that the policy's `helper` is the distribution's own"));
    }
    let tree = match &share.folder {
        None => mount::clone_tree(root.as_fd(), false),
        Some(folder) => mount::clone_tree(open(&root, folder)?.as_fd(), false),
    };
    tree.map_err(|error| match error.errno() {
        Some(libc::ENOSYS) => error.hint("shares need Linux 5.2 or later, for open_tree(2)"),
        _ => error,
    })
}

/// The folder of the share, without following a symlink that somebody put there.
fn open(root: &OwnedFd, folder: &SubFolder) -> Result<OwnedFd> {
    match (path::beneath(root.as_fd(), &folder.path, Want::Folder), folder.create) {
        (Err(error), Some(new)) if error.errno() == Some(libc::ENOENT) => make(root, &folder.path, new),
        (Err(error), None) if error.errno() == Some(libc::ENOENT) => {
            Err(error.hint("make the folder on the server, or set `createSubDir: \"true\"`"))
        }
        (found, _) => found,
    }
}

/// A new folder of the share. Runs in a child whose umask is its own.
fn make(root: &OwnedFd, relative: &Path, new: NewFolder) -> Result<OwnedFd> {
    if new.owner.is_some() {
        return path::make_folders(root.as_fd(), relative, new.mode, new.owner).map_err(|error| {
            error.hint(
                "where the server lets no client choose owners (root_squash), leave `uid` and `gid` out, or \
                 make the folder on the server",
            )
        });
    }
    rustix::process::umask(Mode::empty());
    path::make_folders_as_they_come(root.as_fd(), relative, new.mode)
        .map_err(|error| error.hint("make the folder on the server, or let this node's root write there"))
}
