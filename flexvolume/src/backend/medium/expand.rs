//! A mounted volume gets a larger file system: its image first, where it has one.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use node::{Error, Kind, Result, mountinfo};

use crate::apply::{Device, Handle, Hands};
use crate::kernel::loop_device::{self, Loop};
use crate::kernel::path::{self, Want};
use crate::kernel::{block_device, process};
use crate::options::Quantity;
use crate::plan::{Allocate, Medium, Step};
use crate::policy::{ImageFs, Policy};
use crate::record::Record;

/// A medium that was found below a mounted volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grown {
    /// The mounted file system; `None` where it is one that does not grow.
    pub fs: Option<ImageFs>,
    /// The image's or device's length.
    pub length: u64,
    /// Whether this program may lengthen it.
    pub image: bool,
    /// How an image gets its space.
    pub allocate: Allocate,
    /// Whether this process may grow a mounted ext4.
    pub online: bool,
}

/// Finds the medium of the volume that `record` describes and that is mounted. The tree in `hands` is the
/// volume's.
pub fn observe(record: &Record, new: u64, policy: &Policy, hands: &mut Hands<'_>) -> Result<Grown> {
    let doing = || format!("grow the volume at `{}`", record.target.display());
    let gone = |why: String| Error::caused(Kind::Mismatch, doing(), why);
    let medium = record.medium.as_deref().ok_or_else(|| gone("nothing is known of its medium".to_owned()))?;
    let mounts = mountinfo::read()?;
    let point = path::real_path(hands.tree()?.as_fd())?;
    let mount = mountinfo::top(&mounts, &point).ok_or_else(|| gone("it is not mounted".to_owned()))?;
    let fs = ImageFs::ALL.into_iter().find(|fs| fs.name() == mount.kind);
    let online = process::may_use_reserved();
    let allocate = match record.options.get("allocate").map(String::as_str) {
        Some("full") => Allocate::Full,
        _ => Allocate::Sparse,
    };
    if record.backend == "block" {
        let device = block_device::open(medium)?;
        if device.size < new {
            let (has, new) = (Quantity::of(device.size), Quantity::of(new));
            let why = format!("the device `{}` has {has}, not {new}", medium.display());
            return Err(Error::caused(Kind::Unavailable, doing(), why).hint("grow the device first"));
        }
        let length = device.size;
        hands.device = Some(Device::Block(device.file, device.path));
        return Ok(Grown { fs, length, image: false, allocate, online });
    }
    let file = image(medium)?;
    let over = loop_device::over(&file)?;
    let is_below = |number: &&u32| {
        mount.device == (7, **number) || mount.source == format!("/dev/loop{number}").as_str()
    };
    let Some(number) = over.iter().find(is_below) else {
        return Err(gone(format!("`{}` is not what is mounted any more", medium.display())));
    };
    let length = file.metadata().map_err(|e| Error::caused(Kind::Io, doing(), e))?.len();
    if new > length {
        policy.image(&record.namespace)?.size(new)?;
    }
    hands.device = Some(Device::Loop(Loop::open(*number)?));
    hands.open.insert(Handle::Image, file.into());
    Ok(Grown { fs, length, image: true, allocate, online })
}

/// A path without symlinks, walked again without following any.
fn image(path: &Path) -> Result<File> {
    let root = path::open_root(Path::new("/"))?;
    let relative = path.strip_prefix("/").unwrap_or(path);
    path::beneath(root.as_fd(), relative, Want::Write).map(File::from)
}

/// The steps to `new` bytes, and what is to be said of them. What is as large already is left so; a call that
/// was cut off is made whole, so the later steps are there in any case.
pub fn plan(grown: &Grown, new: u64) -> (Vec<Step>, Option<String>) {
    let Some(fs) = grown.fs.filter(|fs| !super::only_read(*fs)) else {
        return (Vec::new(), Some("it has a file system that does not grow".to_owned()));
    };
    let bytes = grown.length.max(new);
    let mut steps = Vec::new();
    if grown.image {
        if new > grown.length {
            steps.push(Medium::Lengthen { to: new, allocate: grown.allocate });
        }
        steps.push(Medium::Capacity);
    }
    let mut note = None;
    if fs == ImageFs::Ext4 && !grown.online {
        note = Some(format!(
            "there is room for {} now, and the ext4 on it grows at the next mount: to grow it while it is mounted \
             the driver would need CAP_SYS_RESOURCE",
            Quantity::of(bytes)
        ));
    } else {
        steps.push(Medium::Grow { fs, bytes });
    }
    (steps.into_iter().map(Step::Medium).collect(), note)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_volume_grows_from_the_medium_up() {
        let ext4 = Grown {
            fs: Some(ImageFs::Ext4),
            length: GIB,
            image: true,
            allocate: Allocate::Sparse,
            online: true,
        };
        let table = [
            (
                ext4,
                2 * GIB,
                "make the image 2Gi long, sparse|tell the loop device the image's length|grow the mounted ext4 to 2Gi",
                "",
            ),
            (ext4, GIB, "tell the loop device the image's length|grow the mounted ext4 to 1Gi", ""),
            (ext4, 5, "tell the loop device the image's length|grow the mounted ext4 to 1Gi", ""),
            (
                Grown { online: false, allocate: Allocate::Full, ..ext4 },
                2 * GIB,
                "make the image 2Gi long, allocated|tell the loop device the image's length",
                "there is room for 2Gi now, and the ext4 on it grows at the next mount",
            ),
            (
                Grown { fs: Some(ImageFs::Xfs), online: false, image: false, ..ext4 },
                GIB,
                "grow the mounted xfs to 1Gi",
                "",
            ),
            (
                Grown { fs: Some(ImageFs::Erofs), ..ext4 },
                2 * GIB,
                "",
                "it has a file system that does not grow",
            ),
            (Grown { fs: None, ..ext4 }, 2 * GIB, "", "it has a file system that does not grow"),
        ];
        for (grown, new, expect, said) in table {
            let (steps, note) = plan(&grown, new);
            let lines: Vec<String> = steps.iter().map(ToString::to_string).collect();
            assert_eq!(lines.join("|"), expect, "{grown:?} {new}");
            assert!(note.as_deref().unwrap_or_default().starts_with(said), "{note:?}");
            assert_eq!(note.is_some(), !said.is_empty());
        }
    }
}
