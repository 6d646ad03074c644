//! Who holds which devices: the kubelet's pod-resources API, where it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use node::{Context, Error, Kind, Result};
use proto::podresources::ListPodResourcesRequest;
use proto::podresources::pod_resources_lister_client::PodResourcesListerClient;

use crate::dial::{dial, origin};

/// The kubelet's own limit for its answers.
const LARGEST: usize = 16 << 20;

const PATIENCE: Duration = Duration::from_secs(5);

/// The IDs that pods hold, by resource.
pub type Held = BTreeMap<String, BTreeSet<String>>;

/// Asks the kubelet; none where it has no such socket.
pub async fn ask(socket: &Path) -> Result<Option<Held>> {
    if !socket.exists() {
        return Ok(None);
    }
    let doing = || format!("ask `{}` who holds devices", socket.display());
    let call = async {
        let connection = dial(socket, doing).await?;
        let client = PodResourcesListerClient::with_origin(connection, origin());
        let mut client = client.max_decoding_message_size(LARGEST);
        let answer = client.list(ListPodResourcesRequest {}).await.doing(Kind::Unavailable, doing)?;
        let mut held = Held::new();
        for pod in answer.into_inner().pod_resources {
            for device in pod.containers.into_iter().flat_map(|container| container.devices) {
                held.entry(device.resource_name).or_default().extend(device.device_ids);
            }
        }
        Ok(Some(held))
    };
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::caused(Kind::Unavailable, doing(), format!("no answer for {PATIENCE:?}"))),
    }
}
