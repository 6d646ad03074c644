//! Devices by their subsystem and attributes.

use std::collections::BTreeMap;

use crate::config::SysfsSelector;
use crate::inventory::{Found, Looked};

use super::anchor::with_node;
use super::identity;
use super::parents::{Parents, attributes};
use super::rejected::{Match, Rejections};
use super::tree::Device;
use super::view::View;
use super::watching::Watching;

/// The devices of the subsystem that match.
pub fn look(wanted: &SysfsSelector, view: &View) -> Looked {
    let mut rejected = Rejections::default();
    let parents = Parents::new(&wanted.parents);
    let mut found = Vec::new();
    for device in rejected.or_note(&wanted.subsystem, view.sys.subsystem(&wanted.subsystem)) {
        let mut matching = Match::default();
        matching.glob("name", wanted.name.as_ref(), || Ok(device.name()));
        let values = attributes(&mut matching, &wanted.attributes, &device, &view.sys);
        matching.check(|| parents.above(&device, &view.sys));
        matching.check(|| if device.is_there() { Ok(()) } else { Err("is no device".to_owned()) });
        if matching.decide(|| device.name(), &mut rejected) {
            found.push(take(&device, values, view));
        }
    }
    Looked { found, rejected: rejected.finish(), ..Looked::default() }
}

fn take(device: &Device, values: BTreeMap<String, String>, view: &View) -> Found {
    let (identity, told) = identity::of(device, view);
    let mut found = with_node(device, identity, told, view);
    for (name, value) in values {
        found.attributes.entry(name).or_insert(value);
    }
    found
}

/// What to watch.
pub fn watch(wanted: &SysfsSelector, watching: &mut Watching) {
    watching.subsystem(&wanted.subsystem);
    watching.parents(&wanted.parents);
}

#[cfg(test)]
#[path = "sysfs_tests.rs"]
mod tests;
