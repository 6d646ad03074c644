//! Host ports: who may have them, how they lead to the pod, and what goes with them.

use std::net::IpAddr;

use node::{Error, Kind, Result};

use crate::attachment::Attachment;
use crate::config::feature::Features;
use crate::config::ports::HostPorts;
use crate::kernel::nft::{Filter, Forward, PortRules, Trace};
use crate::plan::step::Step;
use crate::plan::target::{Target, Unmade};

/// Refuses a port that would lead nowhere.
pub fn judge(features: &Features, target: &Target) -> Result<()> {
    let Some(ports) = &features.ports else { return Ok(()) };
    let pods = pods(target);
    for mapping in &ports.mappings {
        if !pods.iter().any(|pod| mapping.host(*pod).is_some()) {
            let what = format!("map the host's {mapping}, where the pod has no address of its family");
            return Err(Error::new(Kind::Config, what).hint("take `hostIP` out, or give the pod an address"));
        }
        if !ports.snat && mapping.host_ip.is_some_and(|ip| ip.is_loopback()) {
            let what = format!("map the host's {mapping}, where `snat` is false");
            return Err(Error::new(Kind::Config, what)
                .hint("a pod cannot answer a loopback address: take `snat` or `hostIP` out"));
        }
    }
    Ok(())
}

/// What has to be there before anything is made for the pod.
pub fn first(features: &Features, target: &Target) -> Vec<Step> {
    let ports = features.ports.as_ref().map(|ports| forwards(ports, target));
    ports.into_iter().map(|ports| Step::ClaimPorts { ports, owner: target.owner.clone() }).collect()
}

/// What leads packets to the pod.
pub fn filter(features: &Features, target: &Target) -> Option<Filter> {
    let ports = features.ports.as_ref()?;
    Some(Filter::Ports(rules(ports, target), forwards(ports, target)))
}

/// What comes when the filter stands: the loopback addresses are opened only behind their guard, and a
/// connection that the filter never saw goes after it. `live` where the pod may serve already.
pub fn after(features: &Features, target: &Target, live: bool) -> Vec<Step> {
    let Some(ports) = &features.ports else { return Vec::new() };
    let forwards = forwards(ports, target);
    let mut steps = Vec::new();
    // Who sends to a bridge's port sends by the bridge.
    let link = target.bridge.as_ref().or(target.host_link.as_ref()).filter(|_| ports.snat);
    let four = forwards.iter().any(Forward::is_at_loopback);
    let six = forwards.iter().any(|f| match f.host {
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_loopback(),
        IpAddr::V4(_) => false,
    });
    if let Some(link) = link.filter(|_| four || six) {
        steps.push(Step::OpenLoopback { link: link.clone(), four, six });
    }
    let ports: Vec<Forward> = forwards.into_iter().filter(Forward::is_remembered).collect();
    if !ports.is_empty() {
        steps.push(Step::FlushConnections { ports, live });
    }
    steps
}

/// Takes the ports of a record back.
pub fn unmake(record: &Attachment, unmade: &mut Unmade) {
    let Some(ports) = &record.ports else { return };
    let ports = forwards(ports, &Target::of(record));
    unmade.traces.push(Trace::Ports(ports.clone()));
    unmade.last.push(Step::ReleasePorts { ports, owner: record.owner.clone() });
}

/// An example of what these ports need of nf_tables, for STATUS.
pub fn probe(ports: Option<&HostPorts>) -> Filter {
    let none = HostPorts {
        mappings: Vec::new(),
        snat: true,
        masquerade_all: false,
        mark_bit: 0,
        conditions_v4: Vec::new(),
        conditions_v6: Vec::new(),
    };
    Filter::Ports(rules(ports.unwrap_or(&none), &Target::default()), Vec::new())
}

fn rules(ports: &HostPorts, target: &Target) -> PortRules {
    let mut neighbours: Vec<_> = target.neighbours.iter().map(ipnet::IpNet::trunc).collect();
    // Where they make no difference, pods of different networks share the rules.
    if !ports.snat || ports.masquerade_all {
        neighbours.clear();
    }
    neighbours.sort();
    neighbours.dedup();
    PortRules {
        snat: ports.snat,
        masquerade_all: ports.masquerade_all,
        mark_bit: ports.mark_bit,
        neighbours,
        conditions: [ports.conditions_v4.clone(), ports.conditions_v6.clone()],
    }
}

/// Each port once for each family that it and the pod have.
fn forwards(ports: &HostPorts, target: &Target) -> Vec<Forward> {
    let pods = pods(target);
    let each = ports.mappings.iter().flat_map(|mapping| {
        pods.iter().filter_map(move |pod| {
            Some(Forward {
                host: mapping.host(*pod)?,
                port: mapping.host_port,
                protocol: mapping.protocol,
                to: (*pod, mapping.container_port).into(),
            })
        })
    });
    each.collect()
}

/// The pod's first address of each family.
fn pods(target: &Target) -> Vec<IpAddr> {
    let all = target.ips();
    [true, false].into_iter().filter_map(|four| all.iter().copied().find(|ip| ip.is_ipv4() == four)).collect()
}
