//! All USB devices of the node: which one a device in sysfs belongs to, and what tells it from its likes.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::links::Told;
use super::tree::{Device, Sys, natural};

/// A USB device: a stick, or a hub.
#[derive(Debug, Clone)]
pub struct Stick {
    /// Its folder.
    pub device: Device,
    /// `idVendor`.
    pub vendor: String,
    /// `idProduct`.
    pub product: String,
    /// The serial number, where it claims one.
    pub serial: Option<String>,
    /// Where it is plugged in, without numbers that the kernel counts: `0000:00:14.0/0-1.4` is port 4 of the hub in
    /// port 1 of the first bus of that controller.
    pub place: String,
}

/// The USB devices by their folders.
#[derive(Debug, Default)]
pub struct UsbIndex {
    sticks: HashMap<PathBuf, Stick>,
    /// How many claim to be the same one.
    claims: HashMap<(String, String, String), usize>,
}

impl UsbIndex {
    /// Reads /sys/bus/usb.
    pub fn read(sys: &Sys) -> Self {
        let mut index = Self::default();
        let mut buses = HashMap::new();
        for device in sys.listing("bus/usb/devices").unwrap_or_default() {
            // An interface is CONFIGURATION.INTERFACE behind a colon.
            if device.name_bytes().contains(&b':') {
                continue;
            }
            let stick = Stick {
                vendor: device.text("idVendor").unwrap_or_default().to_ascii_lowercase(),
                product: device.text("idProduct").unwrap_or_default().to_ascii_lowercase(),
                serial: device.text("serial").map(|serial| super::clean(&serial)),
                place: place(&device, &mut buses),
                device,
            };
            if let Some(claim) = stick.claim() {
                *index.claims.entry(claim).or_default() += 1;
            }
            index.sticks.insert(stick.device.folder().to_owned(), stick);
        }
        index
    }

    /// Whether the node has no USB at all.
    pub fn is_empty(&self) -> bool {
        self.sticks.is_empty()
    }

    /// In the order of their ports.
    pub fn all(&self) -> Vec<&Stick> {
        let mut all: Vec<&Stick> = self.sticks.values().collect();
        all.sort_by_cached_key(|stick| natural(stick.device.name_bytes()));
        all
    }

    /// The nearest USB device at or above a folder.
    pub fn around(&self, folder: &Path) -> Option<&Stick> {
        folder.ancestors().find_map(|above| self.sticks.get(above))
    }

    /// What a stick is known by. Two that claim the same serial number are told apart by their ports, both of them:
    /// neither may take the other's place when it is pulled.
    pub fn identity(&self, stick: &Stick) -> (String, Told) {
        let (vendor, product) = (&stick.vendor, &stick.product);
        let alone = stick.claim().is_some_and(|claim| self.claims.get(&claim) == Some(&1));
        match &stick.serial {
            Some(serial) if alone => (format!("usb:{vendor}:{product}:{serial}"), Told::Itself),
            _ => (format!("usb:{vendor}:{product}:port:{}", stick.place), Told::Place),
        }
    }
}

impl Stick {
    fn claim(&self) -> Option<(String, String, String)> {
        Some((self.vendor.clone(), self.product.clone(), self.serial.clone()?))
    }

    /// The port as the kernel names it: `1-1.4`.
    pub fn port(&self) -> String {
        self.device.name()
    }
}

/// The controller's name, which of its buses, and the chain of ports.
fn place(device: &Device, buses: &mut HashMap<PathBuf, Vec<Vec<u8>>>) -> String {
    let name = device.name();
    let root = device.folder().ancestors().find(|folder| is_root_hub(folder));
    let controller = root.and_then(Path::parent);
    let (Some(root), Some(controller)) = (root, controller) else { return name };
    let known = buses.entry(controller.to_owned()).or_insert_with(|| root_hubs(controller));
    let root_name = root.file_name().unwrap_or_default().as_encoded_bytes();
    let bus = known.iter().position(|hub| hub == root_name).unwrap_or_default();
    let ports = name.split_once('-').map_or("0", |(_, ports)| ports);
    let controller = controller.file_name().unwrap_or_default().to_string_lossy();
    format!("{}/{bus}-{ports}", super::clean(&controller))
}

fn is_root_hub(folder: &Path) -> bool {
    folder
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix("usb"))
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether a folder is below a USB controller at all.
pub fn is_below_usb(folder: &Path) -> bool {
    // Most folders have nothing of the kind in them, and this is asked of each.
    let bytes = folder.as_os_str().as_encoded_bytes();
    bytes.windows(4).any(|part| part == b"/usb") && folder.ancestors().any(is_root_hub)
}

fn root_hubs(controller: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(controller).into_iter().flatten().flatten();
    let hubs = entries.map(|entry| entry.path()).filter(|path| is_root_hub(path));
    let mut names: Vec<Vec<u8>> =
        hubs.filter_map(|path| path.file_name().map(|name| name.as_encoded_bytes().to_vec())).collect();
    names.sort_by_cached_key(|name| natural(name));
    names
}
