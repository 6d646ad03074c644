//! What host ports need beside nf_tables: claims, the loopback addresses, and connections to forget.

use std::net::{IpAddr, Ipv4Addr};

use node::Result;

use super::Hands;
use crate::kernel::conntrack::{Conntrack, Pattern};
use crate::kernel::nft::Forward;
use crate::kernel::{loopback, route, sysctl};
use crate::owner::Owner;
use crate::plan::step::Place;

/// What a delete and a list take, in looks at one connection; each looks at all of them besides. Measured with a table
/// of 262144 buckets: 0.3 ms, 11 ms and half a microsecond.
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
    /// none leads, and the kernel is told which are meant; otherwise they are listed, with the same result.
    pub(super) fn flush_connections(&mut self, ports: &[Forward], live: bool) -> Result<()> {
        self.go(Place::Host)?;
        let mut conntrack = Conntrack::open()?;
        let (named, others) = by_name(ports);
        let patterns = if live { None } else { self.sent_here(&named) };
        let done = patterns.is_some_and(|patterns| conntrack.forget_all(&patterns).is_ok());
        for port in others.into_iter().chain(named.into_iter().filter(|_| !done)) {
            let mut stale = Vec::new();
            for connection in conntrack.to_port(port)? {
                let elsewhere = !connection.leads_to(port) && !is_further_loopback(connection.to.ip());
                if elsewhere && route::is_local(self.socket(Place::Host)?, connection.to.ip())? {
                    stale.push(connection);
                }
            }
            conntrack.forget(&stale)?;
        }
        Ok(())
    }

    /// What is sent to these ports of each of the host's addresses; `None` where lists of the connections are faster,
    /// or where it cannot be said.
    fn sent_here(&mut self, ports: &[&Forward]) -> Option<Vec<Pattern>> {
        let count: usize = sysctl::get("net/netfilter/nf_conntrack_count").ok()??.parse().ok()?;
        let socket = self.socket(Place::Host).ok()?;
        let mut all = None;
        let mut patterns = Vec::new();
        for port in ports {
            let IpAddr::V4(host) = port.host else { return None };
            if !host.is_unspecified() {
                let is_here = route::is_local(socket, port.host).ok()?;
                patterns.extend(is_here.then(|| Pattern::sent_to(host, port)));
                continue;
            }
            if all.is_none() {
                all = Some(route::local_addresses(socket).ok()??);
            }
            patterns.extend(all.iter().flatten().map(|address| Pattern::sent_to(*address, port)));
        }
        Some(patterns).filter(|patterns| patterns.len() * (DELETE + count) <= ports.len() * (LIST + count))
    }

    /// Forgets connections that led by these ports to the pod. One that stays ends by itself when nobody
    /// sends any more: no reason for a DEL to fail.
    fn forget_connections_of(&mut self, ports: &[Forward]) {
        let ports: Vec<Forward> = ports.iter().filter(|port| port.is_remembered()).copied().collect();
        if ports.is_empty() || self.go(Place::Host).is_err() {
            return;
        }
        let Ok(mut conntrack) = Conntrack::open() else { return };
        let (named, others) = by_name(&ports);
        let patterns: Vec<Pattern> = named.iter().filter_map(|port| Pattern::led_by(port)).collect();
        let done = conntrack.forget_all(&patterns).is_ok();
        for port in others.into_iter().chain(named.into_iter().filter(|_| !done)) {
            let forgotten = conntrack.to_port(port).and_then(|mut stale| {
                stale.retain(|connection| connection.leads_to(port));
                conntrack.forget(&stale)
            });
            drop(forgotten);
        }
    }
}

/// Those whose connections the kernel's filter tells apart, and those whose are listed.
fn by_name(ports: &[Forward]) -> (Vec<&Forward>, Vec<&Forward>) {
    ports.iter().partition(|port| Pattern::is_for(port))
}

/// Whether it is of 127.0.0.0/8 and not its first, which stands for all: the others are too many to name.
fn is_further_loopback(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(ip) if ip.is_loopback() && ip != Ipv4Addr::LOCALHOST)
}
