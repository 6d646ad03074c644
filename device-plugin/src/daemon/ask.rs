//! One daemon a node.

use std::path::PathBuf;
use std::time::Duration;

use node::store::{Lock, make_folder};
use node::{Context, Kind, Result};
use tokio::task::spawn_blocking;
use tracing::info;

use crate::config::Kubelet;

/// The lock's file, beside kubelet.sock: containers share that folder and no other. The kubelet removes sockets there and
/// leaves files. It is the same however resources are registered, since no resource may be offered in two ways.
const NAME: &str = "nodeplug.lock";

/// Where the lock is.
pub fn lock_path(kubelet: &Kubelet) -> PathBuf {
    kubelet.device_plugins.join(NAME)
}

/// Waits until this is the only daemon of the node: two would end each other's streams for ever.
pub async fn lock(kubelet: &Kubelet) -> Result<Lock> {
    make_folder(&kubelet.device_plugins)?;
    let path = lock_path(kubelet);
    match Lock::within(&path, Duration::ZERO) {
        Ok(lock) => return Ok(lock),
        Err(error) if error.kind() == Kind::TryAgain => {}
        Err(error) => return Err(error),
    }
    info!(lock = %path.display(), "another daemon serves this node: waiting for its end");
    let waited = spawn_blocking(move || Lock::exclusive(&path)).await;
    waited.doing(Kind::Internal, || "wait for the node's other daemon".to_owned())?
}
