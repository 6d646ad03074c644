//! What tells that a device came or went: the kernel's events, and the folders that its nodes and links are in.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{ParentMatch, Span};

use super::Watches;
use super::view::View;

/// Collected watches.
#[derive(Debug)]
pub struct Watching<'a> {
    view: &'a View,
    folders: BTreeSet<PathBuf>,
    contents: BTreeSet<PathBuf>,
    subsystems: BTreeSet<String>,
    every: Option<Duration>,
}

impl<'a> Watching<'a> {
    /// None yet.
    pub fn new(view: &'a View) -> Self {
        let (folders, contents, subsystems) = <(BTreeSet<_>, BTreeSet<_>, BTreeSet<_>)>::default();
        Self { view, folders, contents, subsystems, every: None }
    }

    /// The node's /dev and /sys.
    pub fn view(&self) -> &'a View {
        self.view
    }

    /// A folder by the node's name of it, and what is behind it where it is a symlink. One outside /dev that is not there
    /// begins with the nearest above it that is: what goes on in / and /srv is nobody's business.
    pub fn folder(&mut self, named: &Path) {
        if self.view.dev.holds(named) {
            self.folders.insert(self.view.dev.seen(named));
            self.folders.extend(self.view.dev.seen_behind(named));
        } else {
            self.folders.extend(named.ancestors().find_map(|folder| self.view.dev.seen_behind(folder)));
        }
    }

    /// What is written in a file: the folder that it is in, and that of what a symlink leads to.
    pub fn file(&mut self, path: &Path) {
        let real = self.view.dev.behind(path).ok().map(|behind| behind.real);
        for folder in [Some(path), real.as_deref()].into_iter().flatten().filter_map(Path::parent) {
            self.contents.extend(self.view.dev.seen_behind(folder));
            self.folder(folder);
        }
    }

    /// How often to look in any case.
    pub fn every(&mut self, span: Span) {
        self.every = Some(self.every.map_or(span.duration(), |every| every.min(span.duration())));
    }

    /// Folders of whole USB devices, one for each bus.
    fn buses(&mut self) {
        let buses = Path::new("/dev/bus/usb");
        for folder in [Path::new("/dev"), Path::new("/dev/bus"), buses] {
            self.folder(folder);
        }
        for entry in std::fs::read_dir(self.view.dev.seen(buses)).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.folder(&buses.join(entry.file_name()));
            }
        }
    }

    /// Events of a subsystem, and the folders where its nodes and udev's links to them appear.
    pub fn subsystem(&mut self, name: &str) {
        self.subsystems.insert(name.to_owned());
        let links = match name {
            // These have no nodes, or none that udev links to. Where no events come, as in a user namespace, the nodes
            // themselves tell.
            "pci" | "net" | "vfio" => return,
            "usb" => return self.buses(),
            "tty" => "serial",
            "video4linux" => "v4l",
            "block" | "nvme" => "disk",
            "sound" => "snd",
            "drm" => "dri",
            other => other,
        };
        self.links(links);
    }

    /// Events of any subsystem, and all links.
    pub fn anything(&mut self) {
        self.subsystems.insert("*".to_owned());
        for class in ["serial", "v4l", "disk", "input", "snd", "dri"] {
            self.links(class);
        }
    }

    fn links(&mut self, class: &str) {
        self.folder(Path::new("/dev"));
        let class = Path::new("/dev").join(class);
        // The folder itself appears with the first link.
        for folder in [class.join("by-id"), class.join("by-path"), class] {
            self.folder(&folder);
        }
    }

    /// Events of parents that a device has to have.
    pub fn parents(&mut self, parents: &[ParentMatch]) {
        let subsystems = parents.iter().filter_map(|parent| parent.subsystem.clone());
        self.subsystems.extend(subsystems);
    }

    /// In order, each once.
    pub fn finish(self) -> Watches {
        let any = self.subsystems.contains("*");
        let subsystems = if any { vec!["*".to_owned()] } else { self.subsystems.into_iter().collect() };
        let (folders, contents) = (self.folders.into_iter().collect(), self.contents.into_iter().collect());
        Watches { folders, contents, subsystems, every: self.every }
    }
}
