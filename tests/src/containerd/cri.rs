//! The kubelet's calls of a runtime: one at a time, with a time-out, and repeated where the kubelet repeats them.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tower::service_fn;

use super::SOCKET;
use super::pod::{Pod, Sandbox};
use crate::container_node::IMAGE;
use crate::node::Namespace;

/// The messages.
#[allow(missing_docs, unused_qualifications, clippy::pedantic, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

use v1::runtime_service_client::RuntimeServiceClient;
use v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ExecSyncRequest, ExecSyncResponse, ImageSpec,
    LinuxContainerConfig, LinuxContainerSecurityContext, ListPodSandboxRequest, NetworkConfig, PodSandbox,
    PodSandboxStatusRequest, PodSandboxStatusResponse, RemovePodSandboxRequest, RunPodSandboxRequest,
    RuntimeConfig, StartContainerRequest, StatusRequest, StatusResponse, StopPodSandboxRequest,
    UpdateRuntimeConfigRequest, VersionRequest, VersionResponse,
};

/// The kubelet's own time-out of a call (`--runtime-request-timeout`).
const LIMIT: Duration = Duration::from_mins(2);
/// How long a pod's end is tried again.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// What a runtime answered instead of doing it.
pub type Refusal = tonic::Status;

type Answer<T> = Result<T, Refusal>;

/// A connection to the runtime's socket. Several threads may call at the same time.
#[derive(Debug)]
pub struct Cri {
    runtime: Runtime,
    channel: Channel,
    cgroup_parent: String,
}

/// Makes a call of this name, and waits for its answer.
macro_rules! call {
    ($self:ident, $method:ident, $message:expr) => {{
        let mut request = Request::new($message);
        request.set_timeout(LIMIT);
        let mut client = RuntimeServiceClient::new($self.channel.clone());
        let answer = async { tokio::time::timeout(LIMIT, client.$method(request)).await };
        match $self.runtime.block_on(answer) {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => {
                Err(Refusal::new(Code::DeadlineExceeded, concat!(stringify!($method), " takes too long")))
            }
        }
    }};
}

