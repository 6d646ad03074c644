//! Does what a plan says: steps that follow each other in one place travel to the kernel in one batch.
//! What was done is a list; on a failure the caller walks it backwards.

mod hands;
mod message;
mod ports;
mod restore;
mod shape;

use std::time::{Duration, Instant};

use node::namespace::Namespace;
use node::step::Done;
use node::{Error, Kind, Result, times};

pub use hands::Hands;
use message::{explained, is_done_already, makes_a_link, message, needs_index, needs_other, takes_away};

use crate::kernel::socket::Request;
use crate::kernel::{address, link, reaper, sysctl};
use crate::owner::Owner;
use crate::plan::step::{Place, Step, Verb};

/// Duplicate address detection takes two seconds at most with the kernel's settings.
const SETTLE: Duration = Duration::from_secs(10);

impl Hands<'_> {
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
                |s| matches!(s, Step::Link { place: p, verb } if *p == place && !self.must_wait(place, &verbs, verb)),
            ) {
                verbs.push(verb);
            }
            self.timed(place, verbs, done)?;
        }
        self.go(Place::Host)
    }

    fn timed(&mut self, place: Place, verbs: Vec<Verb>, done: &mut Done<Step>) -> Result<()> {
        let words = times::is_running().then(|| times::counted(verbs.iter().map(Verb::name)));
        let result = self.batch(place, verbs, done);
        if let Some(words) = words {
            times::lap_of(|| format!("{}: {words}", place.name()).into());
        }
        result
    }

    /// Whether the verb may need the index of a link that an earlier message of the same batch makes.
    fn must_wait(&self, place: Place, before: &[Verb], verb: &Verb) -> bool {
        let mut links = needs_index(verb).into_iter().chain(needs_other(verb));
        let unknown = links.any(|link| !self.knows(place, link));
        // An ifb that is there already is somebody else's, and must not get this pod's alias.
        let named = |b: &Verb| matches!((b, verb), (Verb::CreateIfb { link: made, .. }, Verb::Alias { link, .. }) if made == link);
        unknown && before.iter().any(makes_a_link) || before.iter().any(named)
    }

    /// Takes every step's effect away, going on past failures; the first of them is the answer. As long as
    /// something is left the record stays: it is what the next try goes by.
    pub fn run_all(&mut self, steps: Vec<Step>) -> Result<()> {
        // A repair would put elements back that go here. Whoever repairs has the lock alone already.
        let unfilters = steps.iter().any(|s| matches!(s, Step::Unfilter { .. } | Step::NoSpoofCheck { .. }));
        let _no_repair = if unfilters && !self.repairing { self.state().taking_back()? } else { None };
        let mut first = Ok(());
        for step in steps {
            if first.is_err() && matches!(step, Step::Forget { .. }) {
                continue;
            }
            let result = self.single(&step);
            times::lap(step.name());
            if first.is_ok() {
                first = result;
            }
        }
        first
    }

    /// A failure may come after the effect: the answer was lost, a later part of the step went wrong.
    fn alone(&mut self, step: Step, done: &mut Done<Step>) -> Result<()> {
        let result = self.single(&step);
        times::lap(step.name());
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
                    let others = self.qdisc_in_the_way(place, &verb, &refusal);
                    let error = explained(Step::Link { place, verb }, refusal);
                    first = Some(match others {
                        Some(hint) => error.hint(hint),
                        None => error,
                    });
                }
                Some(_) => {}
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// The message of a verb; `None` where it takes something away from a link that is gone.
    fn request(&mut self, place: Place, verb: &Verb) -> Result<Option<Request>> {
        let mut indexes = [0; 2];
        for (index, name) in indexes.iter_mut().zip([needs_index(verb), needs_other(verb)]) {
            let Some(name) = name else { continue };
            match self.index(place, name)? {
                Some(found) => *index = found,
                None if takes_away(verb) => return Ok(None),
                None => return Err(Error::new(Kind::Kernel, format!("{place}find the link `{name}`"))),
            }
        }
        let [index, to] = indexes;
        let netns = self.pod.as_ref().map_or(-1, Namespace::raw);
        Ok(Some(message(verb, index, to, netns)))
    }

    /// A step that travels alone.
    fn single(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Record(attachment) => self.state().attachments.create(attachment),
            Step::Amend(attachment) => self.state().attachments.amend(attachment),
            Step::Forget { owner } => self.state().attachments.remove(owner),
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
            Step::DeleteLinks { links } => self.delete_links(links),
            Step::Filter { filters, owner } => {
                let state = self.state();
                let lives = |key: &str| Owner::from_key(key).is_some_and(|o| state.knows(&o));
                // On a node with pods, somebody flushed it: known before our table makes it look whole.
                if !self.nft()?.has_table()? {
                    state.note_flush()?;
                }
                self.filter(|nft| nft.put(filters, owner, &lives))
            }
            Step::Unfilter { traces, owner } => self.unfilter(|nft| nft.take(traces, owner)),
            Step::SpoofCheck { owner, mac } => {
                self.filter(|nft| nft.spoof_check(&owner.host_ifname(), mac.0, owner))
            }
            Step::NoSpoofCheck { owner, mac } => {
                self.unfilter(|nft| nft.no_spoof_check(&owner.host_ifname(), mac.map(|m| m.0), owner))
            }
            Step::ClaimPorts { ports, owner } => self.claim(ports, owner),
            Step::ReleasePorts { ports, owner } => self.release_ports(ports, owner),
            Step::OpenLoopback { link, four, six } => self.open_loopback(link, *four, *six),
            Step::FlushConnections { ports, live } => self.flush_connections(ports, *live),
            Step::Unredirect { link, to } => self.unredirect(link, to),
            Step::Sysctl { name, value } => {
                self.go(Place::Pod)?;
                sysctl::demand(name, value)
            }
            Step::Keep { before, file, .. } => restore::keep(before, file.as_deref()),
            Step::Restore { link, before, file } => self.restore(link, before, file.as_deref()),
            Step::RemoveRules { link, addresses } => self.remove_rules(link, addresses),
        }
    }

    fn delete_links(&mut self, names: &[String]) -> Result<()> {
        // The reaper's child would keep the lock for as long as the kernel makes it wait.
        self.leases = None;
        self.go(Place::Host)?;
        let slots = self.state().reaper_slots();
        reaper::delete_links(self.socket(Place::Host)?, names, &slots)
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
