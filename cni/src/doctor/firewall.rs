//! Other firewalls that drop what is forwarded, and the table of connections.

use std::fs;

use node::finding::{Finding, unread};

use super::kernel::has_nf_tables;
use super::networks::Networks;
use super::{number, set};
use crate::apply::Hands;
use crate::attachment::Attachment;
use crate::kernel::nft::{Dropper, MARK, Nft};

const WHAT: &str = "other firewalls";
const LEGACY: &str = "iptables-legacy";
const CONNECTIONS: &str = "connections";

/// The kernel's list of the tables that iptables-legacy has in this namespace.
const TABLES: [&str; 2] = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];

/// In percent of the largest number.
const MANY: i64 = 80;
const FULL: i64 = 95;

/// Chains at the forward hook that drop what none of their rules accepts.
pub(super) fn chains(hands: &mut Hands, networks: &Networks, records: &[Attachment]) -> Vec<Finding> {
    let mut found: Vec<Finding> = legacy().into_iter().collect();
    if !has_nf_tables() {
        return found;
    }
    let droppers = match hands.nft().and_then(Nft::droppers) {
        Ok(droppers) => droppers,
        Err(error) => return vec![unread(WHAT, &error)],
    };
    let asked = networks.configurations.iter().any(|c| c.features.firewall.is_some());
    let had = asked || records.iter().any(|record| record.firewall.is_some());
    let closed: Vec<&Dropper> = droppers.iter().filter(|d| !d.opened).collect();
    if closed.is_empty() && found.is_empty() {
        let opened = if droppers.is_empty() {
            "none drops what is forwarded".to_owned()
        } else {
            let places: Vec<&str> = droppers.iter().map(|d| d.place.as_str()).collect();
            format!("the pods' packets (mark {MARK:#x}) pass {}", places.join(", "))
        };
        found.push(Finding::fine(WHAT, opened));
    }
    found.extend(closed.into_iter().map(|dropper| of(dropper, had)));
    found
}

fn of(dropper: &Dropper, had: bool) -> Finding {
    let place = &dropper.place;
    let how = if dropper.by_policy { "by its policy" } else { "by its last rule" };
    if had {
        let why = format!("{place} drops {how}, and the rule that lets the pods' packets by is not there");
        return Finding::problem(WHAT, why, "nodeplug-cni repair");
    }
    let remedy = "put `\"firewall\": true` into nodeplug-cni's entry of the configuration, and restart the pods; or \
                  accept the pods' subnets in that chain";
    if dropper.may_accept {
        let why = format!("{place} drops {how} what its rules do not accept, which may be the pods' packets");
        return Finding::warning(WHAT, why, remedy);
    }
    Finding::problem(WHAT, format!("{place} drops {how}, and accepts no pod's packets"), remedy)
}

/// Rules of iptables-legacy stand beside nf_tables, and are not seen from here.
fn legacy() -> Option<Finding> {
    let tables = TABLES.iter().filter_map(|path| fs::read_to_string(path).ok());
    let filters =
        tables.flat_map(|t| t.lines().map(str::to_owned).collect::<Vec<_>>()).any(|t| t == "filter");
    filters.then(|| {
        let why = "iptables-legacy has a table `filter`, whose rules are not seen here and drop all the same";
        let remedy = "look at it: iptables-legacy -S FORWARD; put its rules into iptables-nft, and remove them by \
                      `iptables-legacy -F; iptables-legacy -P FORWARD ACCEPT`";
        Finding::warning(LEGACY, why, remedy)
    })
}

/// A full table of connections drops every new one, pods' and the node's own.
pub(super) fn connections() -> Option<Finding> {
    let now = number("net/netfilter/nf_conntrack_count")?;
    let most = number("net/netfilter/nf_conntrack_max").filter(|most| *most > 0)?;
    Some(filled(now, most))
}

fn filled(now: i64, most: i64) -> Finding {
    let percent = now.saturating_mul(100) / most;
    let why = format!("{now} of {most} are in use ({percent} %)");
    let remedy = set("net/netfilter/nf_conntrack_max", &most.saturating_mul(2).to_string());
    match percent {
        FULL.. => Finding::problem(CONNECTIONS, format!("{why}: new ones are dropped"), remedy),
        MANY.. => Finding::warning(CONNECTIONS, why, remedy),
        _ => Finding::fine(CONNECTIONS, why),
    }
}

#[cfg(test)]
mod tests {
    use node::finding::State;

    use super::*;

    #[test]
    fn a_table_of_connections_that_fills_is_told_of_in_time() {
        for (now, state) in [(0, State::Fine), (79, State::Fine), (80, State::Warning), (95, State::Problem)]
        {
            assert_eq!(filled(now, 100).state, state, "{now}");
        }
        assert!(filled(99, 100).remedy.is_some_and(|r| r.contains("nf_conntrack_max=200")));
    }

    #[test]
    fn a_chain_that_drops_is_a_problem_unless_it_may_accept() {
        let dropper = |may_accept| Dropper { place: "x".into(), by_policy: true, opened: false, may_accept };
        assert_eq!(of(&dropper(true), false).state, State::Warning);
        assert_eq!(of(&dropper(false), false).state, State::Problem);
        let had = of(&dropper(true), true);
        assert_eq!((had.state, had.remedy.as_deref()), (State::Problem, Some("nodeplug-cni repair")));
    }
}
