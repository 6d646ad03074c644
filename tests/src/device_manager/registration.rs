//! kubelet.sock: Register.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use proto::deviceplugin::registration_server::Registration;
use proto::deviceplugin::{Empty, RegisterRequest};
use tonic::{Request, Response, Status};

use super::core::Core;
use super::journal::What;
use super::names::is_extended_resource;
use super::plugins;

/// What serves kubelet.sock.
pub(super) struct Registrar(pub(super) Arc<Core>);

#[tonic::async_trait]
impl Registration for Registrar {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let request = request.into_inner();
        let (core, resource) = (&self.0, request.resource_name.clone());
        let options = request.options.map(|o| (o.pre_start_required, o.get_preferred_allocation_available));
        core.journal.note(&resource, What::RegisterCalled { endpoint: request.endpoint.clone(), options });
        // What is done for the plugin goes on where it has hung up meanwhile, as a handler in Go does.
        let work = tokio::spawn(register(core.clone(), request));
        let done = work.await.map_err(|e| Status::internal(e.to_string()))?;
        core.journal.note(&resource, What::RegisterAnswered(done.clone()));
        done.map(|()| Response::new(Empty {})).map_err(Status::unknown)
    }
}

/// The request's options are not read.
async fn register(core: Arc<Core>, request: RegisterRequest) -> Result<(), String> {
    if let Some(why) = core.faults.register() {
        return Err(why);
    }
    let (version, name) = (&request.version, &request.resource_name);
    if version != proto::VERSION {
        return Err(format!(
            "requested API version {version:?} is not supported by kubelet. Supported version is [\"v1beta1\"]"
        ));
    }
    if !is_extended_resource(name) {
        return Err(format!("the ResourceName {name:?} is invalid"));
    }
    let path = core.folders.device_plugins.join(&request.endpoint);
    plugins::connect(&core, name, path).await
}

/// What a kubelet does before it listens: sockets go, files and folders stay.
pub(super) fn clean(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_socket()) {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}
