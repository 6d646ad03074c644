//! The host's firewall: the keys of the reference's firewall plugin.

use serde::{Deserialize, Serialize};

use crate::config::feature::Source;
use crate::config::reader::Problem;

/// How the pod's traffic passes the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// `iptablesAdminChainName`: the operator's own chain, asked before any of our rules.
    pub admin_chain: String,
    /// `ingressPolicy`: who may open a connection to the pod.
    pub ingress: IngressPolicy,
}

/// Who may open a connection to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IngressPolicy {
    /// Everybody.
    Open,
    /// Pods of the same bridge, and nobody of another bridge.
    SameBridge,
    /// No other pod.
    Isolated,
}

impl Firewall {
    /// `None` where it is not asked for.
    pub(super) fn read(_source: &mut Source<'_, '_>, _problems: &mut Vec<Problem>) -> Option<Self> {
        None
    }
}
