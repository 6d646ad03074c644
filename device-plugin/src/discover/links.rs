//! The symlinks by which udev keeps devices apart, by what they lead to: /dev/serial/by-id/… for /dev/ttyUSB0.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::dev::Dev;

/// The folders of links, the best first.
const KINDS: [&str; 2] = ["by-id", "by-path"];

/// What a device is told by, and so which links stay with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// By itself: its serial number, or as the only one of its kind.
    Itself,
    /// By the port that it is plugged into: links by id are as alike as the devices, and one of them may lead to
    /// another device tomorrow.
    Place,
}

/// The links, by the node that they lead to.
#[derive(Debug, Default)]
pub struct Links {
    by_real: HashMap<PathBuf, Vec<(usize, PathBuf)>>,
}

impl Links {
    /// Reads all folders `by-id` and `by-path` one level below /dev: serial, disk, v4l, input, dri, snd and what
    /// udev's rules will think of next.
    pub fn read(dev: &Dev) -> Self {
        let mut links = Self::default();
        for class in folders(&dev.seen(Path::new("/dev"))) {
            for (rank, kind) in KINDS.into_iter().enumerate() {
                links.read_folder(dev, &Path::new("/dev").join(&class).join(kind), rank);
            }
        }
        links.by_real.values_mut().for_each(|of_one| of_one.sort());
        links
    }

    fn read_folder(&mut self, dev: &Dev, folder: &Path, rank: usize) {
        for entry in fs::read_dir(dev.seen(folder)).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                continue;
            }
            let link = folder.join(entry.file_name());
            if let Ok(behind) = dev.behind(&link) {
                self.by_real.entry(behind.real).or_default().push((rank, link));
            }
        }
    }

    /// The link that stays with the device, where there is one.
    pub fn stable(&self, real: &Path, told: Told) -> Option<&Path> {
        let least = usize::from(told == Told::Place);
        let of_one = self.by_real.get(real)?;
        of_one.iter().find(|(rank, _)| *rank >= least).map(|(_, link)| link.as_path())
    }

    /// All links to it.
    pub fn all<'a>(&'a self, real: &Path) -> impl Iterator<Item = &'a Path> {
        self.by_real.get(real).into_iter().flatten().map(|(_, link)| link.as_path())
    }
}

fn folders(dev: &Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(dev).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    names
}
