//! What is left in the kernel that no record and no living attachment answers for: for GC, whichever plugin
//! of the list it is called for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use node::Result;

use crate::apply::Hands;
use crate::ipam::Ipam;
use crate::kernel::link;
use crate::kernel::nft::{Found, Trace, comment};
use crate::observe;
use crate::owner::Owner;
use crate::plan::step::{Place, Step};
use crate::request::Gc;

/// Links and elements of ours, whoever they belong to.
#[derive(Debug, Default)]
pub struct Strays {
    links: Vec<String>,
    ifbs: Vec<(String, Owner)>,
    elements: Vec<Found>,
    /// Isolated ports of bridges, each with the comment that names its owner.
    ports: Vec<(String, String)>,
}

impl Strays {
    /// Looks for them. To be called before the records are read: what an ADD makes from then on has its record
    /// by then.
    pub fn look(hands: &mut Hands) -> Result<Self> {
        let socket = hands.socket(Place::Host)?;
        let links = link::veths(socket)?.into_iter().map(|l| l.name);
        let links = links.filter(|name| Owner::is_host_ifname(name)).collect();
        let mut strays = Self { links, ifbs: observe::ifbs(socket)?, ..Self::default() };
        // A node whose kernel has no nf_tables has no elements.
        if let Ok(nft) = hands.nft() {
            strays.elements = nft.found()?;
            strays.ports = nft.isolated_ports()?;
        }
        Ok(strays)
    }

    /// Removes those that neither a record nor the list of valid attachments answers for. Without a whole
    /// memory they may be another network's: then only elements of this network's ranges go.
    pub fn remove(self, call: &Gc, hands: &mut Hands) -> Result<()> {
        let state = hands.state();
        let whole = state.is_whole()?;
        let mut known: BTreeSet<Owner> = call.valid.clone();
        for folder in state.everywhere()? {
            known.extend(folder.owners()?);
        }
        let names: BTreeSet<String> = known.iter().map(Owner::host_ifname).collect();
        let comments: BTreeSet<String> = known.iter().map(comment).collect();
        let veths = self.links.into_iter().filter(|name| !names.contains(name));
        let ifbs = self.ifbs.into_iter().filter(|(_, owner)| !known.contains(owner)).map(|(name, _)| name);
        let links = veths.chain(ifbs).filter(|_| whole);
        let mut steps: Vec<Step> = links.map(|link| Step::DeleteLinks { links: vec![link] }).collect();
        let in_range = |address: IpAddr| match &call.config.ipam {
            Some(Ipam::HostLocal(config)) => config.sets.iter().any(|set| set.range_of(address).is_some()),
            _ => false,
        };
        let may_go = |found: &Found| whole || found.address().is_some_and(in_range);
        let elements = self.elements.into_iter().filter(|f| !comments.contains(&f.comment) && may_go(f));
        steps.extend(elements.filter_map(|found| taken(&found.comment.clone(), Trace::Found(vec![found]))));
        let ports = self.ports.into_iter().filter(|(named, _)| whole && !comments.contains(named));
        let isolated = |port| Trace::Firewall { addresses: Vec::new(), port: Some(port) };
        steps.extend(ports.filter_map(|(named, port)| taken(&named, isolated(port))));
        let result = hands.run_all(steps);
        if !whole {
            return result;
        }
        // An ADD that began after the look has its record by now, before its claim.
        let lives = |owner: &Owner| known.contains(owner) || state.knows(owner);
        result.and(state.claims().sweep(&lives))
    }
}

fn taken(named: &str, trace: Trace) -> Option<Step> {
    Owner::from_key(named).map(|owner| Step::Unfilter { traces: vec![trace], owner })
}
