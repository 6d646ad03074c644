//! File systems of the real mkfs: told apart, mounted, grown.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use flexvolume::kernel::loop_device::{Wish, attach as attach_loop, over};
use flexvolume::kernel::mount::{How, attach, make};
use flexvolume::kernel::superblock::{Content, Type, look, probe};
use flexvolume::kernel::{grow, path};
use libtest_mimic::Trial;
use node::Kind;
use rustix::fs::statfs;

use crate::loops::gone;
use crate::scratch::{Scratch, test, tool};

pub fn trials() -> Vec<Trial> {
    vec![
        test("ext4_grows_or_says_that_it_may_not", ext4),
        test("xfs_grows_while_it_is_mounted", xfs),
        test("btrfs_grows_while_it_is_mounted", btrfs),
        test("ext2_and_ext3_are_told_from_ext4", old_ext),
        test("erofs_is_mounted_straight_from_its_file", erofs),
        test("squashfs_is_mounted_by_a_read_only_loop", squashfs),
        test("swap_and_an_empty_image_are_no_file_systems", others),
    ]
}

const MIB: u64 = 1 << 20;

fn content(image: &File) -> Content {
    probe(image, image.metadata().unwrap().len()).unwrap()
}

fn taken(image: &File) -> Option<u64> {
    look(image, image.metadata().unwrap().len()).unwrap().taken
}

fn bytes(path: &Path) -> u64 {
    let seen = statfs(path).unwrap();
    seen.f_blocks * u64::try_from(seen.f_bsize).unwrap()
}

/// Doubles the image below a mount, and the device with it.
fn lengthen(s: &Scratch, image: &File, kind: Type, grow: impl FnOnce(&Scratch)) -> (u64, u64) {
    let size = image.metadata().unwrap().len();
    assert_eq!(content(image), Content::Filesystem(kind));
    assert_eq!(taken(image), Some(size), "{kind} fills its image");
    let device = s.mounted(image, kind.name(), "v");
    fs::write(s.path("v/a"), "kept").unwrap();
    let before = bytes(&s.path("v"));
    image.set_len(2 * size).unwrap();
    device.set_capacity().unwrap();
    grow(s);
    assert_eq!(fs::read_to_string(s.path("v/a")).unwrap(), "kept");
    (before, bytes(&s.path("v")))
}

fn ext4(s: &Scratch) {
    let image = s.formatted("image", 64 * MIB, &["mkfs.ext4", "-q", "-F"]);
    let mut refused = None;
    let (before, after) = lengthen(s, &image, Type::Ext4, |s| {
        refused = grow::ext4(s.open("v").as_fd(), 128 * MIB).err();
    });
    match refused {
        None => assert!(after > before + 48 * MIB, "{before} {after}"),
        Some(error) => {
            assert_eq!((error.kind(), after), (Kind::Unavailable, before), "{}", error.chain());
            assert!(error.advice().unwrap().contains("CAP_SYS_RESOURCE"));
        }
    }
}

fn xfs(s: &Scratch) {
    let image = s.formatted("image", 320 * MIB, &["mkfs.xfs", "-q"]);
    let (before, after) = lengthen(s, &image, Type::Xfs, |s| {
        grow::xfs(s.open("v").as_fd(), 640 * MIB).unwrap();
        // As large already, and never smaller.
        grow::xfs(s.open("v").as_fd(), 640 * MIB).unwrap();
        grow::xfs(s.open("v").as_fd(), 320 * MIB).unwrap();
    });
    assert!(after > before + 256 * MIB, "{before} {after}");
}

fn btrfs(s: &Scratch) {
    let image = s.formatted("image", 128 * MIB, &["mkfs.btrfs", "-q"]);
    let (before, after) = lengthen(s, &image, Type::Btrfs, |s| {
        grow::btrfs(s.open("v").as_fd()).unwrap();
        grow::btrfs(s.open("v").as_fd()).unwrap();
    });
    assert_eq!(after, 2 * before);
    assert!(grow::btrfs(s.open("").as_fd()).is_err(), "a tmpfs is no btrfs");
}

fn old_ext(s: &Scratch) {
    let ext2 = s.formatted("2", 16 * MIB, &["mkfs.ext2", "-q", "-F"]);
    assert_eq!(content(&ext2), Content::Filesystem(Type::Ext2));
    let ext3 = s.formatted("3", 16 * MIB, &["mkfs.ext3", "-q", "-F", "-b", "4096"]);
    assert_eq!(content(&ext3), Content::Filesystem(Type::Ext3));
    assert_eq!(taken(&ext3), Some(16 * MIB));
}

fn erofs(s: &Scratch) {
    // Its file must lie on a file system with pages of its own, which tmpfs is not.
    let disk = s.formatted("disk", 32 * MIB, &["mkfs.ext4", "-q", "-F"]);
    let device = s.mounted(&disk, "ext4", "below");
    s.folder("content");
    fs::write(s.path("content/a"), "x").unwrap();
    let image = s.path("below/image");
    tool(&["mkfs.erofs", image.to_str().unwrap(), s.path("content").to_str().unwrap()]);
    let file = path::beneath(s.open("below").as_fd(), Path::new("image"), path::Want::Read).unwrap();
    let file = File::from(file);
    assert_eq!(content(&file), Content::Filesystem(Type::Erofs));
    assert_eq!(taken(&file), Some(file.metadata().unwrap().len()));
    let tree = make("erofs", image.to_str(), &[], true).unwrap();
    attach(&tree, s.folder("v").as_fd()).unwrap();
    assert_eq!(fs::read_to_string(s.path("v/a")).unwrap(), "x");
    assert!(over(&file).unwrap().is_empty() && s.mounts_at("v")[0].has("ro"));
    drop(device);
}

fn squashfs(s: &Scratch) {
    s.folder("content");
    fs::write(s.path("content/a"), "x").unwrap();
    let (from, to) = (s.path("content"), s.path("image"));
    tool(&["mksquashfs", from.to_str().unwrap(), to.to_str().unwrap(), "-quiet", "-no-progress"]);
    let image = File::open(to).unwrap();
    assert_eq!(content(&image), Content::Filesystem(Type::Squashfs));
    assert!(taken(&image).unwrap() <= image.metadata().unwrap().len());
    let device = attach_loop(&image, Wish { read_only: true, direct_io: false }).unwrap();
    let tree = make("squashfs", device.path().to_str(), &[], true).unwrap();
    drop(device);
    attach(&tree, s.folder("v").as_fd()).unwrap();
    assert_eq!(fs::read_to_string(s.path("v/a")).unwrap(), "x");
    assert_eq!(over(&image).unwrap().len(), 1);
    drop(tree);
    assert!(s.unmount("v", How::Plain));
    gone(&image);
}

fn others(s: &Scratch) {
    let image = s.image("image", MIB);
    assert_eq!(content(&image), Content::Empty);
    tool(&["mkswap", s.path("image").to_str().unwrap()]);
    assert_eq!(content(&image), Content::Other("swap"));
}
