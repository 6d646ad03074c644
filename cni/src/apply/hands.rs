//! What steps are done with: sockets, namespaces, locks, each opened when a step first needs it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use node::namespace::Namespace;
use node::{Error, Kind, Result};
use serde_json::Value;

use crate::ipam::COOLDOWN;
use crate::ipam::delegates::Delegates;
use crate::ipam::leases::{Facts, Leases};
use crate::kernel::link;
use crate::kernel::nft::Nft;
use crate::kernel::socket::RouteSocket;
use crate::owner::Owner;
use crate::plan::step::Place;
use crate::state::State;

/// Everything that steps are done with: opened when a step first needs it.
pub struct Hands<'a> {
    state: &'a State,
    /// The locked leases of the network that is being given from.
    pub leases: Option<Leases>,
    pub(super) delegates: Option<Delegates<'a>>,
    home: Namespace,
    pub(super) pod: Option<Namespace>,
    place: Place,
    host_socket: Option<RouteSocket>,
    pod_socket: Option<RouteSocket>,
    nft: Option<Nft>,
    indexes: Vec<(Place, String, u32)>,
    /// Whether these hands repair, and so keep everybody else from taking attachments back.
    pub repairing: bool,
}

impl<'a> Hands<'a> {
    /// Hands on this node, and in `pod` where there is one.
    pub fn new(state: &'a State, home: Namespace, pod: Option<Namespace>) -> Self {
        Self {
            state,
            leases: None,
            delegates: None,
            home,
            pod,
            place: Place::Host,
            host_socket: None,
            pod_socket: None,
            nft: None,
            indexes: Vec::new(),
            repairing: false,
        }
    }

    /// The same hands with another pod's namespace, or with none.
    pub fn visit(&mut self, pod: Option<Namespace>) -> Result<()> {
        self.go(Place::Host)?;
        self.pod = pod;
        self.pod_socket = None;
        self.indexes.retain(|(place, ..)| *place == Place::Host);
        Ok(())
    }

    /// Which namespace the pod's is.
    pub fn pod_identity(&self) -> Option<(u64, u64)> {
        self.pod.as_ref().map(Namespace::identity)
    }

    /// The node's memory.
    pub fn state(&self) -> &'a State {
        self.state
    }

    /// Remembers an index that was observed.
    pub fn know(&mut self, place: Place, link: &str, index: u32) {
        self.indexes.retain(|(p, name, _)| (*p, name.as_str()) != (place, link));
        self.indexes.push((place, link.to_owned(), index));
    }

    /// Whether the index of a link is known.
    pub(super) fn knows(&self, place: Place, link: &str) -> bool {
        self.indexes.iter().any(|(p, name, _)| (*p, name.as_str()) == (place, link))
    }

    /// The netlink socket of a place. Opening one moves this thread there.
    pub fn socket(&mut self, place: Place) -> Result<&mut RouteSocket> {
        let open = match place {
            Place::Host => self.host_socket.is_some(),
            Place::Pod => self.pod_socket.is_some(),
        };
        if !open {
            self.go(place)?;
        }
        let slot = match place {
            Place::Host => &mut self.host_socket,
            Place::Pod => &mut self.pod_socket,
        };
        match slot {
            Some(socket) => Ok(socket),
            None => Ok(slot.insert(RouteSocket::open()?)),
        }
    }

    /// The nfnetlink socket on the node.
    pub fn nft(&mut self) -> Result<&mut Nft> {
        if self.nft.is_none() {
            self.go(Place::Host)?;
            self.nft = Some(Nft::open()?);
        }
        self.nft.as_mut().ok_or_else(|| Error::new(Kind::Internal, "open an nfnetlink socket"))
    }

    /// Works on nf_tables. A socket that an error was met on may be in the middle of an answer: the next
    /// step, which takes this one back, gets another.
    pub(super) fn filter(&mut self, work: impl FnOnce(&mut Nft) -> Result<()>) -> Result<()> {
        let result = work(self.nft()?);
        if result.is_err() {
            self.nft = None;
        }
        result
    }

    /// Takes something out of nf_tables. A kernel without nfnetlink has nothing to take out.
    pub(super) fn unfilter(&mut self, work: impl FnOnce(&mut Nft) -> Result<()>) -> Result<()> {
        match self.nft() {
            Err(e) if matches!(e.errno(), Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT)) => Ok(()),
            Err(e) => Err(e),
            Ok(_) => self.filter(work),
        }
    }

    pub(super) fn forget_socket(&mut self, place: Place) {
        match place {
            Place::Host => self.host_socket = None,
            Place::Pod => self.pod_socket = None,
        }
    }

    /// Moves this thread, unless it is there.
    pub fn go(&mut self, place: Place) -> Result<()> {
        if self.place == place {
            return Ok(());
        }
        match (place, &self.pod) {
            (Place::Host, _) => self.home.enter()?,
            (Place::Pod, Some(pod)) => pod.enter()?,
            (Place::Pod, None) => {
                return Err(Error::new(Kind::Internal, "enter the pod's namespace, which was not given"));
            }
        }
        self.place = place;
        Ok(())
    }

    /// The index of a link, asked once. `None` where it is not there.
    pub(super) fn index(&mut self, place: Place, name: &str) -> Result<Option<u32>> {
        if let Some((.., index)) = self.indexes.iter().find(|(p, n, _)| (*p, n.as_str()) == (place, name)) {
            return Ok(Some(*index));
        }
        self.go(place)?;
        let found = link::index(name)?;
        self.indexes.extend(found.map(|index| (place, name.to_owned(), index)));
        Ok(found)
    }

    /// Gives an address back. The lock stays with these hands until the steps need another folder's, so
    /// that the addresses of one pod cost it once.
    pub(super) fn release(&mut self, folder: &Path, address: IpAddr, owner: &Owner) -> Result<()> {
        if self.leases.as_ref().is_none_or(|l| l.folder() != folder) {
            self.leases = self.open_existing_leases(folder, COOLDOWN)?;
        }
        self.leases.as_mut().map_or(Ok(()), |leases| leases.release(address, owner).map(drop))
    }

    /// The leases below `folder`, locked and up to date; made where they are missing.
    pub fn open_leases(&mut self, folder: &Path, cooldown: Duration) -> Result<Leases> {
        self.go(Place::Host)?;
        Leases::open(folder, &facts(self.state, cooldown))
    }

    /// The leases below `folder`, locked and up to date; `None` where there never was one.
    pub fn open_existing_leases(&mut self, folder: &Path, cooldown: Duration) -> Result<Option<Leases>> {
        self.go(Place::Host)?;
        // flock(2) would wait for ourselves.
        self.leases = None;
        Leases::open_existing(folder, &facts(self.state, cooldown))
    }

    /// The IPAM plugins of this call, for later steps too.
    pub fn delegates(&mut self, path: &'a [PathBuf], stdin: &'a Value) -> Delegates<'a> {
        *self.delegates.insert(Delegates::new(path, stdin))
    }
}

fn facts(state: &State, cooldown: Duration) -> Facts<'_> {
    Facts {
        boot: &state.boot,
        now: SystemTime::now(),
        cooldown,
        lessees: &state.lessees,
        pods_on_node: &pods_on_node,
    }
}

/// Whether any link on this node may be a pod's. Asked once a boot at the most.
fn pods_on_node() -> Result<bool> {
    Ok(!link::veths(&mut RouteSocket::open()?)?.is_empty())
}
