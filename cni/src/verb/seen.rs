//! What the features need to know of the pod before they are planned, and the operator's list of settings
//! that may be set.

use std::net::IpAddr;

use node::{Context, Error, Kind, Result, store};
use regex_lite::Regex;

use crate::apply::Hands;
use crate::config::source_routing::SourceRouting;
use crate::config::tuning::Tuning;
use crate::kernel::{link, neighbour, route, rule, sysctl};
use crate::plan::Given;
use crate::plan::source_routing::{self, Lookups};
use crate::plan::step::{Place, Step};
use crate::plan::target::Target;
use crate::plan::tune::{self, Before, Known};

/// The settings that may be set, one regular expression a line; the reference reads the same file.
const ALLOWED: &str = "/etc/cni/tuning/allowlist.conf";

/// Refuses a setting that no line of `allowlist.conf` matches, as the configuration writes it. Without the file,
/// all are allowed.
pub fn permit(tuning: &Tuning) -> Result<()> {
    if tuning.sysctl.is_empty() {
        return Ok(());
    }
    let Some(bytes) = store::read(ALLOWED.as_ref())? else { return Ok(()) };
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let patterns = lines
        .map(|line| Regex::new(line).doing(Kind::Config, || format!("read the line `{line}` of `{ALLOWED}`")))
        .collect::<Result<Vec<_>>>()?;
    match tuning.sysctl.iter().find(|(name, _)| !patterns.iter().any(|p| p.is_match(name))) {
        Some((name, _)) => {
            Err(Error::new(Kind::Config, format!("set `{name}`, which `{ALLOWED}` does not allow")).hint(
                "take it out of `sysctl`, or add a line there whose regular expression matches its name",
            ))
        }
        None => Ok(()),
    }
}

/// What is about to be changed, as it is now.
pub fn before(tuning: &Tuning, target: &Target, hands: &mut Hands) -> Result<Before> {
    let link = &target.owner.ifname;
    let mut before = Before::default();
    hands.go(Place::Pod)?;
    for (i, name) in tune::settings(tuning, link).into_iter().enumerate() {
        match sysctl::get(&name) {
            Ok(Some(value)) => before.settings.push((name, value)),
            Ok(None) if i < tuning.sysctl.len() => return Err(sysctl::not_there(&name)),
            Ok(None) => {}
            Err(error) if has_none(&name, error.errno()) => {}
            Err(error) => return Err(error),
        }
    }
    if tuning.mac.is_some() {
        before.known = known(target, hands)?;
        let index = target.before.as_ref().map_or(0, |l| l.index);
        before.neighbours = neighbour::permanents(hands.socket(Place::Pod)?, index)?;
    }
    Ok(before)
}

/// Whether a setting has no value to keep: some can only be written, such as net/ipv4/route/flush, and a
/// secret that was never set does not read (kernel: addrconf_sysctl_stable_secret).
fn has_none(name: &str, errno: Option<i32>) -> bool {
    match errno {
        Some(libc::EACCES | libc::EPERM) => true,
        Some(libc::EIO) => name.ends_with("/stable_secret"),
        _ => false,
    }
}

/// Where the node has the pod's addresses in a neighbour table that somebody filled: the host end's or the
/// bridge's.
fn known(target: &Target, hands: &mut Hands) -> Result<Vec<Known>> {
    let mut known = Vec::new();
    let old = target.before.as_ref().and_then(|l| l.mac);
    for link in target.host_link.iter().chain(&target.bridge) {
        let socket = hands.socket(Place::Host)?;
        let Some(index) = link::find(socket, link)?.map(|l| l.index) else { continue };
        for address in target.ips() {
            if let Some((mac, permanent)) = neighbour::find(socket, index, address)?
                && mac.is_some()
                && mac == old
            {
                known.push(Known { link: link.clone(), address, permanent });
            }
        }
    }
    hands.go(Place::Pod)?;
    Ok(known)
}

/// The pod's routing as the interface `link` finds it.
pub fn lookups(link: &str, given: Vec<Given>, hands: &mut Hands) -> Result<Lookups> {
    let socket = hands.socket(Place::Pod)?;
    let index = link::find(socket, link)?.map(|l| l.index);
    Ok(Lookups {
        rules: rule::list(socket)?,
        tables: route::tables(socket)?,
        routes: match index {
            Some(index) => route::list(socket, index)?.into_iter().map(|(route, _)| route).collect(),
            None => Vec::new(),
        },
        given,
    })
}

/// The steps that route by source, planned from what the pod has now.
pub fn rerouting(wish: SourceRouting, link: &str, given: Vec<Given>, hands: &mut Hands) -> Result<Vec<Step>> {
    let seen = lookups(link, given, hands)?;
    source_routing::steps(wish, link, &seen)
}

/// The tables that rules for one of these source addresses look into.
pub fn tables_of(addresses: &[IpAddr], hands: &mut Hands) -> Result<Vec<u32>> {
    let rules = rule::list(hands.socket(Place::Pod)?)?;
    Ok(addresses.iter().flat_map(|address| source_routing::looked_up(&rules, *address)).collect())
}
