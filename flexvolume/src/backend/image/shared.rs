//! An image that any number of volumes read. The first one mounts it; each other one gets a copy of that
//! mount, so that the kernel counts them and the last one ends it.

use std::fs::{File, Metadata};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use node::{Context, Error, Kind, Result};

use super::hash;
use super::open::Opened;
use super::options::Image;
use crate::apply::{Handle, Hands, wait_until_read_only};
use crate::backend::medium::{Found, Mounted};
use crate::backend::{Common, Seen, overlay};
use crate::kernel::own::Scope;
use crate::kernel::{loop_device, mount, path};
use crate::plan::{Face, Layers, Limits, Lower, Medium, Source, Step};
use crate::policy::ImageFs;
use crate::record::Record;

/// Mount ids above this are never used again (statx(2), `STATX_MNT_ID_UNIQUE`).
const UNIQUE: u64 = 1 << 31;

/// What was found, and how it will be mounted.
#[derive(Debug)]
struct Shared {
    path: PathBuf,
    lock: String,
    key: String,
    mounted: Mounted,
    from: From,
    /// The bytes of memory laid over it, and the options that count there.
    overlay: Option<(u64, Common)>,
}

/// Where the tree comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// Another volume's mount is copied.
    Mount,
    /// Another volume has it below an overlay, where its mount cannot be copied: of the same loop device the
    /// kernel gives the same file system.
    Loop(u32),
    /// Nobody has it.
    Image,
}

/// An image that is there. What is mounted already was hashed then; anew, it is hashed now.
pub fn found(image: &Image, opened: Opened, found: Found, hands: &mut Hands<'_>) -> Result<Box<dyn Seen>> {
    let file = opened.file.ok_or_else(|| Error::new(Kind::Internal, "share the image before it is open"))?;
    let seen = look(&file)?;
    let mounted = image.wanted.mounted(found.fs, true)?;
    let (limits, _) = mounted.limits(image.wanted.common.limits());
    let key = key(&opened.lock, &seen, image.sha256.as_deref(), &mounted, limits);
    if found.health.replay {
        hands.notes.push("its journal was not replayed: what was written last may be missing".to_owned());
    }
    let overlay = image.overlay.map(|size| (size, image.overlaid.clone()));
    let from = if let Some(root) = mount_of(&key, &seen)? {
        hands.open.insert(Handle::Source, root);
        From::Mount
    } else if let Some(number) = loop_of(&key, &file)? {
        From::Loop(number)
    } else {
        wait_until_read_only(&file, &opened.path)?;
        if let Some(expected) = &image.sha256 {
            verify(&file, &seen, expected, &opened.path, hands)?;
        }
        hands.open.insert(Handle::Image, file.into());
        From::Image
    };
    Ok(Box::new(Shared { path: opened.path, lock: opened.lock, key, mounted, from, overlay }))
}

fn look(file: &File) -> Result<Metadata> {
    file.metadata().doing(Kind::Io, || "look at the image".to_owned())
}

/// Everything that two volumes must have alike to have one mount.
fn key(lock: &str, seen: &Metadata, sha256: Option<&str>, mounted: &Mounted, limits: Limits) -> String {
    format!(
        "{lock} is {}:{} of {} bytes, changed {}.{:09} and {}.{:09}, sha256 {}, {} with {limits}",
        seen.dev(),
        seen.ino(),
        seen.size(),
        seen.mtime(),
        seen.mtime_nsec(),
        seen.ctime(),
        seen.ctime_nsec(),
        sha256.unwrap_or("not asked"),
        mounted.words(),
    )
}

/// The root of another volume's mount of the same image. The records say where to look; whether it is
/// still that mount is asked of the kernel.
fn mount_of(key: &str, image: &Metadata) -> Result<Option<OwnedFd>> {
    for (_, record) in Record::all()? {
        let Some(id) = record.mount.filter(|_| record.key == key) else { continue };
        let Ok(root) = open(&record) else { continue };
        if !mount::is_root(root.as_fd()).unwrap_or(false) || mount::unique_id(root.as_fd()).ok() != Some(id) {
            continue;
        }
        if id > UNIQUE || is_on(&root, image) {
            return Ok(Some(root));
        }
    }
    Ok(None)
}