impl Cri {
    /// A connection that is made with the first call, and again after the runtime's end.
    pub(super) fn dial(cgroup_parent: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime for calls");
        let connect = service_fn(|_| async {
            let stream = UnixStream::connect(SOCKET).await?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        });
        let inside = runtime.enter();
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect);
        drop(inside);
        Self { runtime, channel, cgroup_parent: cgroup_parent.to_owned() }
    }

    /// Who answers.
    pub fn version(&self) -> Answer<VersionResponse> {
        call!(self, version, VersionRequest { version: "0.1.0".to_owned() })
    }

    /// Whether pods would have a network, and if not, why.
    pub fn network(&self) -> Result<(), String> {
        let conditions = self.status().map_err(|e| e.to_string())?.status.unwrap_or_default().conditions;
        let network = conditions.into_iter().find(|c| c.r#type == "NetworkReady");
        let network = network.ok_or_else(|| "no word of the network".to_owned())?;
        if network.status { Ok(()) } else { Err(format!("{}: {}", network.reason, network.message)) }
    }

    /// Waits until pods would have a network, as the kubelet does before it calls the node ready.
    #[track_caller]
    pub fn wait_for_network(&self) {
        let start = Instant::now();
        while let Err(why) = self.network() {
            assert!(start.elapsed() < PATIENCE, "the network is not ready: {why}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until pods would have a network in whose configuration, as the runtime has read it, `word` stands.
    #[track_caller]
    pub fn wait_for_configuration(&self, word: &str) {
        let start = Instant::now();
        loop {
            let info = self.status().map(|s| s.info).unwrap_or_default();
            let config = info.get("config").map(String::as_str).unwrap_or_default();
            let read = info.get("cniconfig").map_or(config, String::as_str);
            if read.contains(word) && self.network().is_ok() {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "no `{word}` in what the runtime has read: {read}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn status(&self) -> Answer<StatusResponse> {
        call!(self, status, StatusRequest { verbose: true })
    }

    /// Tells the node's pod CIDR.
    pub fn set_pod_cidr(&self, cidr: &str) -> Answer<()> {
        let network_config = Some(NetworkConfig { pod_cidr: cidr.to_owned() });
        let message = UpdateRuntimeConfigRequest { runtime_config: Some(RuntimeConfig { network_config }) };
        call!(self, update_runtime_config, message).map(drop)
    }

    /// RunPodSandbox: the id.
    pub fn run(&self, pod: &Pod) -> Answer<String> {
        let config = Some(pod.below(&self.cgroup_parent));
        call!(self, run_pod_sandbox, RunPodSandboxRequest { config }).map(|answer| answer.pod_sandbox_id)
    }

    /// RunPodSandbox that must succeed, and all that the runtime tells of it.
    #[track_caller]
    pub fn sandbox(&self, pod: &Pod) -> Sandbox {
        let id = self.run(pod).unwrap_or_else(|e| panic!("run {:?}: {e}", pod.config.metadata));
        let told = self.told(&id).unwrap_or_else(|e| panic!("look at {id}: {e}"));
        let network = told.status.unwrap_or_default().network.unwrap_or_default();
        let texts = [network.ip].into_iter().chain(network.additional_ips.into_iter().map(|i| i.ip));
        let ips: Vec<IpAddr> = texts.filter_map(|ip| ip.parse().ok()).collect();
        let info = told.info.get("info").map(String::as_str).unwrap_or_default();
        let info: Value = serde_json::from_str(info).expect("the runtime's own words");
        let spaces = info["runtimeSpec"]["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
        let space = spaces.iter().find(|s| s["type"] == "network").and_then(|s| s["path"].as_str());
        let space = Namespace::of_runtime(space.expect("a network namespace with a path").into());
        let pid = info["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a process");
        Sandbox { id, pod: pod.clone(), ips, space, pid }
    }

    /// PodSandboxStatus with all that the runtime tells.
    pub fn told(&self, id: &str) -> Answer<PodSandboxStatusResponse> {
        let message = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        call!(self, pod_sandbox_status, message)
    }

    /// ListPodSandbox.
    #[track_caller]
    pub fn list(&self) -> Vec<PodSandbox> {
        let answer = call!(self, list_pod_sandbox, ListPodSandboxRequest {});
        answer.unwrap_or_else(|e| panic!("list pods: {e}")).items
    }

    /// Creates and starts a container with this program in the pod: its id.
    #[track_caller]
    pub fn container(&self, sandbox: &Sandbox, name: &str, command: &[&str]) -> String {
        let sandbox_config = sandbox.pod.below(&self.cgroup_parent);
        std::fs::create_dir_all(Path::new(&sandbox_config.log_directory)).expect("make a folder of logs");
        let namespaces = sandbox_config.linux.as_ref().and_then(|l| l.security_context.as_ref());
        let context =
            LinuxContainerSecurityContext { namespace_options: namespaces.and_then(|c| c.namespace_options) };
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: IMAGE.to_owned() }),
            command: command.iter().map(|w| (*w).to_owned()).collect(),
            args: Vec::new(),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig { security_context: Some(context) }),
        };
        let message = CreateContainerRequest {
            pod_sandbox_id: sandbox.id.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let id = call!(self, create_container, message).unwrap_or_else(|e| panic!("create {name}: {e}"));
        let id = id.container_id;
        let started = call!(self, start_container, StartContainerRequest { container_id: id.clone() });
        started.unwrap_or_else(|e| panic!("start {name}: {e}"));
        id
    }

    /// ExecSync: what the command said, which must succeed.
    #[track_caller]
    pub fn says(&self, container: &str, command: &[&str]) -> String {
        let answer = self.exec(container, command).unwrap_or_else(|e| panic!("exec {command:?}: {e}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        assert_eq!(answer.exit_code, 0, "exec {command:?}: {}{}", text(&answer.stdout), text(&answer.stderr));
        text(&answer.stdout)
    }

    /// ExecSync.
    pub fn exec(&self, container: &str, command: &[&str]) -> Answer<ExecSyncResponse> {
        let cmd = command.iter().map(|w| (*w).to_owned()).collect();
        call!(self, exec_sync, ExecSyncRequest { container_id: container.to_owned(), cmd, timeout: 10 })
    }

    /// StopPodSandbox, once.
    pub fn stop(&self, id: &str) -> Answer<()> {
        call!(self, stop_pod_sandbox, StopPodSandboxRequest { pod_sandbox_id: id.to_owned() }).map(drop)
    }

    /// RemovePodSandbox, once.
    pub fn remove(&self, id: &str) -> Answer<()> {
        call!(self, remove_pod_sandbox, RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() }).map(drop)
    }

    /// Stops and removes a pod as the kubelet does, which tries until it succeeds: what was refused on the way.
    #[track_caller]
    pub fn end(&self, id: &str) -> Vec<Refusal> {
        let start = Instant::now();
        let mut refused = Vec::new();
        while let Err(refusal) = self.stop(id).and_then(|()| self.remove(id)) {
            assert!(start.elapsed() < PATIENCE, "pod {id} does not end: {refusal}");
            refused.push(refusal);
            thread::sleep(PAUSE);
        }
        refused
    }

    /// Ends all pods that the runtime lists, as a kubelet does that knows none of them: refusals by pod.
    pub fn end_all(&self) -> BTreeMap<String, Vec<Refusal>> {
        let list = self.list();
        let refused = list.iter().map(|pod| {
            let name = pod.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
            (name, self.end(&pod.id))
        });
        refused.filter(|(_, refused)| !refused.is_empty()).collect()
    }
}
