//! Block devices of the node: which one a name leads to, how large it is, and who has it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use node::{Context, Error, Kind, Result};

/// A device, open to read it: a kernel may refuse to mount what somebody has open to write.
#[derive(Debug)]
pub struct BlockDevice {
    /// The open device.
    pub file: File,
    /// Its own path, behind all symlinks: `/dev/sdb`.
    pub path: PathBuf,
    /// Its number: major and minor.
    pub number: (u32, u32),
    /// In bytes.
    pub size: u64,
}

/// Who has a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    /// Partitions are made on it: `sdb1`.
    Partitions(Vec<String>),
    /// Devices are built on it: `dm-0`, `md0`.
    Devices(Vec<String>),
}

/// Opens the device that `name` leads to. udev's names are symlinks: they are resolved once, and what is
/// at their end must be a block device below `/dev`.
pub fn open(name: &Path) -> Result<BlockDevice> {
    let doing = || format!("open the device `{}`", name.display());
    let path = fs::canonicalize(name).doing(Kind::Io, doing).map_err(|e| match e.errno() {
        Some(libc::ENOENT) => {
            e.hint("look at `lsblk -o NAME,ID-LINK,SIZE` on the node for the devices that are there")
        }
        _ => e,
    })?;
    if !path.starts_with("/dev") {
        let why = format!("it leads to `{}`, which is not in /dev", path.display());
        return Err(Error::caused(Kind::Config, doing(), why));
    }
    // Opening a tape or a terminal acts on it, so its type is looked at before, and again on the open file.
    let before = fs::symlink_metadata(&path).doing(Kind::Io, doing)?;
    let is_block = before.file_type().is_block_device();
    let not_block = || Error::caused(Kind::Config, doing(), "it is no block device");
    if !is_block {
        return Err(not_block());
    }
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(&path).doing(Kind::Io, doing)?;
    let status = file.metadata().doing(Kind::Io, doing)?;
    if !status.file_type().is_block_device() || status.rdev() != before.rdev() {
        return Err(not_block());
    }
    let number = (rustix::fs::major(status.rdev()), rustix::fs::minor(status.rdev()));
    let size = file.seek(SeekFrom::End(0)).doing(Kind::Io, doing)?;
    Ok(BlockDevice { file, path, number, size })
}

impl BlockDevice {
    /// Partitions on it or devices built on it, by sysfs.
    pub fn user(&self) -> Option<User> {
        let names = |folder: &Path| -> Vec<String> {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
            names.sort_unstable();
            names
        };
        let folder = self.sysfs();
        let mut partitions = names(&folder);
        partitions.retain(|name| folder.join(name).join("partition").exists());
        if !partitions.is_empty() {
            return Some(User::Partitions(partitions));
        }
        Some(names(&folder.join("holders"))).filter(|names| !names.is_empty()).map(User::Devices)
    }

    /// Whether the device itself takes no writes.
    pub fn is_read_only(&self) -> bool {
        fs::read_to_string(self.sysfs().join("ro")).is_ok_and(|text| text.trim() == "1")
    }

    /// Whether somebody has claimed it: a mount in any namespace, swap, a RAID. The kernel is asked by
    /// claiming it for a moment (open(2), `O_EXCL`).
    pub fn is_claimed(&self) -> Result<bool> {
        let flags = libc::O_EXCL | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        match OpenOptions::new().read(true).custom_flags(flags).open(&self.path) {
            Ok(_) => Ok(false),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => Ok(true),
            Err(e) => Err(e).doing(Kind::Io, || format!("claim `{}`", self.path.display())),
        }
    }

    /// The number that this disk alone has in this boot, whatever gets its name later (Linux 5.15).
    pub fn sequence(&self) -> Option<u64> {
        let folder = self.sysfs();
        // That of a partition is its disk's.
        let found = ["diskseq", "../diskseq"].map(|name| fs::read_to_string(folder.join(name)));
        found.into_iter().flatten().next().and_then(|text| text.trim().parse().ok())
    }

    fn sysfs(&self) -> PathBuf {
        PathBuf::from(format!("/sys/dev/block/{}:{}", self.number.0, self.number.1))
    }
}
