//! Finds devices: one file a source. A look reads sysfs and /dev and changes nothing; it opens attributes and never
//! a device, and whatever is broken there costs no more than what it belongs to.

mod below;
mod block;
mod chars;
mod dev;
mod group;
mod identity;
mod links;
#[cfg(test)]
pub(crate) mod made;
mod net;
mod nodes;
mod parents;
mod path;
mod pci;
mod rejected;
mod rooted;
mod sensor;
mod synthetic;
mod sysfs;
mod tree;
mod usb;
mod usb_index;
mod view;
mod walk;
mod watching;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{Host, Selector};
use crate::inventory::Looked;

use view::View;

/// What tells that another look is due. It changes with what is there: it is asked for after each look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watches {
    /// Folders, as this process sees them, where files come and go; one that is not there yet is named all the same.
    pub folders: Vec<PathBuf>,
    /// Those of the folders where a file that is written and closed tells of a change, too.
    pub contents: Vec<PathBuf>,
    /// Subsystems of the kernel's uevents (`usb`, `tty`, `block` …); `*` for all.
    pub subsystems: Vec<String>,
    /// How often to look in any case, where the source says so.
    pub every: Option<Duration>,
}

/// What the source has now. It may take as long as a command's time-out.
pub fn look(selector: &Selector, host: &Host) -> Looked {
    let view = View::new(host);
    let looked = match selector {
        Selector::Path(wanted) => path::look(wanted, &view),
        Selector::Usb(wanted) => usb::look(wanted, &view),
        Selector::Pci(wanted) => pci::look(wanted, &view),
        Selector::Sysfs(wanted) => sysfs::look(wanted, &view),
        Selector::Net(wanted) => net::look(wanted, &view),
        Selector::Block(wanted) => block::look(wanted, &view),
        Selector::Char(wanted) => chars::look(wanted, &view),
        Selector::Group(wanted) => group::look(wanted, &view),
        Selector::Count(wanted) => synthetic::count(wanted),
        Selector::File(wanted) => synthetic::file(wanted, host),
        Selector::Command(wanted) => synthetic::command(wanted),
        Selector::Sensor(wanted) => sensor::look(wanted, host),
    };
    let mut looked = identity::distinct(looked);
    if reads_node(selector) && looked.failed.is_none() {
        looked.failed = [&host.dev, &host.sys].into_iter().find_map(|folder| out_of_reach(folder));
    }
    looked
}

fn reads_node(selector: &Selector) -> bool {
    !matches!(selector, Selector::Count(_) | Selector::File(_) | Selector::Command(_) | Selector::Sensor(_))
}

/// A process without descriptors or memory left sees empty folders everywhere: then nothing is known to be gone.
fn out_of_reach(folder: &Path) -> Option<String> {
    match std::fs::read_dir(folder) {
        Ok(_) => None,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(format!("`{}` can't be read: {error}", shown(folder))),
    }
}

/// What to watch for it.
pub fn watches(selector: &Selector, host: &Host) -> Watches {
    let view = View::new(host);
    let mut watching = watching::Watching::new(&view);
    match selector {
        Selector::Path(wanted) => path::watch(wanted, &mut watching),
        Selector::Usb(wanted) => usb::watch(wanted, &mut watching),
        Selector::Pci(wanted) => pci::watch(wanted, &mut watching),
        Selector::Sysfs(wanted) => sysfs::watch(wanted, &mut watching),
        Selector::Net(wanted) => net::watch(wanted, &mut watching),
        Selector::Block(wanted) => block::watch(wanted, &mut watching),
        Selector::Char(_) => chars::watch(&mut watching),
        Selector::Group(wanted) => group::watch(wanted, &mut watching),
        Selector::Count(_) => {}
        Selector::File(wanted) => watching.file(&wanted.path),
        Selector::Command(wanted) => watching.every(wanted.every),
        Selector::Sensor(wanted) => watching.every(wanted.every),
    }
    watching.finish()
}

/// A text of a device's own on one line: it may be anything that its maker burnt in.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A path for people and for identities.
fn shown(path: &Path) -> String {
    clean(&path.to_string_lossy())
}

#[cfg(test)]
#[path = "hostile_tests.rs"]
mod hostile_tests;
