//! A block device of the node. One volume writes to it, or any number of them read it.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use node::{Error, Kind, Result, mountinfo};

use super::medium::{self, Found, Mounted, Wanted, mkfs, only_read};
use super::{Asked, Seen, Wish};
use crate::apply::{Device, Hands};
use crate::kernel::block_device::{self, BlockDevice, User};
use crate::kernel::superblock;
use crate::options::{Quantity, Reader};
use crate::plan::{Limits, Medium, Step};
use crate::policy::ImageFs;
use crate::record::{Record, Unfinished};

/// A device is free a moment after its last user.
const ENDING: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// A device that is allowed.
#[derive(Debug)]
struct Block {
    /// As the pod wrote it.
    name: PathBuf,
    wanted: Wanted,
    /// The words for mkfs where an empty device is to be formatted.
    format: Option<Vec<String>>,
}

/// Reads the options `device`, `format`, `mkfsOptions` and those of every medium.
pub fn read(asked: &Asked<'_>, reader: &mut Reader<'_>) -> Result<Box<dyn Wish>> {
    Ok(Box::new(options_of(asked, reader)?))
}

fn options_of(asked: &Asked<'_>, reader: &mut Reader<'_>) -> Result<Block> {
    let wanted = Wanted::read(&asked.common, false, reader);
    let device = reader.text("device");
    let device = reader.required("device", device, "its name, such as /dev/disk/by-id/virtio-data-1");
    let format = reader.choice("format", &[("never", false), ("ifEmpty", true)]).unwrap_or(false);
    let fs = wanted.fs.unwrap_or(ImageFs::Ext4);
    let words = match mkfs::check(fs, reader.text("mkfsOptions").unwrap_or_default()) {
        Ok(words) => words,
        Err(why) => {
            // A file system that is only read has no mkfs options, and none were asked for.
            if reader.text("mkfsOptions").is_some() {
                reader.problem("mkfsOptions", why);
            }
            Vec::new()
        }
    };
    let read_only = asked.common.read_only || wanted.fs.is_some_and(only_read);
    if format && read_only {
        reader.problem("format", "writes to the device, which is only read here; leave it out");
    }
    if !format && reader.text("mkfsOptions").is_some() {
        reader.problem("mkfsOptions", "is for a new file system; set `format` to ifEmpty");
    }
    if let Some(device) = device {
        let policy = asked.policy.block(&asked.pod.namespace, device)?;
        if format {
            policy.may_format()?;
        }
    }
    let format = format.then(|| mkfs::arguments(fs, &words));
    Ok(Block { name: PathBuf::from(device.unwrap_or_default()), wanted, format })
}

impl Wish for Block {
    fn observe(self: Box<Self>, hands: &mut Hands<'_>) -> Result<Box<dyn Seen>> {
        let device = block_device::open(&self.name)?;
        let lock = format!("block {}:{}", device.number.0, device.number.1);
        hands.lock_source(&lock)?;
        used(&device)?;
        let found = medium::look(&device.file, device.size, self.wanted.fs, &self.name)?;
        let fs = match (&found, &self.format) {
            (Some(found), _) => found.fs,
            (None, Some(_)) => self.may_format(&device)?,
            (None, None) => {
                return Err(self.refuse("there is nothing on it").hint(
                    "put a file system on it, or set `format: ifEmpty` if an empty one may be formatted",
                ));
            }
        };
        let read_only = self.wanted.common.read_only || only_read(fs);
        let mounted = self.wanted.mounted(fs, read_only)?;
        if !read_only && device.is_read_only() {
            return Err(self.refuse("the device is read-only").hint("set `readOnly: true`"));
        }
        let key = format!("{lock} {}", mounted.words());
        free(&device, read_only.then_some(&key))?;
        if read_only && found.is_some_and(|f| f.health.replay) {
            hands.notes.push("its journal was not replayed: what was written last may be missing".to_owned());
        }
        let seen = Seized {
            lock,
            key,
            size: device.size,
            sequence: device.sequence(),
            path: device.path.clone(),
            name: self.name,
            found,
            format: self.format,
            wanted: self.wanted,
            mounted,
        };
        hands.device = Some(Device::Block(device.file, device.path));
        Ok(Box::new(seen))
    }
}

impl Block {
    fn refuse(&self, why: impl Into<String>) -> Box<Error> {
        let doing = format!("use the device `{}`", self.name.display());
        Error::caused(Kind::Config, doing, why.into())
    }

