//! Where a pod's addresses come from: leases of this node, the configuration, or another IPAM plugin.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use node::step::Done;
use node::{Error, Kind, Result, times};
use serde_json::Value;

use crate::apply::Hands;
use crate::attachment::Attachment;
use crate::config::Attach;
use crate::ipam::leases::Choice;
use crate::ipam::{HostLocal, Ipam, Static, resolv};
use crate::plan::Given;
use crate::plan::step::Step;
use crate::plan::wish::{Granted, kept, pod_mac};
use crate::request::Call;
use crate::result::{CniResult, Ip};

/// Gets the addresses. The record is on disk before any of them is taken.
pub fn obtain<'a>(
    call: &'a Call,
    hands: &mut Hands<'a>,
    record: &mut Attachment,
    done: &mut Done<Step>,
) -> Result<Granted> {
    if let Some(Ipam::Delegate { plugin }) = &call.config.ipam {
        return delegated(plugin, call, hands, record, done);
    }
    let (steps, granted) = planned(call, hands, record)?;
    times::lap("addresses");
    let result = hands.run(steps, done);
    // Other ADDs of this network wait for the lock: it goes as soon as the addresses are taken.
    hands.leases = None;
    result.map(|()| granted)
}

/// The steps that take the addresses, and what they grant. Keeps the network's lock until the steps
/// are done. A delegate's answer is not known before it is asked.
pub fn planned(call: &Call, hands: &mut Hands, record: &mut Attachment) -> Result<(Vec<Step>, Granted)> {
    let mut granted = Granted::default();
    let mut reserve = Vec::new();
    match &call.config.ipam {
        None => {}
        Some(Ipam::HostLocal(config)) => {
            let folder = config.folder(&call.config.name);
            let leases = hands.open_leases(&folder, config.cooldown)?;
            let wanted: Vec<IpAddr> = call.config.wanted.iter().map(|w| w.address).collect();
            let choices = leases.choose(config, &wanted, &call.owner)?;
            hands.leases = Some(leases);
            granted = from_leases(config, &choices)?;
            reserve = choices.into_iter().map(|c| reserved(&folder, c, call)).collect();
            record.leases = Some(folder);
        }
        Some(Ipam::Static(config)) => granted = from_config(config, call)?,
        Some(Ipam::Delegate { plugin }) => {
            return Err(Error::new(
                Kind::TryAgain,
                format!("plan with the addresses of `{plugin}`, which are not known before it is asked"),
            )
            .hint("a dry run works with `host-local` and `static`"));
        }
    }
    granted.routes = granted.routes.filter(|_| configures_routes(call));
    noted(call, record, &granted);
    let mut steps = vec![Step::Record(Box::new(record.clone()))];
    steps.extend(reserve);
    Ok((steps, granted))
}

fn delegated<'a>(
    plugin: &str,
    call: &'a Call,
    hands: &mut Hands<'a>,
    record: &mut Attachment,
    done: &mut Done<Step>,
) -> Result<Granted> {
    record.delegate = Some(plugin.to_owned());
    record.delegate_ipam = call.config.ipam_json.as_ref().map(without_secrets);
    hands.run(vec![Step::Record(Box::new(record.clone()))], done)?;
    hands.delegates(&call.path, &call.stdin).find(plugin)?;
    // The specification wants a DEL after a failed ADD, too: noted as done before it is called.
    done.push(Step::Delegated { plugin: plugin.to_owned() });
    let answer = hands.delegates(&call.path, &call.stdin).add(plugin);
    times::lap_of(|| format!("delegate {plugin}").into());
    let answer = answer?;
    let result = read(plugin, &answer, call)?;
    let granted = Granted {
        networks: result.ips.iter().map(|ip| ip.address.trunc()).collect(),
        addresses: given(result.ips),
        // A plugin that names no route leaves them to the mode.
        routes: Some(result.routes).filter(|r| !r.is_empty()),
        dns: result.dns,
    };
    noted(call, record, &granted);
    hands.run(vec![Step::Amend(Box::new(record.clone()))], done)?;
    if granted.addresses.is_empty() {
        return Err(Error::new(
            Kind::Delegate(0),
            format!("use the answer of the IPAM plugin `{plugin}`, which holds no address"),
        ));
    }
    Ok(granted)
}

