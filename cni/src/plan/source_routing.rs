//! Routing by source address as steps: each address of the interface looks its way up in a table of its
//! own, so that answers leave by the interface that the question came in by.

use std::net::IpAddr;

use ipnet::IpNet;
use node::{Error, Kind, Result};

use crate::attachment::Attachment;
use crate::config::source_routing::SourceRouting;
use crate::kernel::route::Route;
use crate::kernel::rule::Rule;
use crate::plan::step::{Step, Verb};
use crate::plan::{Given, alone};

/// The first table that is taken where the configuration names none, as the reference has it.
const FIRST: u32 = 100;
/// The main routing table (rtnetlink(7), RT_TABLE_MAIN).
const MAIN: u32 = 254;
/// What the kernel makes of an IPv6 route's missing metric (`IP6_RT_PRIO_USER`).
const USUAL_METRIC_6: u32 = 1024;

/// The pod's routing as the interface that is to be routed by source finds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lookups {
    /// Every rule.
    pub rules: Vec<Rule>,
    /// Tables with a route in them.
    pub tables: Vec<u32>,
    /// The interface's routes in every table.
    pub routes: Vec<Route>,
    /// The interface's addresses with their gateways.
    pub given: Vec<Given>,
}

/// A rule and a table for each address, filled with the routes of the interface, which then leave the main
/// table.
pub fn steps(wish: SourceRouting, link: &str, seen: &Lookups) -> Result<Vec<Step>> {
    if seen.given.is_empty() {
        return Err(Error::new(
            Kind::Config,
            format!("route `{link}` by its source addresses, of which it has none"),
        )
        .hint("put `sbr` behind a plugin with `ipam` in the network's list"));
    }
    let main: Vec<&Route> = seen.routes.iter().filter(|r| r.table.unwrap_or(MAIN) == MAIN).collect();
    let (mut rules, mut routes, mut next) = (Vec::new(), Vec::<Route>::new(), FIRST);
    for given in &seen.given {
        let table = wish.table.unwrap_or_else(|| free(&mut next, seen));
        let own = given.address.addr();
        let hint =
            |address: IpAddr| wish.source_hints.then_some(own).filter(|o| family(*o) == family(address));
        rules.push(Step::pod(Verb::Rule { from: own, table }));
        if let Some(gateway) = given.gateway {
            let default = default_by(gateway, table, hint(gateway), &main);
            put(&mut routes, default, link)?;
        }
        for route in main.iter().filter(|r| belongs(r, given, &seen.given)) {
            let source = route.source.or(hint(route.dst.addr()));
            put(&mut routes, Route { table: Some(table), source, ..(*route).clone() }, link)?;
        }
    }
    // Those without a gateway first, then by gateway: the gateways of the latter are found by the former.
    routes.sort_by_key(|r| r.gw.is_some());
    let made = routes.into_iter().map(|route| Verb::CopyRoute { link: link.to_owned(), route });
    let mut gone = main;
    gone.sort_by_key(|r| r.gw.is_none());
    let gone = gone.into_iter().map(|r| Verb::RemoveRoute { link: link.to_owned(), route: r.clone() });
    Ok(rules.into_iter().chain(made.chain(gone).map(Step::pod)).collect())
}

/// What takes the rules of a record back. The routes go with the interface.
pub fn unmake(record: &Attachment) -> Option<Step> {
    record
        .source_routing
        .map(|_| Step::RemoveRules { link: record.owner.ifname.clone(), addresses: record.addresses.clone() })
}

/// What is not in effect, from what was seen.
pub fn missing(wish: SourceRouting, link: &str, seen: &Lookups) -> Vec<String> {
    let mut missing = Vec::new();
    for given in &seen.given {
        let own = given.address.addr();
        let tables: Vec<u32> = looked_up(&seen.rules, own);
        let Some(table) = tables.iter().find(|t| wish.table.is_none_or(|w| w == **t)) else {
            let by = wish.table.map_or_else(String::new, |t| format!(" by table {t}"));
            missing.push(format!("in the pod: the rule that routes what comes from `{own}`{by} is gone"));
            continue;
        };
        let Some(gateway) = given.gateway else { continue };
        let leads = |r: &&Route| {
            tables.contains(&r.table.unwrap_or(MAIN)) && r.dst.prefix_len() == 0 && r.gw == Some(gateway)
        };
        if !seen.routes.iter().any(|r| leads(&r)) {
            missing.push(format!(
                "in the pod: the default route via {gateway} on `{link}` in table {table} is gone"
            ));
        }
    }
    missing
}

