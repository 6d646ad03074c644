//! The resource's own socket.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use node::{Context, Error, Kind, Result};
use proto::encoded::device_plugin_server::DevicePluginServer;
use proto::pluginregistration::registration_server::RegistrationServer;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server as Tonic;

use super::plan::SocketId;
use crate::service::{Announcement, Offer, Plugin};

/// How long calls that are under way may take when the socket is closed.
const FAREWELL: Duration = Duration::from_millis(500);

/// A socket that is served.
#[derive(Debug)]
pub(super) struct Server {
    id: Option<SocketId>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    /// Takes over the path: whoever was there before holds it no longer, since one daemon runs on a node.
    pub(super) fn start(socket: &Path, offer: &Arc<Offer>, announced: bool) -> Result<Self> {
        let doing = || format!("serve on `{}`", socket.display());
        match fs::remove_file(socket) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).doing(Kind::Io, doing),
            _ => {}
        }
        let listener = UnixListener::bind(socket).map_err(|e| {
            let missing = e.kind() == io::ErrorKind::NotFound;
            let error = Error::caused(Kind::Io, doing(), e);
            if missing {
                error.hint("start the kubelet, which makes the folder, or mount its folder")
            } else {
                error
            }
        })?;
        fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).doing(Kind::Io, doing)?;
        let id = SocketId::of(socket);
        let plugin = DevicePluginServer::new(Plugin::new(offer.clone()));
        let announcement = announced.then(|| RegistrationServer::new(Announcement::new(offer.clone())));
        let router = Tonic::builder().add_service(plugin).add_optional_service(announcement);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let until = async { drop(stopped.await) };
            // An error here is a socket that cannot accept any more: the session sees its stream end.
            let _ = router.serve_with_incoming_shutdown(UnixListenerStream::new(listener), until).await;
        });
        Ok(Self { id, stop, task })
    }

    /// Whether the socket at the path is this one, and somebody accepts on it.
    pub(super) fn is_at(&self, socket: &Path) -> bool {
        self.id.is_some() && SocketId::of(socket) == self.id && !self.task.is_finished()
    }

    /// Closes the socket and takes it off the path, where it is still ours.
    pub(super) async fn stop(self, socket: &Path) {
        if self.id.is_some() && SocketId::of(socket) == self.id {
            let _ = fs::remove_file(socket);
        }
        drop(self.stop);
        let abort = self.task.abort_handle();
        if tokio::time::timeout(FAREWELL, self.task).await.is_err() {
            abort.abort();
        }
    }
}
