//! As many devices as a sensor of the node has to give.

use crate::config::{Host, SensorSelector};
use crate::inventory::Looked;

/// What the sensor gives now.
pub fn look(_wanted: &SensorSelector, _host: &Host) -> Looked {
    Looked::default()
}
