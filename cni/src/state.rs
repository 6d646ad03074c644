//! What this node remembers of its attachments, and whether that memory is whole.
//!
//! The folder holds the records, a marker that names the boot they belong to, and the slots of the
//! reaper. When the marker names another boot, no kernel object of these records is left: the first ADD
//! drops them and gives their leases back. When the marker is missing although the kernel holds our
//! nftables table, the memory was lost in this boot: DEL then looks for leftovers by owner as well.

use std::path::{Path, PathBuf};

use node::{Result, boot, store};

use crate::attachment::{Attachment, Attachments, STATE};
use crate::claims::Claims;
use crate::kernel::link;
use crate::owner::Owner;

/// The plugin whose records name leases of interfaces that other plugins make.
pub const LESSOR: &str = "host-local";

const WHOLE: &str = "whole";
const PARTIAL: &str = "partial";

/// The node's memory in this boot.
#[derive(Debug)]
pub struct State {
    root: PathBuf,
    /// This boot's id.
    pub boot: String,
    /// The records.
    pub attachments: Attachments,
    /// The records that may name leases.
    pub lessees: Lessees,
}

/// The two folders of records that name leases.
#[derive(Debug, Clone)]
pub struct Lessees {
    /// Interfaces that this program made.
    pub own: Attachments,
    /// Interfaces of other plugins, which asked for addresses alone.
    pub others: Attachments,
}

impl Lessees {
    /// Those below `root` (see [`STATE`]).
    pub fn at(root: &Path) -> Self {
        Self { own: Attachments::at(root), others: Attachments::chained(root, LESSOR) }
    }

    /// Both folders.
    pub fn each(&self) -> [&Attachments; 2] {
        [&self.own, &self.others]
    }

    /// Whether either folder has a record of `owner`.
    pub fn has(&self, owner: &Owner) -> bool {
        self.each().iter().any(|a| a.has(owner))
    }
}

impl State {
    /// The memory at its usual place, of interfaces that this program makes.
    pub fn open() -> Result<Self> {
        let root = PathBuf::from(STATE);
        Self::new(Attachments::at(&root), root)
    }

    /// The memory of what the chained plugin `name` adds to other plugins' interfaces.
    pub fn chained(name: &str) -> Result<Self> {
        let root = PathBuf::from(STATE);
        Self::new(Attachments::chained(&root, name), root)
    }

    fn new(attachments: Attachments, root: PathBuf) -> Result<Self> {
        Ok(Self { boot: boot::id()?, attachments, lessees: Lessees::at(&root), root })
    }

    /// Held by whoever takes an attachment back, shared, and by a repair alone: it must not put back what is
    /// on its way out. `None` where nothing was ever attached.
    pub fn taking_back(&self) -> Result<Option<store::Lock>> {
        match store::Lock::shared(&self.repair_lock()) {
            Err(e) if e.errno() == Some(libc::ENOENT) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Waits until nobody takes an attachment back, and keeps them waiting.
    pub fn repairing(&self) -> Result<store::Lock> {
        store::make_folder(&self.root)?;
        store::Lock::exclusive(&self.repair_lock())
    }

    /// Notes that nf_tables was found without our table although pods may live. ADDs that begin at the same moment
    /// find that together.
    pub fn note_flush(&self) -> Result<()> {
        store::touch(&self.flushed())
    }

    /// Whether a flush was noticed and not mended since.
    pub fn was_flushed(&self) -> bool {
        self.flushed().exists()
    }

    /// Notes that everything is back.
    pub fn note_mended(&self) -> Result<()> {
        store::remove(&self.flushed())
    }

    fn repair_lock(&self) -> PathBuf {
        self.root.join("repair")
    }

    fn flushed(&self) -> PathBuf {
        self.root.join("flushed")
    }

    /// Every folder of records.
    pub fn everywhere(&self) -> Result<Vec<Attachments>> {
        Attachments::everywhere(&self.root)
    }

    /// Whether any folder has a record of `owner`. One that cannot be looked into counts as having it: what
    /// may be another pod's is not taken.
    pub fn knows(&self, owner: &Owner) -> bool {
        let linked = || link::index(&owner.host_ifname()).is_ok_and(|i| i.is_some());
        // A link of ours without a record: the record was lost, the pod was not.
        self.attachments.has(owner)
            || linked()
            || self.everywhere().map_or(true, |all| all.iter().any(|a| a.has(owner)))
    }

    /// The pod of `owner` as people know it: by its record, or by its container.
    pub fn name_of(&self, owner: &Owner) -> String {
        let records = self.everywhere().unwrap_or_default();
        let pod = records.iter().find_map(|all| all.find(owner).ok().flatten()?.pod);
        pod.map_or_else(|| format!("the container `{owner}`"), |pod| format!("the pod `{pod}`"))
    }

    /// Whose the node's ports are.
    pub fn claims(&self) -> Claims {
        Claims::at(&self.root)
    }

    /// The file whose bytes count the reaper's children.
    pub fn reaper_slots(&self) -> PathBuf {
        self.root.join("reapers")
    }

    /// Whether every attachment of this boot has its record.
    pub fn is_whole(&self) -> Result<bool> {
        Ok(self.marker()?.is_some_and(|(boot, whole)| boot == self.boot && whole))
    }

    /// Makes the memory this boot's own before the first record is written: `stale` takes back what an
    /// earlier boot's record still holds on disk; `traces` tells whether the kernel has objects of ours.
    pub fn begin(
        &self,
        stale: impl Fn(&Attachment) -> Result<()>,
        traces: impl FnOnce() -> Result<bool>,
    ) -> Result<()> {
        if self.is_this_boots()? {
            return Ok(());
        }
        store::make_folder(&self.root)?;
        let _one_at_a_time = store::Lock::exclusive(&self.root.join("lock"))?;
        if self.is_this_boots()? {
            return Ok(());
        }
        let lost = traces()?;
        for attachments in self.everywhere()? {
            for attachment in attachments.all()?.iter().filter(|a| a.boot != self.boot) {
                stale(attachment)?;
                attachments.remove(&attachment.owner)?;
            }
            attachments.tidy()?;
        }
        let text = format!("{}\n{}\n", self.boot, if lost { PARTIAL } else { WHOLE });
        store::write_whole(&self.marker_path(), text.as_bytes())
    }

    /// Whether the memory was made this boot's own.
    pub fn is_this_boots(&self) -> Result<bool> {
        Ok(self.marker()?.is_some_and(|(boot, _)| boot == self.boot))
    }

    fn marker(&self) -> Result<Option<(String, bool)>> {
        let Some(bytes) = store::read(&self.marker_path())? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        let (boot, whole) = (lines.next().unwrap_or_default(), lines.next() == Some(WHOLE));
        Ok(Some((boot.to_owned(), whole)))
    }

    fn marker_path(&self) -> PathBuf {
        self.root.join("boot")
    }

    /// The folder, for messages.
    pub fn root(&self) -> &Path {
        &self.root
    }
}
