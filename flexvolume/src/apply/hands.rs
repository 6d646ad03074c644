//! What the steps of one call hold: descriptors, locks, secrets, and what is to be said in the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use node::store::Lock;
use node::{Error, Kind, Result};

use crate::kernel::loop_device::Loop;
use crate::kernel::mount::{self, Attributes, Parameter, Tree};
use crate::options::Secrets;
use crate::plan::{Limits, Setting};
use crate::policy::{Busy, Policy};
use crate::record::{self, Record};
use crate::target::{Id, digest};

/// What is kept of the call's time for its answer.
const ANSWERING: Duration = Duration::from_secs(10);

/// What a helper that was killed still has open is closed a moment after.
const DYING: Duration = Duration::from_millis(200);

/// A descriptor that an observation left for the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Handle {
    /// The folder or file that is mounted.
    Source,
    /// The image, open as far as it is needed: to read, or to read and write it.
    Image,
    /// The folder that the image lies in (`O_PATH`).
    ImageFolder,
    /// The folder that the policy names and the source lies beneath.
    Root,
    /// A lower layer of an overlay, from 0: a folder (`O_PATH`), or a file that is open to be read.
    Layer(usize),
    /// The folder of an overlay's upper layer.
    Upper,
    /// The folder that the policy names and the upper layer lies beneath.
    UpperRoot,
}

/// The block device that a file system is made on or mounted from.
#[derive(Debug)]
pub enum Device {
    /// A loop device over an image.
    Loop(Loop),
    /// A device of the node, open, and the path that leads to it.
    Block(File, PathBuf),
}

impl Device {
    /// The path for those who must open it themselves. It is the device's while this is open.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Loop(device) => device.path(),
            Self::Block(_, path) => path.clone(),
        }
    }
}

/// The hands of one call.
#[derive(Debug)]
pub struct Hands<'a> {
    /// The volume's folder (`O_PATH`), as it was when nothing was mounted on it; `None` as long as something is.
    pub target: Option<OwnedFd>,
    /// The pod's secrets.
    pub secrets: &'a Secrets,
    /// When the call has to be over.
    pub deadline: Instant,
    /// What observations opened.
    pub open: BTreeMap<Handle, OwnedFd>,
    /// Locks that end with the call, or with a child that inherited them and hangs.
    pub locks: Vec<Lock>,
    /// The device that the steps so far have made or observations opened.
    pub device: Option<Device>,
    /// The record that this call has put on disk.
    pub remembered: Option<(Id, Record)>,
    /// Whether a device was left half formatted, so that its record has to stay.
    pub unfinished: bool,
    /// What a person may want to know though all went well.
    pub notes: Vec<String>,
    /// The lower layers of an overlay that are made so far, topmost first.
    pub lower: Vec<Tree>,
    /// How long an unmount waits for a volume that is in use, and what it does then; `None` until it is asked for.
    pub busy: Option<(Duration, Busy)>,
    tree: Option<Tree>,
}

impl<'a> Hands<'a> {
    /// Empty hands.
    pub fn new(secrets: &'a Secrets, deadline: Instant) -> Self {
        let (open, locks, notes, lower) = (BTreeMap::new(), Vec::new(), Vec::new(), Vec::new());
        Self {
            target: None,
            secrets,
            deadline,
            open,
            locks,
            device: None,
            remembered: None,
            unfinished: false,
            notes,
            lower,
            busy: None,
            tree: None,
        }
    }

    /// How long to wait for a volume that is in use, and what to do then. An unmount is done without the policy as long
    /// as nobody has the volume in use, and goes by the default where it cannot be read.
    pub fn busy(&mut self) -> (Duration, Busy) {
        *self.busy.get_or_insert_with(|| {
            let policy = Policy::load().unwrap_or_default();
            (policy.busy_wait.duration(), policy.busy)
        })
    }

    /// The device in hand.
    pub fn device(&self) -> Result<&Device> {
        self.device.as_ref().ok_or_else(|| Error::new(Kind::Internal, "use the device before it is there"))
    }

    /// The tree that the steps so far have made.
    pub fn tree(&self) -> Result<&Tree> {
        self.tree.as_ref().ok_or_else(|| Error::new(Kind::Internal, "use the tree before it is made"))
    }

    /// Takes a tree that was made in hand.
    pub fn hold(&mut self, tree: Tree) {
        self.tree = Some(tree);
    }

