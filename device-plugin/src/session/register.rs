//! The call on kubelet.sock.

use std::path::Path;
use std::time::Duration;

use node::{Error, Kind, Result};
use proto::deviceplugin::registration_client::RegistrationClient;
use proto::deviceplugin::{DevicePluginOptions, RegisterRequest};

use crate::config::ResourceName;
use crate::dial::{dial, origin};

/// The kubelet dials back before it answers, for up to 10 seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// Announces a resource. When this answers, the kubelet has the options and is about to ask for the list.
pub(super) async fn register(
    kubelet: &Path,
    socket: &Path,
    resource: &ResourceName,
    options: DevicePluginOptions,
) -> Result<()> {
    let doing = || format!("register with the kubelet at `{}`", kubelet.display());
    let request = RegisterRequest {
        version: proto::VERSION.to_owned(),
        endpoint: socket.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        resource_name: resource.as_str().to_owned(),
        options: Some(options),
    };
    let call = async {
        let connection = dial(kubelet, doing).await?;
        let answer = RegistrationClient::with_origin(connection, origin()).register(request).await;
        answer.map(drop).map_err(|status| Error::caused(Kind::Unavailable, doing(), said(&status)))
    };
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::caused(Kind::Unavailable, doing(), format!("no answer for {PATIENCE:?}"))),
    }
}

/// The kubelet's own words.
fn said(status: &tonic::Status) -> String {
    match status.message() {
        "" => format!("{:?}", status.code()),
        message => message.to_owned(),
    }
}
