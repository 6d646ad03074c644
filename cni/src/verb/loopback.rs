//! Under the name `loopback`: brings `lo` up in the pod. Runtimes call it for every sandbox.

use std::path::Path;

use ipnet::IpNet;
use node::namespace::Namespace;
use node::{Error, Kind, Result};

use crate::kernel::link;
use crate::kernel::socket::RouteSocket;
use crate::request::{Call, Del};
use crate::result::{CniResult, Interface, Ip};

/// Brings `lo` up. A previous result passes through with nothing added, as the reference has it.
pub fn add(call: &Call, previous: Option<&CniResult>) -> Result<CniResult> {
    let pod = open(call)?;
    pod.enter()?;
    let mut socket = RouteSocket::open()?;
    socket.one(link::up("lo"), || "in the pod: bring `lo` up".to_owned())?;
    Ok(previous.cloned().unwrap_or_else(|| result(call)))
}

/// Says what is wrong with `lo`.
pub fn check(call: &Call) -> Result<()> {
    open(call)?.enter()?;
    let found = link::find(&mut RouteSocket::open()?, "lo")?;
    if found.is_some_and(|l| l.up) {
        return Ok(());
    }
    Err(Error::new(Kind::Mismatch, "check the pod's loopback: `lo` is down")
        .hint("`ip link set lo up` in the pod's namespace"))
}

/// Takes `lo` down where the pod still is; a pod that is gone took it along.
pub fn del(call: &Del) -> Result<()> {
    let Some(path) = &call.netns else { return Ok(()) };
    let (Ok(pod), Ok(home)) = (Namespace::open(Path::new(path)), Namespace::current()) else { return Ok(()) };
    if pod.is(&home) {
        return Ok(());
    }
    pod.enter()?;
    RouteSocket::open()?.one(link::down("lo"), || "in the pod: bring `lo` down".to_owned())
}

fn open(call: &Call) -> Result<Namespace> {
    super::add::namespaces(&call.netns, call.netns_override).map(|(_, pod)| pod)
}

fn result(call: &Call) -> CniResult {
    let addresses =
        [IpNet::new([127, 0, 0, 1].into(), 8), IpNet::new([0, 0, 0, 0, 0, 0, 0, 1_u16].into(), 128)];
    let each = addresses.into_iter().flatten();
    CniResult {
        interfaces: vec![Interface {
            name: "lo".into(),
            mac: Some("00:00:00:00:00:00".into()),
            sandbox: Some(call.netns.clone()),
            ..Interface::default()
        }],
        ips: each.map(|address| Ip { interface: Some(0), address, gateway: None }).collect(),
        ..CniResult::default()
    }
}
