//! One daemon a node.

use std::path::{Path, PathBuf};

use node::store::{Lock, make_folder};
use node::{Context, Kind, Result};
use tokio::task::spawn_blocking;
use tracing::info;

use crate::config::Kubelet;
use crate::session;

/// The lock's file, beside the sockets: containers share that folder and no other. The kubelet removes sockets
/// there and leaves files.
const NAME: &str = "nodeplug.lock";

/// Where the lock of the node's only daemon is.
pub fn lock_path(kubelet: &Kubelet) -> PathBuf {
    session::folder(kubelet).join(NAME)
}

/// Waits until this is the only daemon of the node: two would end each other's streams for ever.
pub async fn lock(kubelet: &Kubelet) -> Result<Lock> {
    make_folder(session::folder(kubelet))?;
    let path = lock_path(kubelet);
    if let Ok(lock) = Lock::within(&path, std::time::Duration::ZERO) {
        return Ok(lock);
    }
    tell(&path);
    let waited = spawn_blocking(move || Lock::exclusive(&path)).await;
    waited.doing(Kind::Internal, || "wait for the node's other daemon".to_owned())?
}

fn tell(path: &Path) {
    info!(lock = %path.display(), "another daemon serves this node: waiting for its end");
}
