//! Does what a plan says: steps that follow each other in one place travel to the kernel in one batch.
//! What was done is a list; on a failure the caller walks it backwards.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use node::namespace::Namespace;
use node::step::Done;
use node::{Error, Kind, Result};
use serde_json::Value;

use crate::ipam::COOLDOWN;
use crate::ipam::leases::{Facts, Leases};
use crate::kernel::link::Veth;
use crate::kernel::nft::{Masquerade, Nft};
use crate::kernel::socket::{Refusal, Request, RouteSocket, refused};
use crate::kernel::{address, link, neighbour, reaper, route, sysctl};
use crate::owner::Owner;
use crate::plan::step::{Place, Step, Verb};
use crate::state::State;
use crate::verb::delegates::Delegates;

/// Duplicate address detection takes two seconds at most with the kernel's settings.
const SETTLE: Duration = Duration::from_secs(10);

/// Everything that steps are done with: opened when a step first needs it.
pub struct Hands<'a> {
    state: &'a State,
    /// The locked leases of the network that is being given from.
    pub leases: Option<Leases>,
    delegates: Option<Delegates<'a>>,
    home: Namespace,
    pod: Option<Namespace>,
    place: Place,
    host_socket: Option<RouteSocket>,
    pod_socket: Option<RouteSocket>,
    nft: Option<Nft>,
    indexes: HashMap<(Place, String), u32>,
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
            indexes: HashMap::new(),
        }
    }

    /// The node's memory.
    pub fn state(&self) -> &'a State {
        self.state
    }

    /// Remembers an index that was observed.
    pub fn know(&mut self, place: Place, link: &str, index: u32) {
        self.indexes.insert((place, link.to_owned()), index);
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
    fn filter(&mut self, work: impl FnOnce(&mut Nft) -> Result<()>) -> Result<()> {
        let result = work(self.nft()?);
        if result.is_err() {
            self.nft = None;
        }
        result
    }

    fn forget_socket(&mut self, place: Place) {
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

    /// Does every step in order and notes each in `done`. Stops at the first failure; steps that the
    /// kernel carried out in the same batch are noted all the same.
    pub fn run(&mut self, steps: Vec<Step>, done: &mut Done<Step>) -> Result<()> {
        let mut steps = steps.into_iter().peekable();
        while let Some(step) = steps.next() {
            let Step::Link { place, verb } = step else {
                self.alone(step, done)?;
                continue;
            };
            let mut verbs = vec![verb];
            while let Some(Step::Link { verb, .. }) = steps.next_if(
                |s| matches!(s, Step::Link { place: p, verb } if *p == place && !must_wait(&verbs, verb)),
            ) {
                verbs.push(verb);
            }
            self.batch(place, verbs, done)?;
        }
        self.go(Place::Host)
    }

    /// Takes every step's effect away, going on past failures; the first of them is the answer. As long as
    /// something is left the record stays: it is what the next try goes by.
    pub fn run_all(&mut self, steps: Vec<Step>) -> Result<()> {
        let mut first = Ok(());
        for step in steps {
            if first.is_err() && matches!(step, Step::Forget { .. }) {
                continue;
            }
            let result = self.single(&step);
            if first.is_ok() {
                first = result;
            }
        }
        first
    }

    /// A failure may come after the effect: the answer was lost, a later part of the step went wrong.
    fn alone(&mut self, step: Step, done: &mut Done<Step>) -> Result<()> {
        let result = self.single(&step);
        if result.is_ok() || step.may_be_done() {
            done.push(step);
        }
        result
    }

    fn batch(&mut self, place: Place, verbs: Vec<Verb>, done: &mut Done<Step>) -> Result<()> {
        let mut requests = Vec::with_capacity(verbs.len());
        for verb in &verbs {
            match self.request(place, verb)? {
                Some(request) => requests.push(request),
                None => return Ok(()),
            }
        }
        let answers = match self.socket(place)?.batch(requests) {
            Ok(answers) => answers,
            // Sent or not, answered or not: nobody knows what the kernel did, nor what the socket still holds.
            Err(error) => {
                self.forget_socket(place);
                done.extend(verbs.into_iter().map(|verb| Step::Link { place, verb }));
                return Err(error);
            }
        };
        let mut first = None;
        for (verb, answer) in verbs.into_iter().zip(answers) {
            match answer.filter(|refusal| !is_done_already(&verb, refusal)) {
                None => done.push(Step::Link { place, verb }),
                Some(refusal) if first.is_none() => {
                    first = Some(explained(Step::Link { place, verb }, refusal));
                }
                Some(_) => {}
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// The index of a link, asked once. `None` where it is not there.
    fn index(&mut self, place: Place, name: &str) -> Result<Option<u32>> {
        let key = (place, name.to_owned());
        if let Some(index) = self.indexes.get(&key) {
            return Ok(Some(*index));
        }
        let found = link::find(self.socket(place)?, name)?.map(|l| l.index);
        self.indexes.extend(found.map(|index| (key, index)));
        Ok(found)
    }

    /// The message of a verb; `None` where it takes something away from a link that is gone.
    fn request(&mut self, place: Place, verb: &Verb) -> Result<Option<Request>> {
        let index = match needs_index(verb) {
            None => 0,
            Some(name) => match self.index(place, name)? {
                Some(index) => index,
                None if takes_away(verb) => return Ok(None),
                None => return Err(Error::new(Kind::Kernel, format!("{place}find the link `{name}`"))),
            },
        };
        Ok(Some(match verb {
            Verb::CreateVeth { host, host_mac, pod, pod_mac, mtu, bridge } => {
                let netns = self.pod.as_ref().map_or(-1, Namespace::raw);
                let (host_mac, pod_mac, mtu, master) =
                    (*host_mac, *pod_mac, *mtu, bridge.as_ref().map(|_| index));
                link::create_veth(&Veth { host, host_mac, pod, pod_mac, mtu, master, netns })
            }
            Verb::CreateBridge { link, mac, mtu } => link::create_bridge(link, *mac, *mtu),
            Verb::Alias { link, alias } => link::set_alias(link, alias),
            Verb::Mac { link, mac } => link::set_mac(link, *mac),
            Verb::Up { link } => link::up(link),
            Verb::Down { link } => link::down(link),
            Verb::Promiscuous { link } => link::promiscuous(link),
            Verb::Port { link, hairpin, isolated } => link::port(link, *hairpin, *isolated),
            Verb::NoLinkLocal { link } => link::without_link_local(link),
            Verb::ArpNotify { link } => link::arp_notify(link),
            Verb::Address { net, dad, .. } => address::add(index, *net, *dad),
            Verb::RemoveAddress { net, .. } => address::delete(index, *net),
            Verb::Route { route, .. } => route::add(index, route),
            Verb::Neighbour { address, mac, permanent: true, .. } => {
                neighbour::permanent(index, *address, *mac)
            }
            Verb::Neighbour { address, mac, permanent: false, .. } => {
                neighbour::reachable(index, *address, *mac)
            }
            Verb::RemoveNeighbour { address, .. } => neighbour::delete(index, *address),
        }))
    }

    /// A step that travels alone.
    fn single(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Record(attachment) => self.state.attachments.create(attachment),
            Step::Amend(attachment) => self.state.attachments.amend(attachment),
            Step::Forget { owner } => self.state.attachments.remove(owner),
            Step::Reserve { choice, owner, folder } => match &mut self.leases {
                Some(leases) => leases.reserve(choice, owner),
                None => Err(Error::new(
                    Kind::Internal,
                    format!("lease from `{}` without its lock", folder.display()),
                )),
            },
            Step::Release { folder, address, owner } => self.release(folder, *address, owner),
            Step::Delegated { .. } => Ok(()),
            Step::Undelegate { plugin } => self.delegates.map_or(Ok(()), |d| d.delete(plugin)),
            Step::Setting { place, name, value } => {
                self.go(*place)?;
                sysctl::set(name, value)
            }
            Step::Link { place, verb } => self.batch(*place, vec![verb.clone()], &mut Done::default()),
            Step::EnableIpv6 { place, link } => self.enable_ipv6(*place, link),
            Step::Settle { place, link } => self.settle(*place, link),
            Step::DeleteLink { link } => self.delete_link(link),
            Step::Masquerade { network, keep, addresses, owner } => {
                let what = Masquerade { network: network.clone(), keep: keep.clone() };
                self.filter(|nft| nft.masquerade(&what, addresses, owner))
            }
            Step::Unmasquerade { addresses, owner } => self.filter(|nft| nft.unmasquerade(addresses, owner)),
            Step::SpoofCheck { owner, mac } => {
                self.filter(|nft| nft.spoof_check(&owner.host_ifname(), mac.0, owner))
            }
            Step::NoSpoofCheck { owner, mac } => {
                self.filter(|nft| nft.no_spoof_check(&owner.host_ifname(), mac.map(|m| m.0), owner))
            }
        }
    }

    /// Gives an address back. The lock stays with these hands until the steps need another folder's, so
    /// that the addresses of one pod cost it once.
    fn release(&mut self, folder: &Path, address: IpAddr, owner: &Owner) -> Result<()> {
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

    fn delete_link(&mut self, name: &str) -> Result<()> {
        // The reaper's child would keep the lock for as long as the kernel makes it wait.
        self.leases = None;
        self.go(Place::Host)?;
        let slots = self.state.reaper_slots();
        reaper::delete_link(self.socket(Place::Host)?, name, &slots)
    }

    fn enable_ipv6(&mut self, place: Place, name: &str) -> Result<()> {
        let found = link::find(self.socket(place)?, name)?;
        if let Some(link) = &found {
            self.know(place, name, link.index);
        }
        if found.is_some_and(|l| l.ipv6_off) {
            self.go(place)?;
            sysctl::set(&format!("net/ipv6/conf/{name}/disable_ipv6"), "0")?;
        }
        Ok(())
    }

    fn settle(&mut self, place: Place, name: &str) -> Result<()> {
        let Some(index) = self.index(place, name)? else { return Ok(()) };
        let start = Instant::now();
        while start.elapsed() < SETTLE {
            let addresses = address::list(self.socket(place)?, index)?;
            if let Some(taken) = addresses.iter().find(|a| a.duplicate) {
                return Err(Error::new(
                    Kind::Conflict,
                    format!("use `{}`, which another host has", taken.net),
                )
                .hint("find the other host by its MAC, or exclude the address in `ipam.exclude`"));
            }
            if addresses.iter().all(|a| !a.tentative) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(Error::new(Kind::TryAgain, format!("wait for duplicate address detection on `{name}`")))
    }
}

/// Whether the verb may need the index of a link that an earlier message of the same batch makes.
fn must_wait(before: &[Verb], verb: &Verb) -> bool {
    let makes = |v: &Verb| matches!(v, Verb::CreateBridge { .. } | Verb::CreateVeth { .. });
    needs_index(verb).is_some() && before.iter().any(makes)
}

fn facts(state: &State, cooldown: Duration) -> Facts<'_> {
    Facts {
        boot: &state.boot,
        now: SystemTime::now(),
        cooldown,
        attachments: &state.attachments,
        pods_on_node: &pods_on_node,
    }
}

/// Whether any link on this node may be a pod's. Asked once a boot at the most.
fn pods_on_node() -> Result<bool> {
    Ok(!link::veths(&mut RouteSocket::open()?)?.is_empty())
}

fn needs_index(verb: &Verb) -> Option<&str> {
    match verb {
        Verb::CreateVeth { bridge, .. } => bridge.as_deref(),
        Verb::Address { link, .. }
        | Verb::RemoveAddress { link, .. }
        | Verb::Route { link, .. }
        | Verb::Neighbour { link, .. }
        | Verb::RemoveNeighbour { link, .. } => Some(link),
        _ => None,
    }
}

fn takes_away(verb: &Verb) -> bool {
    matches!(verb, Verb::RemoveAddress { .. } | Verb::RemoveNeighbour { .. } | Verb::Down { .. })
}

/// Whether the refusal says that the kernel is as the verb wants it: shared things may have been made by
/// another call meanwhile, and what shall go may be gone.
fn is_done_already(verb: &Verb, refusal: &Refusal) -> bool {
    match verb {
        Verb::CreateBridge { .. } | Verb::Address { .. } => refusal.errno() == libc::EEXIST,
        // A kernel without IPv6 makes no link-local address anyway.
        Verb::NoLinkLocal { .. } => matches!(refusal.errno(), libc::EAFNOSUPPORT | libc::EOPNOTSUPP),
        verb if takes_away(verb) => {
            matches!(refusal.errno(), libc::ENODEV | libc::ENOENT | libc::EADDRNOTAVAIL | libc::ESRCH)
        }
        _ => false,
    }
}

fn explained(step: Step, refusal: Refusal) -> Box<Error> {
    let exists = refusal.errno() == libc::EEXIST;
    let error = refused(step.to_string(), refusal);
    match step {
        Step::Link { verb: Verb::CreateVeth { host, pod, .. }, .. } if exists => error.hint(format!(
            "the pod has an interface `{pod}` already, or the node has `{host}` left from an ADD that was never deleted: call DEL first"
        )),
        Step::Link { place: Place::Host, verb: Verb::Route { route, .. } } if exists => error.hint(format!(
            "another pod on this node has the address: `ip route get {}` shows its link, whose alias names it",
            route.dst.addr()
        )),
        _ => error,
    }
}
