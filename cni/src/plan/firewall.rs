//! The pod's way through the host's firewall: what is refused, what goes into nf_tables, what takes it out.

use std::net::IpAddr;

use node::{Error, Kind, Result};

use crate::attachment::Attachment;
use crate::config::firewall::{Firewall, IngressPolicy};
use crate::kernel::nft::{Filter, Ingress, Passage, Trace};
use crate::plan::target::Target;

/// Refuses a policy that this interface cannot have.
pub fn judge(firewall: &Firewall, target: &Target) -> Result<()> {
    if firewall.ingress == IngressPolicy::Isolated && target.addresses.is_empty() {
        let what = "isolate a pod that has no address (`ingressPolicy` is `isolated`)";
        return Err(
            Error::new(Kind::Config, what).hint("use `portIsolation` of the bridge, or give it an address")
        );
    }
    if firewall.ingress != IngressPolicy::SameBridge || target.bridge.is_some() {
        return Ok(());
    }
    let what = "let the pods of the same bridge in and no others (`ingressPolicy` is `same-bridge`): the pod's \
                interface is on no bridge";
    Err(Error::new(Kind::Config, what)
        .hint("use `isolated`, which keeps every other pod out, or attach the pods to a bridge"))
}

/// What lets the pod's traffic pass.
pub fn filter(firewall: &Firewall, target: &Target) -> Filter {
    let (bridge, port) = (target.bridge.clone(), target.host_link.clone());
    Filter::Firewall(passage(firewall, target.ips(), bridge, port))
}

fn passage(
    firewall: &Firewall,
    addresses: Vec<IpAddr>,
    bridge: Option<String>,
    port: Option<String>,
) -> Passage {
    let ingress = match (firewall.ingress, bridge) {
        (IngressPolicy::Open, _) | (IngressPolicy::SameBridge, None) => Ingress::Open,
        (IngressPolicy::SameBridge, Some(bridge)) => Ingress::SameBridge(bridge),
        (IngressPolicy::Isolated, bridge) => Ingress::Isolated { bridge, port },
    };
    Passage { admin_chain: firewall.admin_chain.clone(), addresses, ingress }
}

/// What finds it again.
pub fn unmake(record: &Attachment) -> Option<Trace> {
    let firewall = record.firewall.as_ref()?;
    Some(Trace::Firewall {
        addresses: record.addresses.clone(),
        port: record.host_end().filter(|_| firewall.ingress == IngressPolicy::Isolated),
    })
}
