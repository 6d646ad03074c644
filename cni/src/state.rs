//! What this node remembers of its attachments, and whether that memory is whole.
//!
//! The folder holds the records, a marker that names the boot they belong to, and the slots of the
//! reaper. When the marker names another boot, no kernel object of these records is left: the first ADD
//! drops them and gives their leases back. When the marker is missing although the kernel holds our
//! nftables table, the memory was lost in this boot: DEL then looks for leftovers by owner as well.

use std::path::{Path, PathBuf};

use node::{Result, boot, store};

use crate::attachment::{Attachment, Attachments, STATE};

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
}

impl State {
    /// The memory at its usual place.
    pub fn open() -> Result<Self> {
        let root = PathBuf::from(STATE);
        Ok(Self { boot: boot::id()?, attachments: Attachments::at(&root), root })
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
        for attachment in self.attachments.all()? {
            if attachment.boot != self.boot {
                stale(&attachment)?;
                self.attachments.remove(&attachment.owner)?;
            }
        }
        self.attachments.tidy()?;
        let text = format!("{}\n{}\n", self.boot, if lost { PARTIAL } else { WHOLE });
        store::write_whole(&self.marker_path(), text.as_bytes())
    }

    fn is_this_boots(&self) -> Result<bool> {
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
