//! Finds devices: one file a source. A look reads sysfs and /dev and changes nothing; it opens attributes and never
//! a device, and whatever is broken there costs no more than what it belongs to.

mod anchor;
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

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{Host, Resource, Selector};
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

/// What all sources of a resource have now. It may take as long as their commands' time-outs together.
pub fn look_all(resource: &Resource, host: &Host) -> Looked {
    merged(resource.devices.iter().map(|selector| look(selector, host)))
}

/// Several looks as one: a device that several sources find is one, and the first says what it is.
fn merged(looks: impl Iterator<Item = Looked>) -> Looked {
    let mut all = Looked::default();
    let mut known = HashSet::new();
    for one in looks {
        all.found.extend(one.found.into_iter().filter(|found| known.insert(found.identity.clone())));
        all.rejected.extend(one.rejected);
        all.failed = all.failed.or(one.failed);
    }
    all
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Found, Rejected};

    fn looked(what: &str, identities: &[&str], failed: Option<&str>) -> Looked {
        let found = |identity: &&str| Found {
            identity: (*identity).to_owned(),
            name: what.to_owned(),
            ..Found::default()
        };
        Looked {
            found: identities.iter().map(found).collect(),
            rejected: vec![Rejected { what: what.to_owned(), why: "is small".to_owned() }],
            failed: failed.map(str::to_owned),
        }
    }

    #[test]
    fn a_device_that_several_sources_find_is_what_the_first_says() {
        let looks = [
            looked("one", &["b", "a"], None),
            looked("two", &["a", "c"], Some("gone")),
            looked("three", &["c"], Some("away")),
        ];
        let all = merged(looks.into_iter());
        let found: Vec<_> =
            all.found.iter().map(|found| format!("{} {}", found.identity, found.name)).collect();
        assert_eq!(found, ["b one", "a one", "c two"]);
        assert_eq!(all.rejected.len(), 3);
        assert_eq!(all.failed.as_deref(), Some("gone"));
    }
}
