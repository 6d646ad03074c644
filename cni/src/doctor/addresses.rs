//! How many addresses are left to give.

use std::collections::BTreeSet;
use std::net::IpAddr;

use node::finding::{Finding, unread};

use super::networks::Networks;
use crate::ipam::ranges::RangeSet;
use crate::ipam::{HostLocal, Ipam, lease};

const WHAT: &str = "addresses left";

/// In percent.
const FEW: u128 = 10;

/// One line for each range set of the networks.
pub(super) fn left(networks: &Networks) -> Vec<Finding> {
    let mut found = Vec::new();
    for conf in &networks.configurations {
        let Some(Ipam::HostLocal(config)) = &conf.ipam else { continue };
        match lease::list(&config.folder(&conf.name)) {
            Ok(held) => {
                let leased: BTreeSet<IpAddr> = held.into_iter().map(|lease| lease.address).collect();
                found.extend(config.sets.iter().map(|set| of(&conf.name, set, config, &leased)));
            }
            Err(error) => found.push(unread(WHAT, &error)),
        }
    }
    found
}

fn of(network: &str, set: &RangeSet, config: &HostLocal, leased: &BTreeSet<IpAddr>) -> Finding {
    let most = set.usable(&config.exclude);
    let may = |a: &&IpAddr| set.range_of(**a).is_some() && !set.is_gateway(**a) && !excluded(**a, config);
    let used = u128::try_from(leased.iter().filter(may).count()).unwrap_or(u128::MAX);
    let free = most.saturating_sub(used);
    let why = format!("`{network}`: {} of {} of {set} are free", shown(free), shown(most));
    let remedy = "nodeplug-cni ipam check; where nothing is leaked, enlarge the range and write the configuration anew";
    if free == 0 {
        return Finding::problem(WHAT, format!("{why}: no pod gets a network"), remedy);
    }
    if most > 0 && free.saturating_mul(100) / most < FEW {
        return Finding::warning(WHAT, why, remedy);
    }
    Finding::fine(WHAT, why)
}

fn excluded(address: IpAddr, config: &HostLocal) -> bool {
    config.exclude.iter().any(|net| net.contains(&address))
}

/// Nobody counts an IPv6 subnet.
fn shown(number: u128) -> String {
    if number > 1 << 32 { "more than 4 billion".to_owned() } else { number.to_string() }
}
