//! A made /sys and /dev for tests: a builder that lays out devices as the kernel does.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::config::{Host, Selector};
use crate::inventory::Looked;

use super::{Watches, look, watches};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A temp folder with `dev` and `sys`, removed at the end.
pub struct Made {
    root: PathBuf,
}

impl Default for Made {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Made {
    /// Empty ones.
    pub fn new() -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("nodeplug-discover-{}-{count}", std::process::id());
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(root.join("dev")).unwrap();
        fs::create_dir_all(root.join("sys/devices")).unwrap();
        Self { root: fs::canonicalize(root).unwrap() }
    }

    /// The configuration's words for it.
    pub fn host(&self) -> Host {
        Host {
            dev: self.root.join("dev"),
            sys: self.root.join("sys"),
            cdi: self.root.join("cdi"),
            root: self.root.clone(),
        }
    }

    /// A file of the node: `/dev/x`, `/sys/devices/x` where it really is.
    pub fn at(&self, named: &str) -> PathBuf {
        self.root.join(named.trim_start_matches('/'))
    }

    /// One look by a selector in YAML: `usb: {vendor: "0403"}`.
    pub fn look(&self, selector: &str) -> Looked {
        look(&self::selector(selector), &self.host())
    }

    /// What is watched for it.
    pub fn watches(&self, selector: &str) -> Watches {
        watches(&self::selector(selector), &self.host())
    }

    /// A device's folder below /sys/devices with its attributes; `of` is its subsystem, `class/tty` or `bus/usb`.
    pub fn device(&self, folder: &str, of: &str, attributes: &[(&str, &str)]) -> &Self {
        let whole = self.at("sys/devices").join(folder);
        fs::create_dir_all(&whole).unwrap();
        for (name, value) in [("uevent", "")].iter().chain(attributes) {
            let file = whole.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, value).unwrap();
        }
        let listed = if of.starts_with("bus/") { format!("{of}/devices") } else { of.to_owned() };
        let listed = self.at("sys").join(listed);
        fs::create_dir_all(&listed).unwrap();
        let name = whole.file_name().unwrap();
        relative_link(&whole, &listed.join(name));
        relative_link(&self.at("sys").join(of), &whole.join("subsystem"));
        self
    }

    /// The same with a node in /dev: its number, `DEVNAME`, and its entry in /sys/dev.
    pub fn with_node(
        &self,
        folder: &str,
        of: &str,
        attributes: &[(&str, &str)],
        devname: &str,
        (major, minor): (u32, u32),
    ) -> &Self {
        let event = format!("MAJOR={major}\nMINOR={minor}\nDEVNAME={devname}\n");
        let attributes: Vec<(&str, &str)> =
            attributes.iter().copied().chain([("uevent", event.as_str())]).collect();
        self.device(folder, of, &attributes);
        let kind = if of == "class/block" { "block" } else { "char" };
        let numbers = self.at("sys/dev").join(kind);
        fs::create_dir_all(&numbers).unwrap();
        relative_link(&self.at("sys/devices").join(folder), &numbers.join(format!("{major}:{minor}")));
        self.node(devname, kind == "block", (major, minor))
    }

    /// A device node.
    pub fn node(&self, devname: &str, block: bool, (major, minor): (u32, u32)) -> &Self {
        let kind = if block { FileType::BlockDevice } else { FileType::CharacterDevice };
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, self.place(devname), kind, mode, makedev(major, minor)).unwrap();
        self
    }

    /// A FIFO: whoever opens it waits for ever.
    pub fn fifo(&self, named: &str) -> &Self {
        let path = self.at(named);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        self
    }

    /// A symlink as it is written.
    pub fn link(&self, named: &str, target: &str) -> &Self {
        let path = self.at(named);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    /// A driver that is bound to a device.
    pub fn driver(&self, folder: &str, name: &str) -> &Self {
        symlink(format!("../../bus/any/drivers/{name}"), self.at("sys/devices").join(folder).join("driver"))
            .unwrap();
        self
    }

    /// An FTDI adapter in a port of the first bus of a controller: `1-1`, its interface and its tty.
    pub fn adapter(&self, port: &str, serial: &str, tty: u32) -> &Self {
        let stick = format!("{CONTROLLER}/usb1/{port}");
        let mut attributes =
            vec![("idVendor", "0403\n"), ("idProduct", "6001\n"), ("manufacturer", "FTDI\n")];
        let line = format!("{serial}\n");
        if !serial.is_empty() {
            attributes.push(("serial", &line));
        }
        let number = format!("bus/usb/001/{:03}", tty + 10);
        self.with_node(&stick, "bus/usb", &attributes, &number, (189, tty + 9));
        let interface = format!("{stick}/{port}:1.0");
        self.device(&interface, "bus/usb", &[("bInterfaceClass", "ff\n")]);
        let name = format!("ttyUSB{tty}");
        self.with_node(&format!("{interface}/{name}/tty/{name}"), "class/tty", &[], &name, (188, tty))
    }

    /// A controller with a root hub, near NUMA node 1.
    pub fn controller(&self) -> &Self {
        self.device(
            CONTROLLER,
            "bus/pci",
            &[("numa_node", "1\n"), ("vendor", "0x8086\n"), ("class", "0x0c0330\n")],
        );
        let hub = [("idVendor", "1d6b\n"), ("idProduct", "0002\n"), ("serial", "0000:00:14.0\n")];
        self.with_node(&format!("{CONTROLLER}/usb1"), "bus/usb", &hub, "bus/usb/001/001", (189, 0))
    }

    fn place(&self, devname: &str) -> PathBuf {
        let path = self.at("dev").join(devname);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }
}

/// The folder of the controller.
pub const CONTROLLER: &str = "pci0000:00/0000:00:14.0";

/// A selector in YAML, as it is written: what the configuration's checks would refuse is to do no harm either.
pub fn selector(text: &str) -> Selector {
    serde_saphyr::from_str(&format!("{{{text}}}")).unwrap()
}

/// A link from one absolute path to another as sysfs has them: `../../devices/…`.
fn relative_link(target: &Path, at: &Path) {
    let from = at.parent().unwrap();
    let common = from.ancestors().find(|folder| target.starts_with(folder)).unwrap();
    let up = from.strip_prefix(common).unwrap().components().map(|_| "..");
    let relative: PathBuf = up.collect::<PathBuf>().join(target.strip_prefix(common).unwrap());
    let _ = symlink(relative, at);
}
