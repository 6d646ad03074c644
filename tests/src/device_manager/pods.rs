//! Pods as the kubelet gets them: containers with limits.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It ends before those of the pod proper start: its devices are offered again.
    Init,
    /// An init container that stays (`restartPolicy: Always`): its devices are its own.
    Sidecar,
    /// One of the pod proper.
    Main,
}

/// A container of a pod.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Resources and how many of each.
    pub limits: Vec<(String, usize)>,
}

/// A pod. Each has a uid of its own, and a copy has its original's.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its uid.
    pub uid: String,
    /// Its name, in the namespace `default`.
    pub name: String,
    /// Its containers in their order.
    pub containers: Vec<Container>,
    /// The NUMA nodes that the topology manager chose, where one did.
    pub numa: Option<BTreeSet<i64>>,
}

impl Pod {
    /// A pod without containers.
    pub fn new(name: &str) -> Self {
        static PODS: AtomicU32 = AtomicU32::new(1);
        let uid = format!("00000000-0000-4000-8000-{:012x}", PODS.fetch_add(1, Ordering::Relaxed));
        Self { uid, name: name.to_owned(), containers: Vec::new(), numa: None }
    }

    /// A pod with one container, `main`, that wants so many of a resource.
    pub fn wanting(resource: &str, count: usize) -> Self {
        Self::new("pod").with("main", Role::Main, &[(resource, count)])
    }

    /// With one more container.
    #[must_use]
    pub fn with(mut self, name: &str, role: Role, limits: &[(&str, usize)]) -> Self {
        let limits = limits.iter().map(|(resource, count)| ((*resource).to_owned(), *count)).collect();
        self.containers.push(Container { name: name.to_owned(), role, limits });
        self
    }

    /// On these NUMA nodes, as the topology manager decided.
    #[must_use]
    pub fn on_numa(mut self, nodes: &[i64]) -> Self {
        self.numa = Some(nodes.iter().copied().collect());
        self
    }
}