/// The read-only loop device over the image, where a volume with the same key has it.
fn loop_of(key: &str, image: &File) -> Result<Option<u32>> {
    let mounted = |record: &Record| open(record).is_ok_and(|r| mount::is_root(r.as_fd()).unwrap_or(false));
    if !Record::all()?.iter().any(|(_, record)| record.key == key && mounted(record)) {
        return Ok(None);
    }
    Ok(loop_device::over(image)?.into_iter().find(|number| loop_device::is_read_only(*number)))
}

fn open(record: &Record) -> Result<OwnedFd> {
    let root = path::open_root(&record.root)?;
    let relative = record.target.strip_prefix(&record.root).unwrap_or(&record.target);
    path::beneath(root.as_fd(), relative, path::Want::Folder)
}

/// Whether a mount's device is a loop device over this image.
fn is_on(root: &OwnedFd, image: &Metadata) -> bool {
    let Ok(seen) = rustix::fs::fstat(root) else { return false };
    let below = loop_device::backing(rustix::fs::minor(seen.st_dev));
    rustix::fs::major(seen.st_dev) == 7
        && matches!(below, Ok(Some(file)) if file == (image.dev(), image.ino()))
}

fn verify(file: &File, before: &Metadata, expected: &str, path: &Path, hands: &Hands<'_>) -> Result<()> {
    let doing = || format!("check the sha256 of `{}`", path.display());
    let found =
        hash::sha256(file, before.size(), hands.deadline).map_err(|e| Error::caused(e.kind(), doing(), e))?;
    if found != expected {
        return Err(Error::caused(Kind::Mismatch, doing(), format!("it is {found}"))
            .hint("put the right image there, or correct the option `sha256`"));
    }
    let after = look(file)?;
    let times = |m: &Metadata| (m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
    if times(before) != times(&after) {
        return Err(Error::caused(Kind::TryAgain, doing(), "somebody changed it meanwhile"));
    }
    Ok(())
}

impl Shared {
    /// The steps that end with the image's own tree in hand.
    fn tree(&self) -> Vec<Step> {
        match self.from {
            From::Mount => vec![Step::Clone { path: self.path.clone(), recursive: false }],
            From::Loop(number) => vec![Step::Medium(Medium::Reuse(number)), self.mounted.make()],
            From::Image if self.mounted.fs == ImageFs::Erofs => {
                let Mounted { fs, settings, read_only, .. } = &self.mounted;
                let (kind, settings, read_only) = (fs.name(), settings.clone(), *read_only);
                vec![Step::Make { kind, source: Source::Image, settings, read_only }]
            }
            From::Image => {
                let put = Medium::Loop { read_only: true, alone: false };
                vec![Step::Medium(put), self.mounted.make()]
            }
        }
    }
}

impl Seen for Shared {
    fn describe(&self, record: &mut Record) {
        record.source = self.path.display().to_string();
        record.lock.clone_from(&self.lock);
        record.key.clone_from(&self.key);
        record.read_only = self.overlay.is_none();
        record.medium = self.overlay.is_none().then(|| self.path.clone());
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = self.tree();
        if let Some((size, common)) = &self.overlay {
            let face = Face { mode: common.mode, uid: common.uid, gid: common.gid };
            steps.push(Step::Lower(Lower::InHand));
            steps.push(overlay::memory(*size));
            steps.push(Step::Layer(Layers { settings: Vec::new(), face }));
            steps.extend(common.give(Some(Scope::Root)));
        }
        steps
    }

    fn limits(&self, limits: Limits) -> (Limits, bool) {
        match self.overlay {
            Some(_) => (limits.with(&self.mounted.attributes), false),
            None => self.mounted.limits(limits),
        }
    }

    fn is_shared(&self) -> bool {
        self.overlay.is_none()
    }
}
