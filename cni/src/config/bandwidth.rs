//! Rates: the keys of the reference's bandwidth plugin and the runtime's `bandwidth`.

use serde::{Deserialize, Serialize};

use crate::config::feature::Source;
use crate::config::reader::Problem;

/// A pod's rates, seen from the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// What the pod receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Rate>,
    /// What it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Rate>,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Bits a second.
    pub rate: u64,
    /// Bits that may pass at once after a rest.
    pub burst: u64,
}

impl Bandwidth {
    /// `None` where no rate is asked for.
    pub(super) fn read(_source: &mut Source<'_, '_>, _problems: &mut Vec<Problem>) -> Option<Self> {
        None
    }
}