/// The tables that the rules for an address look into.
pub fn looked_up(rules: &[Rule], from: IpAddr) -> Vec<u32> {
    rules.iter().filter(|r| r.from == Some(from)).map(|r| r.table).collect()
}

/// The next table that no rule names and no route stands in.
fn free(next: &mut u32, seen: &Lookups) -> u32 {
    let taken = |table: u32| seen.rules.iter().any(|r| r.table == table) || seen.tables.contains(&table);
    while taken(*next) {
        *next = next.saturating_add(1);
    }
    let table = *next;
    *next = next.saturating_add(1);
    table
}

/// A plugin before may have removed the default route: it is made from the gateway. One that is there has
/// more to tell (its metric, whether its gateway is on the link).
fn default_by(gateway: IpAddr, table: u32, source: Option<IpAddr>, main: &[&Route]) -> Route {
    let there = main.iter().find(|r| r.dst.prefix_len() == 0 && r.gw == Some(gateway));
    let any = if gateway.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let made = || {
        let dst = IpNet::new(any, 0).unwrap_or_else(|_| alone(any));
        Route { gw: Some(gateway), ..Route::direct(dst) }
    };
    let mut route = there.map_or_else(made, |r| (*r).clone());
    route.table = Some(table);
    route.source = route.source.or(source);
    route
}

/// Whether an address takes a route along: one through its network, one of nobody's, and one that no
/// address would take, which must not get lost.
fn belongs(route: &Route, given: &Given, all: &[Given]) -> bool {
    let takes = |given: &Given| {
        let within = |ip: Option<IpAddr>| ip.is_some_and(|ip| given.address.contains(&ip));
        within(route.source)
            || within(route.gw)
            || (route.gw.is_some() && route.gw == given.gateway)
            || (route.source.is_none() && route.gw.is_none())
    };
    let same = family(route.dst.addr()) == family(given.address.addr());
    takes(given) || (same && !all.iter().any(takes))
}

/// Each destination once in a table. What was there before is more telling than what was made up.
fn put(routes: &mut Vec<Route>, route: Route, link: &str) -> Result<()> {
    let key = |r: &Route| {
        let usual = if r.dst.addr().is_ipv6() { USUAL_METRIC_6 } else { 0 };
        (r.dst.trunc(), r.table, r.priority.unwrap_or(usual))
    };
    match routes.iter().find(|r| key(r) == key(&route)) {
        Some(other) if other.gw != route.gw => {
            let table = route.table.unwrap_or(MAIN);
            let what =
                format!("put the routes `{other}` and `{route}` of `{link}` into the one table {table}");
            Err(Error::new(Kind::Config, what).hint("leave `table` out: each address then has its own"))
        }
        Some(_) => Ok(()),
        None => {
            routes.push(route);
            Ok(())
        }
    }
}

