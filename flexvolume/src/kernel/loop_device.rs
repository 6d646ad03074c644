//! Loop devices over one open file (loop(4)).
//!
//! Every device is configured in one step with `LO_FLAGS_AUTOCLEAR`: it is free again as soon as its last
//! user, the mount or the process that made it, is gone. Nothing is left to clean up after a `kill -9`.

mod control;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use node::{Context, Error, Kind, Result};

use super::path;
use control::Info;

/// Block devices of this major number are loop devices (Documentation/admin-guide/devices.txt).
const MAJOR: u32 = 7;
/// Others take devices, too: how often a free one is asked for, and for how long a pause.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(5);

/// How a device is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    /// Nothing is written through the device, and so not to the file.
    pub read_only: bool,
    /// The file's pages are not cached a second time. Where the file system below cannot, they are.
    pub direct_io: bool,
}

/// An open loop device. The file below it is released when this is closed and no mount uses it.
#[derive(Debug)]
pub struct Loop {
    number: u32,
    file: File,
}

impl Loop {
    /// Opens the device of that number to look at it or to tell it a new size; this keeps it in use.
    pub fn open(number: u32) -> Result<Self> {
        let file = open_node(number, false)
            .doing(Kind::Io, || format!("open `{}`", node_path(number).display()))
            .map_err(hint_node)?;
        Ok(Self { number, file })
    }

    /// The number in its name.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// `/dev/loopN`.
    pub fn path(&self) -> PathBuf {
        node_path(self.number)
    }

    /// The open device.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Tells the device that its file has another size now.
    pub fn set_capacity(&self) -> Result<()> {
        control::set_capacity(&self.file)
            .doing(Kind::Kernel, || format!("set `{}` to the size of its file", self.path().display()))
    }
}

/// A free loop device over `image`, which stays the file that it is, whatever happens to its name.
/// An image that is open to read alone makes a read-only device.
pub fn attach(image: &File, wish: Wish) -> Result<Loop> {
    let doing = || "find a free loop device".to_owned();
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")
        .doing(Kind::Kernel, doing)
        .map_err(|e| e.hint("load the module (modprobe loop) and let the driver see the node's own /dev"))?;
    let mut last = io::Error::from(io::ErrorKind::ResourceBusy);
    for _ in 0..TRIES {
        let number = control::free(&control).doing(Kind::Kernel, doing)?;
        match take(number, image, wish) {
            Ok(file) => return Ok(Loop { number, file }),
            // Another one was faster.
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => last = e,
            // The kernel has the device, devtmpfs will have its node in a moment.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENXIO | libc::ENOENT | libc::EAGAIN)) => {
                last = e;
                thread::sleep(PAUSE);
            }
            Err(e) => {
                return Err(e)
                    .doing(Kind::Kernel, || format!("attach the image to `{}`", node_path(number).display()))
                    .map_err(hint_node);
            }
        }
    }
    Err(last).doing(Kind::TryAgain, doing).map_err(hint_node)
}

fn take(number: u32, image: &File, wish: Wish) -> io::Result<File> {
    let device = open_node(number, !wish.read_only)?;
    let flags = control::flags(wish.read_only, wish.direct_io);
    let configured = match control::configure(&device, image, flags) {
        // Refused before the kernel chose to go on without it.
        Err(e) if wish.direct_io && e.raw_os_error() == Some(libc::EINVAL) => {
            control::configure(&device, image, control::flags(wish.read_only, false))
        }
        other => other,
    };
    match configured {
        // Before Linux 5.8.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOTTY | libc::ENOSYS)) => {
            control::set_file(&device, image, control::flags(wish.read_only, false))?;
        }
        other => other?,
    }
    // Newer kernels do not mount a device that somebody has open to write (CONFIG_BLK_DEV_WRITE_MOUNTED). One of
    // the two descriptors is always open, so the device stays.
    open_node(number, false)
}

/// The file below a loop device as (st_dev, st_ino); `None` where the device is free.
pub fn backing(number: u32) -> Result<Option<(u64, u64)>> {
    let device = match open_node(number, false) {
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => return Ok(None),
        other => {
            other.doing(Kind::Io, || format!("open `{}`", node_path(number).display())).map_err(hint_node)?
        }
    };
    match control::status(&device) {
        Ok(Info { device, inode, .. }) => Ok(Some((device, inode))),
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(e) => {
            Err(e).doing(Kind::Kernel, || format!("ask for the file of `{}`", node_path(number).display()))
        }
    }
}

/// The numbers of the loop devices over the same file as `image`, whoever made them, lowest first.
pub fn over(image: &File) -> Result<Vec<u32>> {
    let wanted = image.metadata().doing(Kind::Io, || "look at the image".to_owned())?;
    let wanted = (wanted.dev(), wanted.ino());
    let mut found = Vec::new();
    for number in configured()? {
        let same = match backing(number) {
            // A folder /dev of a container's own lacks the node, but the kernel names the file.
            Err(e) if e.errno() == Some(libc::ENOENT) => named(number) == path::real_path(image.as_fd()).ok(),
            other => other? == Some(wanted),
        };
        if same {
            found.push(number);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether nothing is written through the device; one that ended meanwhile writes nothing.
pub fn is_read_only(number: u32) -> bool {
    let ro = Path::new("/sys/block").join(format!("loop{number}")).join("ro");
    fs::read_to_string(ro).map_or(true, |text| text.trim() == "1")
}

/// The devices that have a file. The kernel lists the disks that are larger than nothing; sysfs would have to be asked
/// about each device that is there, and most are free.
fn configured() -> Result<Vec<u32>> {
    const LIST: &str = "/proc/partitions";
    let disks = fs::read_to_string(LIST)
        .doing(Kind::Io, || format!("read `{LIST}`"))
        .map_err(|e| e.hint("/proc must be mounted"))?;
    let number = |line: &str| line.split_ascii_whitespace().last()?.strip_prefix("loop")?.parse().ok();
    Ok(disks.lines().filter_map(number).collect())
}

fn named(number: u32) -> Option<PathBuf> {
    let name = fs::read_to_string(sysfs(number).join("backing_file")).ok()?;
    Some(PathBuf::from(name.trim_end_matches('\n')))
}

fn sysfs(number: u32) -> PathBuf {
    Path::new("/sys/block").join(format!("loop{number}")).join("loop")
}

fn node_path(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/loop{number}"))
}

/// The device's node, if it is one: what lies in `/dev` under that name could be anything.
fn open_node(number: u32, write: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(node_path(number))?;
    let status = file.metadata()?;
    if status.file_type().is_block_device() && rustix::fs::major(status.rdev()) == MAJOR {
        return Ok(file);
    }
    Err(io::Error::from_raw_os_error(libc::ENOTBLK))
}

fn hint_node(error: Box<Error>) -> Box<Error> {
    match error.errno() {
        Some(libc::ENOENT | libc::ENOTBLK) => error.hint("let the driver see the node's own /dev (devtmpfs)"),
        Some(libc::EPERM | libc::EACCES) => error.hint("run as root with CAP_SYS_ADMIN"),
        _ => error,
    }
}
