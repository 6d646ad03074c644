//! The pod's way through the host's firewall: what is refused, what goes into nf_tables, what takes it out.

use node::{Error, Kind, Result};

use crate::attachment::Attachment;
use crate::config::firewall::{Firewall, IngressPolicy};
use crate::kernel::nft::{Filter, Ingress, Passage, Trace};
use crate::plan::feature::Target;

/// Refuses a policy that this interface cannot have.
pub fn judge(firewall: &Firewall, target: &Target) -> Result<()> {
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
    Filter::Firewall(passage(firewall, target))
}

fn passage(firewall: &Firewall, target: &Target) -> Passage {
    let ingress = match (firewall.ingress, &target.bridge) {
        (IngressPolicy::Open, _) | (IngressPolicy::SameBridge, None) => Ingress::Open,
        (IngressPolicy::SameBridge, Some(bridge)) => Ingress::SameBridge(bridge.clone()),
        (IngressPolicy::Isolated, bridge) => {
            Ingress::Isolated { bridge: bridge.clone(), port: target.host_link.clone() }
        }
    };
    Passage { admin_chain: firewall.admin_chain.clone(), addresses: target.ips(), ingress }
}

/// What finds it again.
pub fn unmake(record: &Attachment) -> Option<Trace> {
    let firewall = record.firewall.as_ref()?;
    let own = || Some(record.owner.host_ifname());
    let port = if record.chained.is_some() { record.host_link.clone() } else { own() };
    Some(Trace::Firewall {
        addresses: record.addresses.clone(),
        port: port.filter(|_| firewall.ingress == IngressPolicy::Isolated),
    })
}
