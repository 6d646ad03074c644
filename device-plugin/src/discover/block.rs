//! block

use crate::config::BlockSelector;
use crate::inventory::Looked;

use super::view::View;
use super::watching::Watching;

/// What matches.
pub fn look(_wanted: &BlockSelector, _view: &View) -> Looked {
    Looked::default()
}

/// What to watch.
pub fn watch(_wanted: &BlockSelector, _watching: &mut Watching) {}

/// What it is known by.
pub fn identity(device: &super::tree::Device, _view: &View) -> (String, super::links::Told) {
    (device.name(), super::links::Told::Itself)
}