fn family(address: IpAddr) -> bool {
    address.is_ipv6()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn given(address: &str, gateway: &str) -> Given {
        Given { address: net(address), gateway: gateway.parse().ok() }
    }

    /// As the reference's bridge leaves a second interface.
    fn seen() -> Lookups {
        let route = |dst: &str, gw: &str, source: &str, priority| Route {
            gw: gw.parse().ok(),
            source: source.parse().ok(),
            priority,
            table: Some(MAIN),
            ..Route::direct(net(dst))
        };
        Lookups {
            rules: [255, 254, 253, 100].map(|table| Rule { from: None, table }).to_vec(),
            tables: vec![254, 255],
            routes: vec![
                route("0.0.0.0/0", "10.2.0.1", "", None),
                route("10.2.0.0/16", "", "10.2.0.7", None),
                route("fd02::/64", "", "", Some(256)),
                route("::/0", "fd02::1", "", Some(1024)),
                Route { table: Some(255), ..route("10.2.0.7/32", "", "10.2.0.7", None) },
            ],
            given: vec![given("10.2.0.7/16", "10.2.0.1"), given("fd02::7/64", "fd02::1")],
        }
    }

    fn lines(wish: SourceRouting, seen: &Lookups) -> Vec<String> {
        let steps = steps(wish, "net1", seen).unwrap();
        steps.iter().map(|s| s.to_string().replace("in the pod: ", "")).collect()
    }

    #[test]
    fn each_address_has_a_table_and_its_routes_move_there() {
        assert_eq!(
            lines(SourceRouting::default(), &seen()),
            [
                "route what comes from `10.2.0.7` by table 101",
                "route what comes from `fd02::7` by table 102",
                "add the route `10.2.0.0/16 table 101` on `net1`",
                "add the route `fd02::/64 metric 256 table 101` on `net1`",
                "add the route `fd02::/64 metric 256 table 102` on `net1`",
                "add the route `default via 10.2.0.1 table 101` on `net1`",
                "add the route `default via fd02::1 metric 1024 table 102` on `net1`",
                "remove the route `default via 10.2.0.1 table 254` on `net1`",
                "remove the route `default via fd02::1 metric 1024 table 254` on `net1`",
                "remove the route `10.2.0.0/16 table 254` on `net1`",
                "remove the route `fd02::/64 metric 256 table 254` on `net1`",
            ]
        );
    }

    #[test]
    fn a_named_table_serves_every_address_and_hints_name_the_source() {
        let wish = SourceRouting { table: Some(7), source_hints: true };
        let steps = steps(wish, "net1", &seen()).unwrap();
        let made: Vec<(String, Option<IpAddr>)> = steps
            .iter()
            .filter_map(|s| match s {
                Step::Link { verb: Verb::CopyRoute { route, .. }, .. } => {
                    Some((route.to_string(), route.source))
                }
                _ => None,
            })
            .collect();
        let own = |ip: &str| Some(ip.parse().unwrap());
        assert_eq!(
            made,
            [
                ("10.2.0.0/16 table 7".to_owned(), own("10.2.0.7")),
                ("fd02::/64 metric 256 table 7".to_owned(), None),
                ("default via 10.2.0.1 table 7".to_owned(), own("10.2.0.7")),
                ("default via fd02::1 metric 1024 table 7".to_owned(), own("fd02::7")),
            ]
        );
    }

    #[test]
    fn two_gateways_of_a_family_do_not_fit_into_one_table() {
        let mut seen = seen();
        seen.given.push(given("10.3.0.7/16", "10.3.0.1"));
        let wish = SourceRouting { table: Some(7), source_hints: false };
        let refused = steps(wish, "net1", &seen).unwrap_err();
        assert_eq!(refused.kind(), Kind::Config);
        assert!(refused.chain().contains("into the one table 7"), "{}", refused.chain());
        assert!(steps(SourceRouting::default(), "net1", &seen).is_ok());
    }

    #[test]
    fn an_interface_without_addresses_is_refused() {
        let seen = Lookups { given: Vec::new(), ..seen() };
        assert_eq!(steps(SourceRouting::default(), "net1", &seen).unwrap_err().kind(), Kind::Config);
    }

    #[test]
    fn what_is_gone_is_named() {
        let mut there = seen();
        there.rules.extend(
            [("10.2.0.7", 101), ("fd02::7", 102)]
                .map(|(from, table)| Rule { from: from.parse().ok(), table }),
        );
        there.routes = vec![
            Route { gw: "10.2.0.1".parse().ok(), table: Some(101), ..Route::direct(net("0.0.0.0/0")) },
            Route { gw: "fd02::1".parse().ok(), table: Some(102), ..Route::direct(net("::/0")) },
        ];
        assert_eq!(missing(SourceRouting::default(), "net1", &there), [""; 0]);
        there.rules.retain(|r| r.from != "10.2.0.7".parse().ok());
        there.routes.pop();
        assert_eq!(
            missing(SourceRouting::default(), "net1", &there),
            [
                "in the pod: the rule that routes what comes from `10.2.0.7` is gone",
                "in the pod: the default route via fd02::1 on `net1` in table 102 is gone",
            ]
        );
    }
}