/// The plugin's configuration as the record may keep it for a DEL after the operator changed it.
fn without_secrets(ipam: &Value) -> Value {
    const SECRET: [&str; 5] = ["password", "secret", "token", "credential", "privatekey"];
    let told = |key: &str| !SECRET.iter().any(|s| key.to_lowercase().contains(s));
    match ipam {
        Value::Object(object) => {
            object.iter().filter(|(key, _)| told(key)).map(|(k, v)| (k.clone(), without_secrets(v))).collect()
        }
        Value::Array(items) => items.iter().map(without_secrets).collect(),
        plain => plain.clone(),
    }
}

fn read(plugin: &str, answer: &[u8], call: &Call) -> Result<CniResult> {
    let doing = || format!("read the answer of the IPAM plugin `{plugin}`");
    let value: Value =
        serde_json::from_slice(answer).map_err(|e| Error::caused(Kind::Delegate(0), doing(), e))?;
    CniResult::from_json(&value, call.config.version)
        .map_err(|e| Error::caused(Kind::Delegate(0), doing(), e))
}

/// What `choices` from the ranges of `config` grant.
pub fn from_leases(config: &HostLocal, choices: &[Choice]) -> Result<Granted> {
    let subnets = config.sets.iter().flat_map(|set| &set.ranges).map(|range| range.subnet);
    Ok(Granted {
        addresses: choices.iter().map(|c| Given { address: c.address, gateway: c.gateway }).collect(),
        routes: Some(config.routes.clone()),
        networks: subnets.collect(),
        dns: config.resolv_conf.as_deref().map(resolv::read).transpose()?.unwrap_or_default(),
    })
}

/// What the configuration or the runtime names.
pub fn from_config(config: &Static, call: &Call) -> Result<Granted> {
    let wanted = call.config.wanted.iter().map(|w| {
        let whole = if w.address.is_ipv4() { 32 } else { 128 };
        IpNet::new(w.address, w.prefix.unwrap_or(whole))
            .map_err(|e| Error::caused(Kind::Config, format!("use the address `{w}`"), e))
    });
    // An address that the runtime asks for leaves by the configured gateway of its network.
    let gateways: Vec<IpAddr> = config.addresses.iter().filter_map(|(_, gateway)| *gateway).collect();
    let ips = config.give(&wanted.collect::<Result<Vec<_>>>()?, &gateways);
    if ips.is_empty() {
        return Err(Error::new(Kind::Config, "give the pod an address by `static`, which has none")
            .hint("write `ipam.addresses`, or let the runtime hand one over as `ips`"));
    }
    Ok(Granted {
        networks: ips.iter().map(|ip| ip.address.trunc()).collect(),
        addresses: given(ips),
        routes: Some(config.routes.clone()),
        dns: config.dns.clone(),
    })
}

fn given(ips: Vec<Ip>) -> Vec<Given> {
    ips.into_iter().map(|ip| Given { address: ip.address, gateway: ip.gateway }).collect()
}

/// The step that takes a choice.
pub fn reserved(folder: &Path, choice: Choice, call: &Call) -> Step {
    Step::Reserve { folder: folder.to_owned(), choice, owner: call.owner.clone() }
}

fn noted(call: &Call, record: &mut Attachment, granted: &Granted) {
    if matches!(&call.config.attach, Attach::Bridge(bridge) if bridge.mac_spoof_check) {
        record.only_mac = Some(pod_mac(&call.config, &call.owner, &granted.addresses));
    }
    record.addresses = granted.addresses.iter().map(|g| g.address.addr()).collect();
    record.networks.clone_from(&granted.networks);
    if call.config.masquerade {
        record.keep = kept(&call.config, granted);
    }
}

/// An empty list asks for no route at all; no list asks for the mode's own.
fn configures_routes(call: &Call) -> bool {
    call.config.ipam_json.as_ref().and_then(|i| i.get("routes")).is_some_and(|r| !r.is_null())
}
