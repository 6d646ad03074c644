//! Devices as sysfs lists them: their folders, attributes and links. Nothing here blocks, whatever lies there.

use std::cell::OnceCell;
use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::rooted::Rooted;

/// The kernel gives no attribute more than a page.
const PAGE: usize = 4096;

/// An attribute's text, or what there is to say about its absence.
pub type Reading = Result<String, String>;

/// The node's /sys.
#[derive(Debug)]
pub struct Sys {
    rooted: Rooted,
}

/// A device: its folder below /sys/devices, as this process sees it and without symlinks.
#[derive(Debug, Clone)]
pub struct Device {
    folder: PathBuf,
    /// Asked for again and again, and read once.
    subsystem: OnceCell<Option<String>>,
}

/// A device is its folder.
impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        self.folder == other.folder
    }
}

impl Eq for Device {}

impl PartialOrd for Device {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By component, so that what is below a device stands behind it.
impl Ord for Device {
    fn cmp(&self, other: &Self) -> Ordering {
        self.folder.cmp(&other.folder)
    }
}

impl Sys {
    /// The node's /sys where this process sees it.
    pub fn new(seen: &Path) -> Self {
        Self { rooted: Rooted::new("/sys", seen) }
    }

    /// Where this process sees it.
    pub fn seen(&self) -> &Path {
        self.rooted.seen()
    }

    /// What /sys/class/SUBSYSTEM and /sys/bus/SUBSYSTEM/devices list, by the kernel's names; `None` without both.
    pub fn subsystem(&self, name: &str) -> Option<Vec<Device>> {
        if !is_one_name(name) {
            return None;
        }
        let class = self.listing(&format!("class/{name}"));
        let bus = self.listing(&format!("bus/{name}/devices"));
        if class.is_none() && bus.is_none() {
            return None;
        }
        let mut devices: Vec<Device> = class.into_iter().chain(bus).flatten().collect();
        devices.sort_by(|a, b| a.folder.cmp(&b.folder));
        devices.dedup();
        devices.sort_by_cached_key(|device| natural(device.name_bytes()));
        Some(devices)
    }

    /// The names of all buses.
    pub fn buses(&self) -> Vec<String> {
        let entries = fs::read_dir(self.rooted.seen().join("bus"));
        let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
        let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
        names.sort();
        names
    }

    /// The devices in a folder of /sys; `None` where it is not there. Plain files among them are attributes.
    pub fn listing(&self, folder: &str) -> Option<Vec<Device>> {
        let folder = self.rooted.resolve(&self.rooted.seen().join(folder)).ok()?;
        let entries = fs::read_dir(&folder).ok()?.flatten();
        let is_device = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|t| t.is_symlink() || t.is_dir());
        Some(entries.filter(is_device).filter_map(|entry| self.at(&folder.join(entry.file_name()))).collect())
    }

    /// The device at a path below /sys that this process sees, behind its symlinks.
    pub fn at(&self, seen: &Path) -> Option<Device> {
        let folder = match fs::read_link(seen) {
            Ok(target) => self.rooted.resolve_from(seen.parent()?, &target).ok()?,
            Err(_) => self.rooted.resolve(seen).ok()?,
        };
        Some(Device::new(folder))
    }

    /// The device that a link in a device's folder leads to: `device`.
    pub fn behind(&self, device: &Device, link: &str) -> Option<Device> {
        let target = fs::read_link(device.folder.join(link)).ok()?;
        Some(Device::new(self.rooted.resolve_from(&device.folder, &target).ok()?))
    }

    /// The device with such a number: `char` or `block`.
    pub fn numbered(&self, kind: &str, major: u32, minor: u32) -> Option<Device> {
        let folder = self.rooted.resolve(&self.rooted.seen().join("dev").join(kind)).ok()?;
        self.at(&folder.join(format!("{major}:{minor}")))
    }

    /// The devices of a driver's number, `char` or `block`, in the order of their minors.
    pub fn with_major(&self, kind: &str, major: u32) -> Vec<(u32, Device)> {
        let folder = self.rooted.resolve(&self.rooted.seen().join("dev").join(kind)).unwrap_or_default();
        let names = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let minor = |name: std::ffi::OsString| {
            let (of, minor) = name.to_str()?.split_once(':')?;
            (of.parse() == Ok(major)).then(|| minor.parse().ok()).flatten()
        };
        let mut minors: Vec<u32> = names.filter_map(minor).collect();
        minors.sort_unstable();
        let device = |minor: u32| Some((minor, self.at(&folder.join(format!("{major}:{minor}")))?));
        minors.into_iter().filter_map(device).collect()
    }

    /// The folders above a device, nearest first, up to /sys/devices.
    pub fn above(&self, device: &Device) -> impl Iterator<Item = Device> {
        // Folders have no symlinks in them, so below the top they are told by their lengths.
        let top = self.rooted.seen().as_os_str().len() + "/devices".len();
        let folders = device.folder.ancestors().skip(1).take_while(|folder| folder.as_os_str().len() > top);
        let within = device.folder.starts_with(self.rooted.seen());
        let folders: Vec<Device> =
            folders.filter(|_| within).map(|folder| Device::new(folder.to_owned())).collect();
        folders.into_iter()
    }

