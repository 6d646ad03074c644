//! chars
use crate::config::CharSelector;
use crate::inventory::Looked;

use super::view::View;
use super::watching::Watching;

/// What matches.
pub fn look(_wanted: &CharSelector, _view: &View) -> Looked {
    Looked::default()
}

/// What to watch.
pub fn watch(watching: &mut Watching) {
    watching.anything();
}
