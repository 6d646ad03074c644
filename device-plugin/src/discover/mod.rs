//! Finds devices: one file a source. A look reads sysfs and /dev and changes nothing.

pub mod sensor;
pub mod synthetic;

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Host, Selector};
use crate::inventory::Looked;

/// What tells that another look is due.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watches {
    /// Folders, as this process sees them, where files come and go; one that is not there yet is named all the same.
    pub folders: Vec<PathBuf>,
    /// Subsystems of the kernel's uevents (`usb`, `tty`, `block` …); `*` for all.
    pub subsystems: Vec<String>,
    /// How often to look in any case, where the source says so.
    pub every: Option<Duration>,
}

/// What the source has now. It may take as long as a command's time-out.
pub fn look(_selector: &Selector, _host: &Host) -> Looked {
    Looked::default()
}

/// What to watch for it.
pub fn watches(_selector: &Selector, _host: &Host) -> Watches {
    Watches::default()
}
