//! What a pod says about its image. Pure.

use std::path::{Path, PathBuf};

use node::Result;

use crate::backend::medium::{Wanted, mkfs, only_read};
use crate::backend::{Asked, Common};
use crate::options::{Quantity, Reader, RelativePath, quoted, template};
use crate::plan::Allocate;
use crate::policy::{ImageFs, ImagePolicy};

/// A file's name must have room for the `.` and the `.<32 digits>.new` of the one that is being made.
const LONGEST_NAME: usize = 200;

/// How an image is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// By one volume at a time, which may write to it.
    Alone,
    /// By any number of volumes, none of which writes to it.
    Shared,
    /// As what lies in it allows: written to, unless it is erofs or squashfs.
    Open,
}

/// An image that is allowed.
#[derive(Debug)]
pub struct Image {
    /// Where it lies; `None` where the options did not say so, which their reader reports.
    pub place: Option<Place>,
    /// The options that block devices have, too.
    pub wanted: Wanted,
    /// How it is used.
    pub access: Access,
    /// How it is made where it is missing.
    pub new: Option<New>,
    /// The length that it has at least.
    pub size: Option<u64>,
    /// How it gets its space.
    pub allocate: Allocate,
    /// Whether it goes with the volume.
    pub delete: bool,
    /// What its bytes hash to, in small letters.
    pub sha256: Option<String>,
    /// The bytes of memory that are laid over a shared image, so that the pod may write.
    pub overlay: Option<u64>,
    /// The common options as they count for that.
    pub overlaid: Common,
    /// What the node allows of images.
    pub policy: ImagePolicy,
    /// The volume's identity, for names that are its own.
    pub id: String,
}

/// The root that the operator allowed, and the rest of the path, which is walked without a symlink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The root.
    pub root: PathBuf,
    /// The folder below it; empty for the root itself.
    pub folder: PathBuf,
    /// The file's name.
    pub name: String,
    /// The kubelet's root, in which no image may lie.
    pub kubelet_root: PathBuf,
}

/// A file system to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct New {
    /// Which.
    pub fs: ImageFs,
    /// The image's length in bytes.
    pub size: u64,
    /// All words for mkfs but the device.
    pub arguments: Vec<String>,
}

/// Reads the options `path` or `pool` and `name`, `access`, `create`, `size`, `allocate`, `mkfsOptions`,
/// `retain`, `sha256`, `overlay`, `overlaySize` and those of every medium.
pub fn read(asked: &Asked<'_>, reader: &mut Reader<'_>) -> Result<Image> {
    let namespace = &asked.pod.namespace;
    let policy = asked.policy.image(namespace)?.clone();
    let mut wanted = Wanted::read(&asked.common, true, reader);
    let file = file(asked, reader);
    let asked_access = reader.choice("access", &[("rw", Access::Alone), ("ro", Access::Shared)]);
    let sha256 = reader.text("sha256").map(str::to_ascii_lowercase);
    let create = reader.choice("create", &[("never", false), ("ifMissing", true)]).unwrap_or(false);
    let size = reader.quantity("size");
    let allocate = reader.choice("allocate", &[("sparse", Allocate::Sparse), ("full", Allocate::Full)]);
    let retain = reader.choice("retain", &[("keep", false), ("delete", true)]);
    let (overlaid, overlay_size) = overlay(asked, reader);
    let arguments = mkfs_options(wanted.fs.unwrap_or(ImageFs::Ext4), reader);
    if sha256.as_ref().is_some_and(|s| s.len() != 64 || !s.bytes().all(|b| b.is_ascii_hexdigit())) {
        reader.problem("sha256", "is not 64 hex digits; write what `sha256sum` prints");
    }
    let written = create || size.is_some() || retain == Some(true);
    let access = asked_access.unwrap_or(match wanted.fs {
        _ if sha256.is_some() || overlaid => Access::Shared,
        Some(fs) if only_read(fs) => Access::Shared,
        _ if written => Access::Alone,
        _ if asked.common.read_only => Access::Shared,
        Some(_) => Access::Alone,
        None => Access::Open,
    });
    contradictions(reader, access, &wanted, create);
    let new = create.then(|| new(wanted.fs, size, arguments, reader)).flatten();
    let mut image = Image {
        place: None,
        access,
        new,
        size,
        allocate: allocate.unwrap_or_default(),
        delete: retain.unwrap_or(false),
        sha256,
        overlay: None,
        overlaid: asked.common.clone(),
        policy,
        id: asked.target.id().to_string(),
        wanted: wanted.clone(),
    };
    if let Some(file) = file {
        image.allowed(asked, &file)?;
    }
    if overlaid {
        image.overlay = Some(allowed_overlay(asked, overlay_size)?);
    }
    if image.access == Access::Shared {
        // Nobody writes to what others share.
        wanted.common.read_only = true;
        image.wanted = wanted;
    }
    Ok(image)
}

impl Image {
    /// Asks the policy; a root that is for reading alone makes an image that could be either a shared one.
    fn allowed(&mut self, asked: &Asked<'_>, file: &Path) -> Result<()> {
        let namespace = &asked.pod.namespace;
        let root = |write| asked.policy.image_root(namespace, file, write);
        let (root, rest) = match self.access {
            Access::Alone => root(true)?,
            Access::Shared => root(false)?,
            Access::Open => match (root(true), root(false)) {
                (Err(_), Ok(found)) => {
                    self.access = Access::Shared;
                    found
                }
                (found, _) => found?,
            },
        };
        if let Some(new) = &self.new {
            root.may_create()?;
            self.policy.fs_type(new.fs)?;
        }
        if let Some(fs) = self.wanted.fs {
            self.policy.fs_type(fs)?;
        }
        if let Some(size) = self.size {
            self.policy.size(size)?;
        }
        let name = rest.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let folder = rest.parent().map(Path::to_owned).unwrap_or_default();
        let kubelet_root = asked.policy.kubelet_root.clone();
        self.place = Some(Place { root: root.path.clone(), folder, name, kubelet_root });
        Ok(())
    }
}