    /// Looks once more, and all over the device: nothing is ever written over data.
    fn may_format(&self, device: &BlockDevice) -> Result<ImageFs> {
        let fs = self.wanted.fs.unwrap_or(ImageFs::Ext4);
        if let Some(at) = superblock::sample(&device.file, device.size)? {
            return Err(self
                .refuse(format!("it begins and ends with zeros, and there is data at byte {at}"))
                .hint("if nobody needs it, clear the device with `wipefs` and `blkdiscard -z` by hand"));
        }
        let least = mkfs::least(fs);
        if device.size < least {
            let (has, least) = (Quantity::of(device.size), Quantity::of(least));
            return Err(self.refuse(format!("it has {has}, and a {} needs {least}", fs.name())));
        }
        Ok(fs)
    }
}

/// Partitions on it and devices built on it are somebody's.
fn used(device: &BlockDevice) -> Result<()> {
    let (what, names) = match device.user() {
        None => return Ok(()),
        Some(User::Partitions(names)) => ("it has the partitions", names),
        Some(User::Devices(names)) => ("it is a part of", names),
    };
    let doing = format!("use the device `{}`", device.path.display());
    Err(Error::caused(Kind::Conflict, doing, format!("{what} {}", names.join(", ")))
        .hint("name one of those, or another device"))
}

/// Sees that nobody has the device; volumes that read it with the same settings (`key`) may.
fn free(device: &BlockDevice, key: Option<&String>) -> Result<()> {
    let until = Instant::now() + ENDING;
    while device.is_claimed()? {
        let points = points(device)?;
        let records = Record::all()?;
        let reader = |point: &PathBuf| {
            records.iter().any(|(_, r)| r.read_only && Some(&r.key) == key && r.point() == *point)
        };
        if !points.is_empty() && points.iter().all(reader) {
            return Ok(());
        }
        // One that is mounted does not become free by itself.
        if !points.is_empty() || Instant::now() >= until {
            let at: Vec<_> = points.iter().map(|p| format!("it is mounted at {}", p.display())).collect();
            let why =
                if at.is_empty() { "something else on the node has it".to_owned() } else { at.join("; ") };
            let doing = format!("have the device `{}` alone", device.path.display());
            return Err(Error::caused(Kind::Conflict, doing, why).hint(
                "one pod at a time can write to a device: end the other one first, or have all read it with \
                 `readOnly: true` and the same settings",
            ));
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn points(device: &BlockDevice) -> Result<Vec<PathBuf>> {
    let path = device.path.as_os_str();
    let mounts = mountinfo::read()?.into_iter();
    Ok(mounts.filter(|m| m.device == device.number || m.source == path).map(|m| m.point).collect())
}

/// A device and what was found on it.
#[derive(Debug)]
struct Seized {
    lock: String,
    key: String,
    path: PathBuf,
    name: PathBuf,
    size: u64,
    sequence: Option<u64>,
    /// `None`: it is empty.
    found: Option<Found>,
    format: Option<Vec<String>>,
    wanted: Wanted,
    mounted: Mounted,
}

impl Seen for Seized {
    fn describe(&self, record: &mut Record) {
        record.source = self.name.display().to_string();
        record.lock.clone_from(&self.lock);
        record.key.clone_from(&self.key);
        record.medium = Some(self.path.clone());
        record.read_only = self.mounted.read_only;
        let arguments = self.format.clone().filter(|_| self.found.is_none());
        record.format = arguments.map(|arguments| Unfinished {
            device: self.path.clone(),
            sequence: self.sequence,
            size: self.size,
            fs: self.mounted.fs,
            arguments,
        });
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if let (None, Some(arguments)) = (&self.found, &self.format) {
            let arguments = arguments.clone();
            steps.push(Step::Medium(Medium::Format { fs: self.mounted.fs, arguments }));
            steps.push(Step::Medium(Medium::Formatted));
        }
        let found = self.found.filter(|_| !self.mounted.read_only);
        steps.extend(found.iter().flat_map(|f| f.before(&self.wanted, &self.path, self.size)));
        steps.push(self.mounted.make());
        steps.extend(found.and_then(|f| f.after(self.size)));
        if !self.mounted.read_only {
            steps.extend(medium::give(&self.wanted.common));
        }
        steps
    }

    fn limits(&self, limits: Limits) -> (Limits, bool) {
        self.mounted.limits(limits)
    }
}

#[cfg(test)]
mod tests;