    /// Hands over the tree, to make another one of it. One that stands on the volume's folder already, on a
    /// kernel without detached mounts, cannot be moved.
    pub fn take_tree(&mut self) -> Result<Tree> {
        match self.tree.take_if(|tree| !tree.is_placed()) {
            Some(tree) => Ok(tree),
            None if self.is_placed() => Err(Error::new(Kind::Unavailable, "use the tree as a layer")
                .hint("layers need Linux 5.2 or newer, for fsopen(2) and open_tree(2)")),
            None => Err(Error::new(Kind::Internal, "take the tree before it is made")),
        }
    }

    /// Takes the lock of a source, such as an image's file, that volumes of several pods may name: one call
    /// about it at a time. `key` is whatever names it on this node. Waits as long as the call may take, less
    /// what an answer needs.
    pub fn lock_source(&mut self, key: &str) -> Result<()> {
        self.lock_source_for(key, Duration::MAX)
    }

    /// The same, waiting for `most` at most.
    pub fn lock_source_for(&mut self, key: &str, most: Duration) -> Result<()> {
        let name = format!("s-{}", digest(key.as_bytes()));
        if self.locks.iter().any(|lock| lock.is_called(&name)) {
            return Ok(());
        }
        let patience = self.deadline.saturating_duration_since(Instant::now()).saturating_sub(ANSWERING);
        self.locks.push(record::lock(&name, patience.min(most))?);
        Ok(())
    }

    /// The locks' descriptors, for a child that may hang: it keeps them then.
    pub fn locked(&self) -> Vec<BorrowedFd<'_>> {
        self.locks.iter().map(AsFd::as_fd).collect()
    }

    /// Ends the locks with the call, and passes on how it went. A program that a helper left in the background may have inherited them,
    /// so their names go. Only after a failure somebody may still be at work and keeps them.
    pub fn unlock<T>(&mut self, outcome: Result<T>) -> Result<T> {
        // An open descriptor would keep the mount that it was copied from busy.
        (self.tree, self.device) = (None, None);
        self.open.clear();
        // A child of a step that failed may be what still is at work.
        let at_work = outcome.is_err();
        for lock in self.locks.drain(..) {
            // A name that stays does no harm and goes with the next unmount; a volume that was mounted, told
            // as a failure, would.
            let _ = if at_work { lock.remove_if_last(DYING) } else { lock.remove() };
        }
        outcome
    }

    /// Until when a child that may hang is waited for: what comes after it, and the answer, need time, too.
    pub fn patience(&self) -> Instant {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.deadline.checked_sub(ANSWERING.min(left / 4)).unwrap_or(self.deadline)
    }

    /// A descriptor that an observation opened.
    pub fn opened(&self, handle: Handle) -> Result<BorrowedFd<'_>> {
        let found = self.open.get(&handle).map(AsFd::as_fd);
        found.ok_or_else(|| Error::new(Kind::Internal, format!("use {handle:?} before it is opened")))
    }

    /// Makes a file system and takes it in hand. A kernel that cannot make one unseen gets it mounted on the
    /// volume's folder at once, and the answer says so.
    pub fn make(&mut self, kind: &str, source: Option<&str>, settings: &[Setting], ro: bool) -> Result<()> {
        let parameters: Vec<Parameter> = settings.iter().map(parameter).collect();
        let tree = match mount::make(kind, source, &parameters, ro) {
            Err(error) if mount::classic::is_missing(&error) => {
                let tree = mount::classic::make(kind, source, &parameters, ro, self.target()?)?;
                self.classic("fsopen(2): the volume was mounted by mount(2)");
                tree
            }
            other => other?,
        };
        self.hold(tree);
        Ok(())
    }

    /// Copies the mount of what was opened, and takes the copy in hand.
    pub fn copy(&mut self, from: Handle, recursive: bool) -> Result<()> {
        let tree = match mount::clone_tree(self.opened(from)?, recursive) {
            Err(error) if mount::classic::is_missing(&error) => {
                let tree = mount::classic::bind(self.opened(from)?, self.target()?, recursive)?;
                self.classic("fsopen(2): the volume was mounted by mount(2)");
                tree
            }
            other => other?,
        };
        self.hold(tree);
        Ok(())
    }

    /// The same where the copy has to be one that nobody sees yet.
    pub fn copy_detached(&mut self, from: Handle) -> Result<()> {
        let tree = mount::clone_tree(self.opened(from)?, false).map_err(needs_trees)?;
        self.hold(tree);
        Ok(())
    }

    /// Takes from the tree what it is not to allow. A kernel that cannot restrict what nobody sees yet has the
    /// tree on the volume's folder before, and the answer says so.
    pub fn limit(&mut self, limits: &Limits, recursive: bool) -> Result<()> {
        let namespace = limits.idmap.map(|map| {
            let line = format!("{} {} {}\n", map.disk, map.seen, map.count);
            mount::user_namespace(&line, &line)
        });
        let namespace = namespace.transpose()?;
        let attributes = Attributes {
            read_only: limits.read_only,
            nosuid: limits.nosuid,
            nodev: limits.nodev,
            noexec: limits.noexec,
            noatime: limits.noatime,
            strictatime: limits.strictatime,
            nodiratime: limits.nodiratime,
            nosymfollow: limits.nosymfollow,
            propagation: limits.propagation,
            idmap: namespace.as_ref().map(AsFd::as_fd),
        };
        match mount::set_attributes(self.tree()?, &attributes, recursive) {
            Err(error) if mount::classic::is_missing(&error) && attributes.idmap.is_none() => {}
            other => return other,
        }
        if !self.is_placed()
            && let Some(tree) = self.tree.take()
        {
            mount::attach(&tree, self.target()?)?;
            self.classic("mount_setattr(2): the volume was restricted when it was mounted already");
            self.hold(Tree::placed(tree.into_fd()));
        }
        mount::classic::set_attributes(self.tree()?, &attributes, recursive)
    }

    /// Whether the tree was put onto the volume's folder before it was finished.
    pub fn is_placed(&self) -> bool {
        self.tree.as_ref().is_some_and(Tree::is_placed)
    }

    /// Lets go of the tree: an open one keeps its mount busy.
    pub fn drop_tree(&mut self) {
        self.tree = None;
    }

    /// The volume's folder.
    pub fn target(&self) -> Result<BorrowedFd<'_>> {
        let target = self.target.as_ref().map(AsFd::as_fd);
        target.ok_or_else(|| {
            let why = "another mount is still on it";
            Error::caused(Kind::Unavailable, "use the volume's folder", why)
                .hint("a mount is exchanged for another from Linux 5.12 on; delete the pod instead")
        })
    }

    /// Moves the tree onto the volume's folder.
    pub fn attach(&mut self) -> Result<()> {
        mount::attach(self.tree()?, self.target()?)?;
        // An open tree would keep the mount busy.
        if let Some(mut tree) = self.tree.take() {
            tree.keep();
        }
        Ok(())
    }

    fn classic(&mut self, what: &str) {
        self.notes.push(format!("this kernel has no {what}, so that it could be seen half made"));
    }
}