/// The image's path, by `path` or by `pool` and `name`.
fn file(asked: &Asked<'_>, reader: &mut Reader<'_>) -> Option<PathBuf> {
    let (path, pool, name) = (reader.text("path"), reader.text("pool"), reader.text("name"));
    match (path, pool, name) {
        (Some(path), None, None) => {
            let last = path.rsplit('/').next().unwrap_or_default();
            let fit = fit(last).map_err(|why| reader.problem("path", format!("({path}) {why}")));
            fit.ok().map(|()| PathBuf::from(path))
        }
        (None, Some(pool), Some(name)) => {
            let whole = template::check(name, &asked.pod, asked.options.volume());
            let named = whole.and_then(|name| fit(&name).map(|()| Path::new(pool).join(&name)));
            named.map_err(|why| reader.problem("name", format!("({name}) {why}"))).ok()
        }
        (Some(_), _, _) => {
            reader.problem("path", "contradicts `pool` and `name`; leave it or them out");
            None
        }
        (None, None, None) => reader.required("path", None, "the image's path, or `pool` and `name`"),
        (None, None, Some(_)) => reader.required("pool", None, "the folder that the image lies in"),
        (None, Some(_), None) => reader.required("name", None, "the image's name in the pool"),
    }
}

/// Whether a name can be an image's. Those that start with a dot are the ones that are being made.
fn fit(name: &str) -> std::result::Result<(), String> {
    let one = RelativePath::check(name).map_err(|why| format!("{why}; write one name"))?;
    if one.components().count() != 1 {
        return Err("has a `/`; write one name, and the folder in `pool`".to_owned());
    }
    if name.starts_with('.') {
        return Err(format!("ends in {}; an image's name does not start with a dot", quoted(name)));
    }
    if name.len() > LONGEST_NAME {
        return Err(format!("is longer than {LONGEST_NAME} bytes"));
    }
    Ok(())
}

/// Whether memory is laid over the image, and the size that is asked for it.
fn overlay(asked: &Asked<'_>, reader: &mut Reader<'_>) -> (bool, Option<u64>) {
    let wanted = reader.choice("overlay", &[("none", false), ("tmpfs", true)]).unwrap_or(false);
    let size = reader.quantity("overlaySize");
    if size.is_some() && !wanted {
        reader.problem("overlaySize", "is of what is laid over the image; set `overlay` to tmpfs");
    }
    if wanted && asked.common.read_only {
        reader.problem("overlay", "lets the pod write, and the volume is read-only; leave one of them out");
    }
    (wanted, size)
}

/// It counts as an overlay's upper layer, or where those are off as a tmpfs.
fn allowed_overlay(asked: &Asked<'_>, size: Option<u64>) -> Result<u64> {
    let namespace = &asked.pod.namespace;
    match &asked.policy.backends.overlay {
        Some(_) => asked.policy.overlay(namespace)?.size(size),
        None => asked.policy.tmpfs(namespace)?.size(size),
    }
}

fn mkfs_options(fs: ImageFs, reader: &mut Reader<'_>) -> Vec<String> {
    let Some(text) = reader.text("mkfsOptions") else { return mkfs::arguments(fs, &[]) };
    match mkfs::check(fs, text) {
        Ok(words) => mkfs::arguments(fs, &words),
        Err(why) => {
            reader.problem("mkfsOptions", why);
            Vec::new()
        }
    }
}

fn new(
    fs: Option<ImageFs>,
    size: Option<u64>,
    arguments: Vec<String>,
    reader: &mut Reader<'_>,
) -> Option<New> {
    let fs = fs.unwrap_or(ImageFs::Ext4);
    let size = reader.required("size", size, "how large the new image is, such as 1Gi")?;
    let least = mkfs::least(fs);
    if size < least {
        let least = Quantity::of(least);
        reader.problem("size", format!("is too small for {}; write at least {least}", fs.name()));
    }
    Some(New { fs, size, arguments })
}

/// What cannot be said together.
fn contradictions(reader: &mut Reader<'_>, access: Access, wanted: &Wanted, create: bool) {
    if access == Access::Alone {
        for key in ["sha256", "overlay"] {
            if reader.text(key).is_some_and(|value| value != "none") {
                reader.problem(key, "is for an image that nobody writes to; set `access` to ro");
            }
        }
        if let Some(fs) = wanted.fs.filter(|fs| only_read(*fs)) {
            reader.problem("fsType", format!("is {}, which is only read; set `access` to ro", fs.name()));
        }
        if !create {
            if reader.text("mkfsOptions").is_some() {
                reader.problem("mkfsOptions", "is for a new image; set `create` to ifMissing");
            }
            if reader.text("retain") == Some("delete") {
                reader
                    .problem("retain", "deletes an image that nobody makes again; set `create` to ifMissing");
            }
        }
        return;
    }
    for key in ["create", "size", "allocate", "mkfsOptions", "retain", "discard"] {
        if reader.text(key).is_some_and(|value| !matches!(value, "never" | "keep" | "false")) {
            reader.problem(key, "changes the image, which is only read here; set `access` to rw");
        }
    }
}
