//! The kubelet's process: a thread with a runtime. When it ends, all of its connections close and its sockets
//! stay where they are.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use proto::deviceplugin::registration_server::RegistrationServer;
use proto::podresources::pod_resources_lister_server::PodResourcesListerServer;
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Handle};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::core::{Around, Core};
use super::journal::What;
use super::pod_resources::Lister;
use super::registration::{Registrar, clean};
use super::watcher;

/// A running process.
#[derive(Debug)]
pub(super) struct Process {
    core: Arc<Core>,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Process {
    /// Returns when the sockets are served.
    pub(super) fn start(around: &Around) -> Self {
        let core = Arc::new(Core::new(around));
        let (tell, told) = mpsc::channel();
        let own = core.clone();
        let body = move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                serve(&own);
                tell.send(Handle::current()).expect("whoever starts the kubelet");
                drop(own.end.subscribe().wait_for(|end| *end).await);
            });
            // Whatever runs is dropped with the runtime, wherever it is.
            drop(runtime);
            own.journal.note("", What::Stopped);
        };
        let thread = thread::Builder::new().name("kubelet".to_owned()).spawn(body).expect("a thread");
        let handle = told.recv().expect("a kubelet that starts");
        Self { core, handle, thread: Some(thread) }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The end of the channel is the process's.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> mpsc::Receiver<T> {
        let (tell, told) = mpsc::channel();
        self.handle.spawn(async move { drop(tell.send(work.await)) });
        told
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.core.end.send_replace(true);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn serve(core: &Arc<Core>) {
    let folders = core.folders.clone();
    clean(&folders.device_plugins);
    let registration = Server::builder().add_service(RegistrationServer::new(Registrar(core.clone())));
    tokio::spawn(registration.serve_with_incoming(listen(&folders.kubelet_socket())));
    let lister = Server::builder().add_service(PodResourcesListerServer::new(Lister(core.clone())));
    let socket = folders.pod_resources.join("kubelet.sock");
    drop(std::fs::remove_file(&socket));
    tokio::spawn(lister.serve_with_incoming(listen(&socket)));
    tokio::spawn(watcher::run(core.clone()));
    core.journal.note("", What::Started);
}

fn listen(path: &Path) -> UnixListenerStream {
    let listener = UnixListener::bind(path).unwrap_or_else(|e| panic!("listen on `{}`: {e}", path.display()));
    UnixListenerStream::new(listener)
}
