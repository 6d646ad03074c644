//! A pod as the kubelet describes it to a runtime, and what a runtime made of it.

use std::net::IpAddr;

use super::cri::v1::{
    DnsConfig, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol,
};
use crate::node::Namespace;

/// Where logs of containers go.
const LOGS: &str = "/var/lib/harness/pods";

/// A pod in the namespace `default`.
#[derive(Debug, Clone)]
pub struct Pod {
    pub(super) config: PodSandboxConfig,
}

impl Pod {
    /// A pod of this name without wishes.
    pub fn named(name: &str) -> Self {
        let metadata = PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-of-{name}"),
            namespace: "default".to_owned(),
            attempt: 0,
        };
        let context = LinuxSandboxSecurityContext {
            // What the kubelet says of a pod that shares nothing with the node.
            namespace_options: Some(NamespaceOption {
                network: NamespaceMode::Pod.into(),
                pid: NamespaceMode::Container.into(),
                ipc: NamespaceMode::Pod.into(),
            }),
        };
        let config = PodSandboxConfig {
            hostname: name.to_owned(),
            log_directory: format!("{LOGS}/default_{name}"),
            dns_config: Some(DnsConfig {
                servers: vec!["10.96.0.10".to_owned()],
                searches: vec!["default.svc.cluster.local".to_owned()],
                options: vec!["ndots:5".to_owned()],
            }),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: String::new(),
                security_context: Some(context),
            }),
            metadata: Some(metadata),
            ..PodSandboxConfig::default()
        };
        Self { config }
    }

    /// With a port of the node, for TCP and UDP.
    #[must_use]
    pub fn host_port(mut self, host: u16, container: u16) -> Self {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            self.config.port_mappings.push(PortMapping {
                protocol: protocol.into(),
                container_port: container.into(),
                host_port: host.into(),
                host_ip: String::new(),
            });
        }
        self
    }

    /// With the annotations by which a pod's author asks for rates, as `20M`.
    #[must_use]
    pub fn rates(mut self, ingress: &str, egress: &str) -> Self {
        for (way, rate) in [("ingress", ingress), ("egress", egress)] {
            self.config.annotations.insert(format!("kubernetes.io/{way}-bandwidth"), rate.to_owned());
        }
        self
    }

    /// The same pod, for which the kubelet makes a sandbox once more.
    #[must_use]
    pub fn again(mut self) -> Self {
        if let Some(metadata) = &mut self.config.metadata {
            metadata.attempt += 1;
        }
        self
    }

    pub(super) fn below(&self, cgroup_parent: &str) -> PodSandboxConfig {
        let mut config = self.config.clone();
        if let Some(linux) = &mut config.linux {
            cgroup_parent.clone_into(&mut linux.cgroup_parent);
        }
        config
    }
}

/// A pod that runs.
#[derive(Debug)]
pub struct Sandbox {
    /// The runtime's id of it.
    pub id: String,
    /// What it was made of.
    pub pod: Pod,
    /// Its addresses, as the runtime tells them.
    pub ips: Vec<IpAddr>,
    /// Its network namespace.
    pub space: Namespace,
    /// The process that holds it.
    pub pid: i32,
}

impl Sandbox {
    /// The first of its addresses.
    pub fn ip(&self) -> IpAddr {
        self.ips.first().copied().unwrap_or_else(|| panic!("a pod without address: {self:?}"))
    }
}
