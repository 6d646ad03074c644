//! What host ports need beside nf_tables: claims, the loopback addresses, and connections to forget.

use std::net::IpAddr;

use node::Result;

use super::Hands;
use crate::kernel::conntrack::{Conntrack, Pattern};
use crate::kernel::nft::Forward;
use crate::kernel::{loopback, route, sysctl};
use crate::owner::Owner;
use crate::plan::step::Place;

/// What a delete and a list cost beside a look at each connection, which takes half a microsecond in both: measured
/// with a table of 262144 buckets.
const DELETE: usize = 600;
const LIST: usize = 20_000;

impl Hands<'_> {
    pub(super) fn claim(&mut self, ports: &[Forward], owner: &Owner) -> Result<()> {
        let state = self.state();
        state.claims().claim(ports, owner, &|o| state.knows(o), &|o| state.name_of(o))
    }

    pub(super) fn release_ports(&mut self, ports: &[Forward], owner: &Owner) -> Result<()> {
        self.forget_connections_of(ports);
        self.state().claims().release(ports, owner)
    }

    pub(super) fn open_loopback(&mut self, link: &str, four: bool, six: bool) -> Result<()> {
        self.go(Place::Host)?;
        loopback::open(self.socket(Place::Host)?, link, four, six)
    }

    /// Forgets connections to the ports that lead elsewhere: to the host itself before there was a pod, or to
    /// the pod before. What only passes the host is nobody's business here. To a pod that does not `live` yet
    /// none leads.
    pub(super) fn flush_connections(&mut self, ports: &[Forward], live: bool) -> Result<()> {
        self.go(Place::Host)?;
        let mut conntrack = Conntrack::open()?;
        let (four, six) = by_family(ports);
        let done = match if live { None } else { self.sent_here(&four)? } {
            Some(patterns) => conntrack.forget_all(&patterns)?,
            None => false,
        };
        for port in six.into_iter().chain(four.into_iter().filter(|_| !done)) {
            let mut stale = Vec::new();
            for connection in conntrack.to_port(port)? {
                let elsewhere = !connection.leads_to(port);
                if elsewhere && route::is_local(self.socket(Place::Host)?, connection.to.ip())? {
                    stale.push(connection);
                }
            }
            conntrack.forget(&stale)?;
        }
        Ok(())
    }

    /// What is sent to these ports, which are IPv4's, of each of the host's addresses; `None` where lists of the connections are faster.
    fn sent_here(&mut self, ports: &[&Forward]) -> Result<Option<Vec<Pattern>>> {
        let count = sysctl::get("net/netfilter/nf_conntrack_count").ok().flatten();
        let Some(count) = count.and_then(|count| count.parse::<usize>().ok()) else { return Ok(None) };
        let socket = self.socket(Place::Host)?;
        let mut all = None;
        let mut patterns = Vec::new();
        for port in ports {
            if let IpAddr::V4(host) = port.host
                && !host.is_unspecified()
            {
                let is_here = route::is_local(socket, port.host)?;
                patterns.extend(is_here.then(|| Pattern::sent_to(host, port)));
                continue;
            }
            if all.is_none() {
                all = route::local_addresses(socket)?;
            }
            let Some(addresses) = &all else { return Ok(None) };
            patterns.extend(addresses.iter().map(|address| Pattern::sent_to(*address, port)));
        }
        Ok(Some(patterns).filter(|patterns| patterns.len() * (DELETE + count) <= ports.len() * LIST))
    }

    /// Forgets connections that led by these ports to the pod. One that stays ends by itself when nobody
    /// sends any more: no reason for a DEL to fail.
    fn forget_connections_of(&mut self, ports: &[Forward]) {
        let ports: Vec<Forward> = ports.iter().filter(|port| port.is_remembered()).copied().collect();
        if ports.is_empty() || self.go(Place::Host).is_err() {
            return;
        }
        let Ok(mut conntrack) = Conntrack::open() else { return };
        let (four, six) = by_family(&ports);
        let patterns: Vec<Pattern> = four.iter().filter_map(|port| Pattern::led_by(port)).collect();
        let done = matches!(conntrack.forget_all(&patterns), Ok(true));
        for port in six.into_iter().chain(four.into_iter().filter(|_| !done)) {
            let forgotten = conntrack.to_port(port).and_then(|mut stale| {
                stale.retain(|connection| connection.leads_to(port));
                conntrack.forget(&stale)
            });
            drop(forgotten);
        }
    }
}

/// Those of IPv4, and those of IPv6, whose addresses the kernel does not compare right: see [`Pattern`].
fn by_family(ports: &[Forward]) -> (Vec<&Forward>, Vec<&Forward>) {
    ports.iter().partition(|port| port.host.is_ipv4())
}
