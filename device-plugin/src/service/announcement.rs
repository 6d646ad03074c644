//! What the kubelet's plugin watcher asks of a socket in its folder.

use std::sync::Arc;

use proto::pluginregistration::registration_server::Registration;
use proto::pluginregistration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::Offer;

/// The registration server of one resource.
#[derive(Debug)]
pub struct Announcement {
    offer: Arc<Offer>,
}

impl Announcement {
    /// A server for this offer.
    pub fn new(offer: Arc<Offer>) -> Self {
        Self { offer }
    }
}

#[tonic::async_trait]
impl Registration for Announcement {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "DevicePlugin".to_owned(),
            name: self.offer.name().as_str().to_owned(),
            // Empty: this same socket.
            endpoint: String::new(),
            supported_versions: vec![proto::VERSION.to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        self.offer.metrics().registered(self.offer.name(), "watcher", status.plugin_registered);
        if status.plugin_registered {
            info!(resource = %self.offer.name(), reason = "watcher", "registered");
        } else {
            warn!(resource = %self.offer.name(), "the kubelet's plugin watcher refuses it: {}", status.error);
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
