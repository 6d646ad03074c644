//! What happens at each start of a container: PreStartContainer, and the answers of all its resources made one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proto::deviceplugin::{ContainerAllocateResponse, PreStartContainerRequest};

use super::core::Core;
use super::journal::What;
use super::memory::Held;
use super::plugins::in_go;
use super::pods::Pod;
use crate::kubelet::hold;

/// The kubelet waits no longer for PreStartContainer.
const LIMIT: Duration = Duration::from_secs(30);

/// Starts a container: what it gets, as it was answered when its devices were allocated.
pub(super) async fn start(
    core: &Arc<Core>,
    pod: &Pod,
    name: &str,
) -> Result<ContainerAllocateResponse, String> {
    let place = (pod.uid.clone(), name.to_owned());
    let held: BTreeMap<String, Held> = hold(&core.memory).held.get(&place).cloned().unwrap_or_default();
    for (resource, held) in &held {
        pre_start(core, resource, held).await?;
    }
    Ok(merged(held.into_values().map(|h| h.answer)))
}

async fn pre_start(core: &Core, resource: &str, held: &Held) -> Result<(), String> {
    let endpoint = hold(&core.memory).endpoints.get(resource).cloned();
    let Some(endpoint) = endpoint else { return Ok(()) };
    if !endpoint.options.pre_start_required {
        return Ok(());
    }
    let api = endpoint.client.and_then(|client| client.api());
    let mut api = api.ok_or_else(|| format!("endpoint {resource} has been stopped"))?;
    core.journal.note(resource, What::Called("PreStartContainer"));
    let request = PreStartContainerRequest { devices_ids: held.ids().into_iter().collect() };
    let asked = tokio::time::timeout(LIMIT, api.pre_start_container(request)).await;
    let answer = asked.map_err(|_| "rpc error: code = DeadlineExceeded".to_owned());
    let answer = answer.and_then(|a| a.map_err(|s| in_go(&s)));
    answer.map(drop).map_err(|e| format!("device plugin PreStartContainer rpc failed with err: {e}"))
}

/// The first of each kind and key wins; a clash is only logged, there.
fn merged(answers: impl Iterator<Item = ContainerAllocateResponse>) -> ContainerAllocateResponse {
    let mut all = ContainerAllocateResponse::default();
    for answer in answers {
        for (key, value) in answer.envs {
            all.envs.entry(key).or_insert(value);
        }
        for (key, value) in answer.annotations {
            all.annotations.entry(key).or_insert(value);
        }
        for mount in answer.mounts {
            if all.mounts.iter().all(|m| m.container_path != mount.container_path) {
                all.mounts.push(mount);
            }
        }
        for device in answer.devices {
            if all.devices.iter().all(|d| d.container_path != device.container_path) {
                all.devices.push(device);
            }
        }
        for device in answer.cdi_devices {
            if !all.cdi_devices.contains(&device) {
                all.cdi_devices.push(device);
            }
        }
    }
    all
}
