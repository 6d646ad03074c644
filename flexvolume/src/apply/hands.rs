//! What the steps of one call hold: descriptors, locks, secrets, and what is to be said in the end.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use node::store::Lock;
use node::{Error, Kind, Result};

use crate::kernel::mount::{self, Parameter, Tree};
use crate::options::Secrets;

/// A descriptor that an observation left for the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Handle {
    /// The folder or file that is mounted.
    Source,
}

/// The hands of one call.
#[derive(Debug)]
pub struct Hands<'a> {
    /// The volume's folder (`O_PATH`), as it was when nothing was mounted on it.
    pub target: Option<OwnedFd>,
    /// The pod's secrets.
    pub secrets: &'a Secrets,
    /// When the call has to be over.
    pub deadline: Instant,
    /// What observations opened.
    pub open: BTreeMap<Handle, OwnedFd>,
    /// Locks that end with the call, or with a child that inherited them and hangs.
    pub locks: Vec<Lock>,
    /// What a person may want to know though all went well.
    pub notes: Vec<String>,
    tree: Option<Tree>,
}

impl<'a> Hands<'a> {
    /// Empty hands.
    pub fn new(secrets: &'a Secrets, deadline: Instant) -> Self {
        let (open, locks, notes) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { target: None, secrets, deadline, open, locks, notes, tree: None }
    }

    /// The tree that the steps so far have made.
    pub fn tree(&self) -> Result<&Tree> {
        self.tree.as_ref().ok_or_else(|| Error::new(Kind::Internal, "use the tree before it is made"))
    }

    /// Takes a tree that was made in hand.
    pub fn hold(&mut self, tree: Tree) {
        self.tree = Some(tree);
    }

    /// A descriptor that an observation opened.
    pub fn opened(&self, handle: Handle) -> Result<BorrowedFd<'_>> {
        let found = self.open.get(&handle).map(AsFd::as_fd);
        found.ok_or_else(|| Error::new(Kind::Internal, format!("use {handle:?} before it is opened")))
    }

    /// Makes a file system and takes it in hand. A kernel that cannot make one unseen gets it mounted on the
    /// volume's folder at once, and the answer says so.
    pub fn made(&mut self, kind: &str, source: Option<&str>, parameters: &[Parameter], ro: bool) -> Result<()> {
        let tree = match mount::make(kind, source, parameters, ro) {
            Err(error) if mount::classic::is_missing(&error) => {
                let target = self.target()?;
                let tree = mount::classic::make(kind, source, parameters, ro, target)?;
                self.classic();
                tree
            }
            other => other?,
        };
        self.hold(tree);
        Ok(())
    }

    /// The volume's folder.
    pub fn target(&self) -> Result<BorrowedFd<'_>> {
        let target = self.target.as_ref().map(AsFd::as_fd);
        target.ok_or_else(|| Error::new(Kind::Internal, "use the volume's folder before it is opened"))
    }

    /// Moves the tree onto the volume's folder.
    pub fn attach(&mut self) -> Result<()> {
        mount::attach(self.tree()?, self.target()?)?;
        // An open tree would keep the mount busy.
        self.tree = None;
        Ok(())
    }

    fn classic(&mut self) {
        self.notes.push(
            "this kernel has no fsopen(2): the volume was mounted by mount(2), so that it could be seen half made"
                .to_owned(),
        );
    }
}
