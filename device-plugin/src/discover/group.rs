//! group

use crate::config::GroupSelector;
use crate::inventory::Looked;

use super::view::View;
use super::watching::Watching;

/// What matches.
pub fn look(_wanted: &GroupSelector, _view: &View) -> Looked {
    Looked::default()
}

/// What to watch.
pub fn watch(_wanted: &GroupSelector, _watching: &mut Watching) {}