    /// How the node names the device's folder: `/sys/devices/…`.
    pub fn named(&self, device: &Device) -> String {
        super::shown(&self.rooted.to_named(&device.folder))
    }

    /// An attribute by its path below the device's folder; a link is worth the name of what it leads to.
    pub fn attribute(&self, device: &Device, name: &str) -> Reading {
        let path = Path::new(name);
        if path.components().any(|part| !matches!(part, Component::Normal(_))) || name.is_empty() {
            return Err("is no path below the device".to_owned());
        }
        match path.parent() {
            Some(between) if between != Path::new("") => {
                let folder = self.rooted.resolve(&device.folder.join(between));
                let folder = folder.map_err(|_| "is not there".to_owned())?;
                read(&folder.join(path.file_name().unwrap_or_default()))
            }
            _ => read(&device.folder.join(path)),
        }
    }
}

impl Device {
    fn new(folder: PathBuf) -> Self {
        Self { folder, subsystem: OnceCell::new() }
    }

    /// Its folder, as this process sees it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The kernel's name of it.
    pub fn name(&self) -> String {
        super::clean(&self.folder.file_name().unwrap_or_default().to_string_lossy())
    }

    /// The same without a copy, as it is.
    pub fn name_bytes(&self) -> &[u8] {
        self.folder.file_name().map_or(&[], OsStrExt::as_bytes)
    }

    /// An attribute of its own.
    pub fn attribute(&self, name: &str) -> Reading {
        read(&self.folder.join(name))
    }

    /// The same where there may be none: absent, unreadable and empty are alike.
    pub fn text(&self, name: &str) -> Option<String> {
        self.attribute(name).ok().filter(|text| !text.is_empty())
    }

    /// The start of an attribute that is no text.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        read_bytes(&self.folder.join(name)).ok()
    }

    /// The name of what a link leads to: `driver`, `subsystem`.
    pub fn link(&self, name: &str) -> Option<String> {
        let target = fs::read_link(self.folder.join(name)).ok()?;
        target.file_name().map(|name| super::clean(&name.to_string_lossy()))
    }

    /// What it belongs to: `tty`, `usb` …
    pub fn subsystem(&self) -> Option<&str> {
        self.subsystem.get_or_init(|| self.link("subsystem")).as_deref()
    }

    /// Whether it is a folder at all.
    pub fn is_there(&self) -> bool {
        self.subsystem().is_some() || fs::symlink_metadata(&self.folder).is_ok_and(|found| found.is_dir())
    }

    /// What the kernel says of it in its events: `DEVNAME`, `MAJOR`, `DEVTYPE` …
    pub fn uevent(&self) -> Uevent {
        Uevent(self.attribute("uevent").unwrap_or_default())
    }
}

/// Lines of `KEY=VALUE`.
#[derive(Debug, Clone, Default)]
pub struct Uevent(String);

impl Uevent {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    }

    /// The value of a key as a number.
    pub fn number(&self, key: &str) -> Option<u32> {
        self.get(key)?.parse().ok()
    }
}

/// Whether it is the name of one file, and no path.
pub fn is_one_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) && !name.contains('/')
}

/// Orders names as people do: `ttyUSB2` before `ttyUSB10`.
pub fn natural(name: &[u8]) -> Vec<(Vec<u8>, u64)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text = rest.iter().position(u8::is_ascii_digit).unwrap_or(rest.len());
        let (word, after) = rest.split_at(text);
        let digits = after.iter().position(|b| !b.is_ascii_digit()).unwrap_or(after.len());
        let (number, after) = after.split_at(digits);
        let digit = |sum: u64, b: &u8| sum.saturating_mul(10).saturating_add(u64::from(b.wrapping_sub(b'0')));
        parts.push((word.to_vec(), number.iter().fold(0, digit)));
        rest = after;
    }
    parts
}

fn read(path: &Path) -> Reading {
    match read_bytes(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            Ok(text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err("is not there".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err("is not there".to_owned()),
        Err(_) if is_link(path) => {
            let target = fs::read_link(path).unwrap_or_default();
            Ok(super::clean(&target.file_name().unwrap_or(OsStr::new("")).to_string_lossy()))
        }
        Err(error) => Err(format!("can't be read: {error}")),
    }
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

/// At most a page of a plain file. What it is gets asked before it is opened, since opening a device can start
/// something.
fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let found = fs::symlink_metadata(path)?;
    if FileType::from_raw_mode(found.mode()) != FileType::RegularFile {
        return Err(io::Error::other("it is no plain file"));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    let mut bytes = vec![0_u8; PAGE];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let rest_len = rest.len();
        match rustix::io::read(&file, rest) {
            // Less than asked for is the end, as with any plain file.
            Ok(count) if count < rest_len => {
                filled += count;
                break;
            }
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
