//! pci

use crate::config::PciSelector;
use crate::inventory::Looked;

use super::view::View;
use super::watching::Watching;

/// What matches.
pub fn look(_wanted: &PciSelector, _view: &View) -> Looked {
    Looked::default()
}

/// What to watch.
pub fn watch(_wanted: &PciSelector, _watching: &mut Watching) {}
