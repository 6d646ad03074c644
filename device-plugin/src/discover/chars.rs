//! Character devices by number.

use crate::config::CharSelector;
use crate::inventory::Looked;

use super::anchor::with_node;
use super::identity;
use super::rejected::{Match, Rejections};
use super::tree::Device;
use super::view::View;
use super::watching::Watching;

/// The devices with such numbers.
pub fn look(wanted: &CharSelector, view: &View) -> Looked {
    let mut rejected = Rejections::default();
    let mut found = Vec::new();
    for (minor, device) in candidates(wanted, view) {
        let mut matching = Match::default();
        matching.check(|| in_range(wanted, minor));
        if matching.decide(|| device.name(), &mut rejected) {
            let (identity, told) = identity::of(&device, view);
            found.push(with_node(&device, identity, told, view));
        }
    }
    if found.is_empty() {
        let minor = wanted.minor.map_or_else(|| "*".to_owned(), |minor| minor.to_string());
        rejected.note(format!("{}:{minor}", wanted.major), "no driver has such a device");
    }
    Looked { found, rejected: rejected.finish(), ..Looked::default() }
}

/// What to watch: what a number will belong to is not known before.
pub fn watch(watching: &mut Watching) {
    watching.anything();
}

fn candidates(wanted: &CharSelector, view: &View) -> Vec<(u32, Device)> {
    if let (Some(minor), None) = (wanted.minor, wanted.last_minor) {
        let device = view.sys.numbered("char", wanted.major, minor);
        return device.into_iter().map(|device| (minor, device)).collect();
    }
    view.sys.with_major("char", wanted.major)
}

fn in_range(wanted: &CharSelector, minor: u32) -> Result<(), String> {
    let first = wanted.minor.unwrap_or_default();
    let last = wanted.last_minor.or(wanted.minor).unwrap_or(u32::MAX);
    if (first..=last).contains(&minor) {
        return Ok(());
    }
    Err(format!("minor is {minor}, not {first} to {last}"))
}

#[cfg(test)]
#[path = "chars_tests.rs"]
mod tests;
