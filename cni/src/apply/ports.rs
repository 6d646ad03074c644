//! What host ports need beside nf_tables: claims, the loopback addresses, and connections to forget.

use node::Result;

use super::Hands;
use crate::kernel::conntrack::Conntrack;
use crate::kernel::nft::Forward;
use crate::kernel::{loopback, route};
use crate::owner::Owner;
use crate::plan::step::Place;

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
    /// the pod before. What only passes the host is nobody's business here.
    pub(super) fn flush_connections(&mut self, ports: &[Forward]) -> Result<()> {
        self.go(Place::Host)?;
        let mut conntrack = Conntrack::open()?;
        for port in ports {
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

    /// Forgets connections that led by these ports to the pod. One that stays ends by itself when nobody
    /// sends any more: no reason for a DEL to fail.
    fn forget_connections_of(&mut self, ports: &[Forward]) {
        for port in ports.iter().filter(|p| p.is_remembered()) {
            let forgotten = self.go(Place::Host).and_then(|()| {
                let mut conntrack = Conntrack::open()?;
                let mut stale = conntrack.to_port(port)?;
                stale.retain(|connection| connection.leads_to(port));
                conntrack.forget(&stale)
            });
            drop(forgotten);
        }
    }
}
