//! Where the node's container runtime looks for plugins and for networks.

use std::path::PathBuf;

use node::finding::Finding;

use crate::version::Version;

/// The folders as the runtime has them, and what it speaks.
#[derive(Debug, Clone)]
pub(super) struct Runtime {
    /// For people: `containerd`, or nobody that is known.
    pub name: Option<String>,
    /// Where plugins are looked for, the first one first.
    pub plugins: Vec<PathBuf>,
    /// Where networks are looked for.
    pub networks: PathBuf,
    /// The newest version that it understands.
    pub newest: Version,
}

/// What this node has.
pub(super) fn find() -> Runtime {
    Runtime {
        name: None,
        plugins: vec![PathBuf::from("/opt/cni/bin")],
        networks: PathBuf::from("/etc/cni/net.d"),
        newest: Version::NEWEST,
    }
}

impl Runtime {
    pub fn findings(&self) -> Vec<Finding> {
        Vec::new()
    }
}
