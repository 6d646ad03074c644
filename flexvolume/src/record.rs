//! The write-ahead record of a volume: on disk before the first side effect of a mount, gone after the
//! last of its unmount. An unmount is told a folder and nothing else; what it needs to know is here.
//!
//! Records lie on /run, which ends with the boot, and name the boot all the same: some nodes keep /run on disk.
//! They hold no secret. What really is mounted is asked of the kernel; a record only says what to look for.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use node::store::Lock;
use node::{Context, Kind, Result, boot, store};
use serde::{Deserialize, Serialize};

use crate::policy::ImageFs;
use crate::target::{Id, Target};

/// Where all state of this driver lies.
pub const STATE: &str = "/run/nodeplug/flexvolume";

/// A volume as it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// The boot that it belongs to.
    pub boot: String,
    /// The volume's folder.
    pub target: PathBuf,
    /// The kubelet's root that the folder lies beneath.
    pub root: PathBuf,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The backend's name.
    pub backend: String,
    /// What is mounted, for a person: `//server/share`, `/srv/images/a.ext4`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Whether the pod may write.
    pub read_only: bool,
    /// What the source is known by in the kernel; volumes with the same one share a mount.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// The key of the source's lock, where it is another one than `key`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub lock: String,
    /// The mount's own id, where others may be copied from it (`mount::unique_id`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount: Option<u64>,
    /// The image or device itself, without a symlink on the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub medium: Option<PathBuf>,
    /// A device that is being formatted: it was empty, and what is on it now is no data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Unfinished>,
    /// Files that a mount in progress has made and an undone one leaves: removed before the next try.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scratch: Vec<PathBuf>,
    /// Files that go with the volume, because the pod said that it does not want to keep them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub delete: Vec<PathBuf>,
    /// Whether a program serves this volume and has to end with it.
    pub daemon: bool,
    /// The volume's options without secrets, for a repair.
    pub options: BTreeMap<String, String>,
}

/// A device that was found to be empty, and gets a file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// Behind all symlinks.
    pub device: PathBuf,
    /// The disk's own number in this boot.
    pub sequence: Option<u64>,
    /// Its size in bytes.
    pub size: u64,
    /// The file system.
    pub fs: ImageFs,
    /// The words for mkfs, without the device.
    pub arguments: Vec<String>,
}

impl Record {
    /// Where the record of `id` lies.
    pub fn path(id: &Id) -> PathBuf {
        Path::new(STATE).join("volumes").join(format!("{id}.json"))
    }

    /// The record of `target` of this boot; `None` where there is none.
    ///
    /// One that cannot be read counts as none: the unmount goes by the kernel then.
    pub fn find(target: &Target) -> Result<Option<Self>> {
        let Some(bytes) = store::read(&Self::path(&target.id()))? else { return Ok(None) };
        let record: Option<Self> = serde_json::from_slice(&bytes).ok();
        let this = boot::id()?;
        Ok(record.filter(|r| r.boot == this && r.target == target.path()))
    }

    /// Every record of this boot, by id. One that is not what its name says is none.
    pub fn all() -> Result<Vec<(String, Self)>> {
        let folder = Path::new(STATE).join("volumes");
        let this = boot::id()?;
        let mut found = Vec::new();
        for name in store::names(&folder)? {
            let Some(id) = name.strip_suffix(".json").filter(|id| !id.starts_with('.')) else { continue };
            let Some(bytes) = store::read(&folder.join(&name))? else { continue };
            if let Ok(record) = serde_json::from_slice::<Self>(&bytes)
                && record.boot == this
                && Target::parse(&record.target, &record.root).is_ok_and(|t| t.id().as_str() == id)
            {
                found.push((id.to_owned(), record));
            }
        }
        Ok(found)
    }

    /// The key of the source's lock, where it has one: whoever takes the volume away holds it, too.
    pub fn source_lock(&self) -> Option<&str> {
        [self.lock.as_str(), self.key.as_str()].into_iter().find(|key| !key.is_empty())
    }

    /// The volume's folder as mountinfo has it: the kubelet's root may be a symlink.
    pub fn point(&self) -> PathBuf {
        let root = std::fs::canonicalize(&self.root).unwrap_or_else(|_| self.root.clone());
        self.target.strip_prefix(&self.root).map_or_else(|_| self.target.clone(), |rest| root.join(rest))
    }

    /// Puts the record on disk.
    pub fn write(&self, id: &Id) -> Result<()> {
        let json = serde_json::to_vec(self)
            .doing(Kind::Internal, || format!("write the record of volume `{id}`"))?;
        let path = Self::path(id);
        match store::write_whole(&path, &json) {
            Err(error) if error.errno() == Some(libc::ENOENT) => {
                make_state()?;
                store::write_whole(&path, &json)
            }
            other => other,
        }
    }

    /// Takes the record away.
    pub fn remove(id: &Id) -> Result<()> {
        let path = Self::path(id);
        store::remove(&store::beside(&path))?;
        store::remove(&path)
    }
}

/// Makes the folders of the state; they are root's alone.
pub fn make_state() -> Result<()> {
    for part in ["volumes", "locks", "stage"] {
        let path = Path::new(STATE).join(part);
        // A person who runs a command may have another umask.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.doing(Kind::Io, || format!("make the folder `{}`", path.display()))?;
    }
    Ok(())
}

/// Takes the lock called `name`, waiting no longer than `patience`.
pub fn lock(name: &str, patience: Duration) -> Result<Lock> {
    let path = Path::new(STATE).join("locks").join(name);
    match Lock::within(&path, patience) {
        Err(error) if error.errno() == Some(libc::ENOENT) => {
            make_state()?;
            Lock::within(&path, patience)
        }
        other => other,
    }
}

/// Removes the locks that nobody holds: those of calls that were killed. Whoever waits for one makes it anew.
pub fn sweep_locks() -> Result<()> {
    let folder = Path::new(STATE).join("locks");
    for name in store::names(&folder)? {
        match Lock::within(&folder.join(name), Duration::ZERO) {
            Ok(lock) => lock.remove()?,
            Err(error) if error.kind() == Kind::TryAgain => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
