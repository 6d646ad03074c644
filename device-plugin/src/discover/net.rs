//! net

use crate::config::NetSelector;
use crate::inventory::Looked;

use super::view::View;
use super::watching::Watching;

/// What matches.
pub fn look(_wanted: &NetSelector, _view: &View) -> Looked {
    Looked::default()
}

/// What to watch.
pub fn watch(_wanted: &NetSelector, _watching: &mut Watching) {}

/// What it is known by.
pub fn identity(device: &super::tree::Device, _view: &View) -> (String, super::links::Told) {
    (device.name(), super::links::Told::Itself)
}
