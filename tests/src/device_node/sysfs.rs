//! A made sysfs: folders, attributes and links as the kernel lays them out, as far as discovery reads them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A sysfs that a test fills.
#[derive(Debug)]
pub struct Sysfs {
    root: PathBuf,
}

/// A USB serial adapter.
#[derive(Debug, Clone, Copy)]
pub struct UsbSerial<'a> {
    /// `1-1.4`.
    pub port: &'a str,
    /// Four hexadecimal digits.
    pub vendor: &'a str,
    /// The same.
    pub product: &'a str,
    /// Empty: it has none.
    pub serial: &'a str,
    /// `ttyUSB0`.
    pub tty: &'a str,
    /// The number on its bus, another one at each plugging.
    pub number: u32,
}

impl Sysfs {
    pub(super) fn new(root: &Path) -> Self {
        for folder in ["class", "bus", "devices", "dev/char", "dev/block"] {
            fs::create_dir_all(root.join(folder)).expect("make a sysfs");
        }
        Self { root: root.to_owned() }
    }

    /// The folder of a device.
    pub fn path(&self, device: &str) -> PathBuf {
        self.root.join(device)
    }

    /// Makes a device (`devices/virtual/mem/null`) of a class (`class/mem`) or bus (`bus/usb`), with attributes;
    /// `uevent` and `dev` are attributes, too.
    pub fn device(&self, device: &str, subsystem: &str, attributes: &[(&str, &str)]) {
        let folder = self.path(device);
        fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("make {device}: {e}"));
        for (name, value) in attributes {
            self.attribute(device, name, value);
        }
        if !folder.join("uevent").exists() {
            self.attribute(device, "uevent", "");
        }
        let name = folder.file_name().expect("a name").to_owned();
        let list = match subsystem.strip_prefix("bus/") {
            Some(bus) => self.root.join("bus").join(bus).join("devices"),
            None => self.root.join(subsystem),
        };
        fs::create_dir_all(&list).expect("make a subsystem");
        relative_link(&folder, &list.join(name));
        relative_link(&self.root.join(subsystem), &folder.join("subsystem"));
        if let Some((_, number)) = attributes.iter().find(|(name, _)| *name == "dev") {
            let kind = if subsystem == "class/block" { "dev/block" } else { "dev/char" };
            relative_link(&folder, &self.root.join(kind).join(number));
        }
    }

    /// Writes an attribute.
    pub fn attribute(&self, device: &str, name: &str, value: &str) {
        let path = self.path(device).join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("make an attribute's folder");
        fs::write(&path, format!("{value}\n")).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    }

    /// Binds a driver to a device of a bus.
    pub fn driver(&self, device: &str, bus: &str, driver: &str) {
        let folder = self.root.join("bus").join(bus).join("drivers").join(driver);
        fs::create_dir_all(&folder).expect("make a driver");
        relative_link(&folder, &self.path(device).join("driver"));
    }

    /// Takes a device and those below it away, with the links of their subsystems.
    pub fn remove(&self, device: &str) {
        fs::remove_dir_all(self.path(device)).unwrap_or_else(|e| panic!("remove {device}: {e}"));
        let classes = fs::read_dir(self.root.join("class")).expect("classes").flatten().map(|e| e.path());
        let buses = fs::read_dir(self.root.join("bus")).expect("buses").flatten();
        let numbers = ["dev/char", "dev/block"].map(|kind| self.root.join(kind));
        for list in classes.chain(buses.map(|e| e.path().join("devices"))).chain(numbers) {
            for link in fs::read_dir(list).into_iter().flatten().flatten().map(|e| e.path()) {
                if !link.exists() {
                    fs::remove_file(&link).expect("remove a link");
                }
            }
        }
    }

    /// A USB serial adapter on the port of a bus: the device, its interface, and the terminal below it. The
    /// device's folder.
    pub fn usb_serial(&self, of: &UsbSerial<'_>) -> String {
        let device = format!("devices/pci0000:00/0000:00:14.0/usb1/{}", of.port);
        let node = format!("bus/usb/001/{:03}", of.number);
        let minor = of.number - 1;
        let uevent = format!("MAJOR=189\nMINOR={minor}\nDEVNAME={node}\nDEVTYPE=usb_device\nDRIVER=usb");
        let number = of.number.to_string();
        let dev = format!("189:{minor}");
        let mut attributes = vec![
            ("idVendor", of.vendor),
            ("idProduct", of.product),
            ("busnum", "1"),
            ("devnum", number.as_str()),
            ("dev", dev.as_str()),
            ("uevent", uevent.as_str()),
            ("bDeviceClass", "00"),
        ];
        if !of.serial.is_empty() {
            attributes.push(("serial", of.serial));
        }
        self.device(&device, "bus/usb", &attributes);
        let interface = format!("{device}/{}:1.0", of.port);
        self.device(
            &interface,
            "bus/usb",
            &[("bInterfaceClass", "ff"), ("bInterfaceNumber", "00"), ("uevent", "DEVTYPE=usb_interface")],
        );
        self.driver(&interface, "usb", "ftdi_sio");
        let minor: u32 = of.tty.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number");
        let port = format!("{interface}/{}", of.tty);
        self.device(&port, "bus/usb-serial", &[]);
        let uevent = format!("MAJOR=188\nMINOR={minor}\nDEVNAME={}", of.tty);
        let dev = format!("188:{minor}");
        self.device(&format!("{port}/tty/{}", of.tty), "class/tty", &[("dev", &dev), ("uevent", &uevent)]);
        device
    }
}

/// A link with as many `..` as it takes, as the kernel makes them.
fn relative_link(target: &Path, link: &Path) {
    let folder = link.parent().expect("a folder");
    let common = folder.ancestors().find(|a| target.starts_with(a)).expect("one root");
    let up = folder.strip_prefix(common).expect("below it").components().count();
    let rest = target.strip_prefix(common).expect("below it");
    let path: PathBuf = std::iter::repeat_n("..", up).collect::<PathBuf>().join(rest);
    symlink(path, link).unwrap_or_else(|e| panic!("link {}: {e}", link.display()));
}