/// The error of a kernel on which nothing can be mounted that nobody sees.
pub(super) fn needs_trees(error: Box<Error>) -> Box<Error> {
    if mount::classic::is_missing(&error) {
        return error.hint("layers need Linux 5.2 or newer, for fsopen(2) and open_tree(2)");
    }
    error
}

/// A setting as the kernel takes it.
pub(super) fn parameter(setting: &Setting) -> Parameter {
    match &setting.value {
        Some(value) => Parameter::Text(setting.name.clone(), value.clone()),
        None if setting.optional => Parameter::Wish(setting.name.clone()),
        None => Parameter::Flag(setting.name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_a_child_keeps_has_its_name_after_any_failure() {
        let folder = std::env::temp_dir().join(format!("nodeplug-hands-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let secrets = Secrets::default();
        for (kind, inherited, named) in [
            (None, true, false),
            (Some(Kind::TryAgain), true, true),
            (Some(Kind::Internal), true, true),
            (Some(Kind::Kernel), true, true),
            (Some(Kind::Kernel), false, false),
        ] {
            let path = folder.join("t-1");
            let mut hands = Hands::new(&secrets, Instant::now());
            hands.locks.push(Lock::within(&path, Duration::ZERO).unwrap());
            // A forked child holds the same open file.
            let child = inherited.then(|| hands.locks[0].as_fd().try_clone_to_owned().unwrap());
            let outcome = kind.map_or(Ok(()), |kind| Err(Error::new(kind, "mount it")));
            assert_eq!(hands.unlock(outcome).is_err(), kind.is_some());
            assert_eq!(path.exists(), named, "{kind:?} {inherited}");
            drop((child, std::fs::remove_file(&path)));
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
