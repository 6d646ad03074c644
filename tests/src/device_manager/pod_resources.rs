//! The socket that tells which container holds which devices.

use std::path::Path;
use std::sync::Arc;

use proto::podresources::pod_resources_lister_client::PodResourcesListerClient;
use proto::podresources::pod_resources_lister_server::PodResourcesLister;
use proto::podresources::{
    ContainerDevices, ContainerResources, ListPodResourcesRequest, ListPodResourcesResponse, PodResources,
};
use tonic::{Request, Response, Status};

use super::core::Core;
use super::dial::dial;
use super::memory::{Held, Memory};
use super::plugins::in_go;
use super::pods::Pod;
use crate::kubelet::hold;

/// What serves `pod-resources/kubelet.sock`.
pub(super) struct Lister(pub(super) Arc<Core>);

#[tonic::async_trait]
impl PodResourcesLister for Lister {
    async fn list(
        &self,
        _: Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        self.0.journal.count("List");
        let pods = hold(&self.0.pods).clone();
        let memory = hold(&self.0.memory);
        let pod_resources = pods.values().map(|pod| one(&memory, pod)).collect();
        Ok(Response::new(ListPodResourcesResponse { pod_resources }))
    }
}

/// Asks the socket in this folder.
pub(super) async fn ask(folder: &Path) -> Result<ListPodResourcesResponse, String> {
    let channel = dial(&folder.join("kubelet.sock")).await?;
    let answer = PodResourcesListerClient::new(channel).list(ListPodResourcesRequest {}).await;
    answer.map(Response::into_inner).map_err(|status| in_go(&status))
}

fn one(memory: &Memory, pod: &Pod) -> PodResources {
    let containers = pod.containers.iter().map(|container| {
        let held = memory.held.get(&(pod.uid.clone(), container.name.clone()));
        let devices =
            held.into_iter().flatten().flat_map(|(resource, held)| devices(resource, held)).collect();
        ContainerResources { name: container.name.clone(), devices }
    });
    PodResources { name: pod.name.clone(), namespace: "default".to_owned(), containers: containers.collect() }
}

/// One entry for each NUMA node.
fn devices(resource: &str, held: &Held) -> Vec<ContainerDevices> {
    let entry = |ids: &std::collections::BTreeSet<String>| ContainerDevices {
        resource_name: resource.to_owned(),
        device_ids: ids.iter().cloned().collect(),
    };
    held.devices.values().map(entry).collect()
}
