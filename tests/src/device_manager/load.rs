//! Many calls of Allocate, made from within the kubelet's own runtime and timed there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::deviceplugin::{AllocateRequest, ContainerAllocateRequest};

use super::core::Core;
use super::plugins::{Api, in_go};
use crate::kubelet::hold;

/// Makes `count` calls for the same devices, so many at a time, without a pod; how long each took.
pub(super) async fn allocate(
    core: &Arc<Core>,
    resource: &str,
    ids: Vec<String>,
    count: usize,
    at_once: usize,
) -> Result<Vec<Duration>, String> {
    let client = hold(&core.memory).endpoints.get(resource).and_then(|e| e.client.clone());
    let api = client.and_then(|client| client.api()).ok_or("no plugin serves it")?;
    let lanes: Vec<_> =
        (0..at_once).map(|_| tokio::spawn(lane(api.clone(), ids.clone(), count / at_once))).collect();
    let mut times = Vec::with_capacity(count);
    for lane in lanes {
        times.extend(lane.await.map_err(|e| e.to_string())??);
    }
    Ok(times)
}

async fn lane(mut api: Api, ids: Vec<String>, count: usize) -> Result<Vec<Duration>, String> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let container_requests = vec![ContainerAllocateRequest { devices_ids: ids.clone() }];
        let start = Instant::now();
        api.allocate(AllocateRequest { container_requests }).await.map_err(|s| in_go(&s))?;
        times.push(start.elapsed());
    }
    Ok(times)
}
