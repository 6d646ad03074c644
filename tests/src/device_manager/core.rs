//! One process of the kubelet: what its parts share, and the rooms that it has on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use proto::deviceplugin::ListAndWatchResponse;
use tokio::sync::watch;

use super::checkpoint;
use super::faults::Faults;
use super::journal::{Journal, What};
use super::memory::Memory;
use super::plugins::Client;
use super::pods::Pod;
use crate::kubelet::hold;

/// The folders of a kubelet.
#[derive(Debug, Clone)]
pub struct Folders {
    /// Of kubelet.sock and of plugins' sockets.
    pub device_plugins: PathBuf,
    /// Of the plugin watcher.
    pub plugins_registry: PathBuf,
    /// Of the socket that tells who holds what.
    pub pod_resources: PathBuf,
}

impl Folders {
    /// Those of a kubelet whose `--root-dir` is `root`.
    pub fn below(root: &Path) -> Self {
        Self {
            device_plugins: root.join("device-plugins"),
            plugins_registry: root.join("plugins_registry"),
            pod_resources: root.join("pod-resources"),
        }
    }

    /// The socket of Register.
    pub fn kubelet_socket(&self) -> PathBuf {
        self.device_plugins.join("kubelet.sock")
    }
}

/// What outlives the kubelet's process: the node's pods, and the tester's side.
#[derive(Debug, Clone)]
pub(super) struct Around {
    pub(super) folders: Folders,
    pub(super) journal: Arc<Journal>,
    pub(super) faults: Arc<Faults>,
    /// The pods of this node that have not ended, by uid.
    pub(super) pods: Arc<Mutex<BTreeMap<String, Pod>>>,
}

/// One process of the kubelet.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) folders: Folders,
    pub(super) journal: Arc<Journal>,
    pub(super) faults: Arc<Faults>,
    pub(super) pods: Arc<Mutex<BTreeMap<String, Pod>>>,
    pub(super) memory: Mutex<Memory>,
    pub(super) clients: Mutex<BTreeMap<String, Arc<Client>>>,
    /// True ends the process.
    pub(super) end: watch::Sender<bool>,
}

impl Core {
    pub(super) fn new(around: &Around) -> Self {
        let Around { folders, journal, faults, pods } = around.clone();
        let memory = checkpoint::read(&folders.device_plugins).unwrap_or_default();
        let (memory, clients, end) = (Mutex::new(memory), Mutex::default(), watch::Sender::new(false));
        Self { folders, journal, faults, pods, memory, clients, end }
    }

    /// A list came: it is taken over, and the checkpoint is written.
    pub(super) fn listed(&self, resource: &str, stream: u64, list: ListAndWatchResponse) {
        let mut memory = hold(&self.memory);
        memory.listed(resource, stream, &list);
        self.save(&memory);
        drop(memory);
        self.journal.note(resource, What::Listed { stream, devices: list.devices });
    }

    pub(super) fn save(&self, memory: &Memory) {
        checkpoint::write(&self.folders.device_plugins, memory);
    }

    /// The process dies, as the real one would.
    pub(super) fn crash(&self, why: &str) {
        self.journal.crash(why);
        self.end.send_replace(true);
    }
}
