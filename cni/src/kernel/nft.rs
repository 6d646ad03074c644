//! nf_tables over netlink, in the network namespace of the thread that opens the socket: masquerade of
//! pods in `table inet nodeplug`, the MAC check of bridge ports in `table bridge nodeplug`.
//!
//! A network with its settings has one chain of its own at the hook and two sets of pod addresses.
//! Made once, re-made when anything of it is missing or different, always as one transaction that
//! leaves the same chain whoever else does the same. A pod is one element for each address, with its
//! owner as the comment: cost does not grow with pods. (A map from address to verdict would make the
//! kernel walk all its elements for loops at each change: `nft_chain_validate`.)
//!
//! What it does not: decide who is masqueraded, remember it, or touch other tables.

mod channel;
mod check;
mod element;
mod filter;
mod host;
mod layout;
mod operation;
mod rule;
mod spoof;

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_bindings::nftables::SetAttrs;
use node::{Error, Kind, Result};

use crate::owner::Owner;

use self::channel::{Channel, End, Refusal};
use self::element::{Element, Held};
use self::layout::{Family, Layout};
use self::operation::{Operation, Question};
use self::rule::HeldRule;

pub use self::element::comment;
pub use self::filter::{Filter, Trace};
pub use self::layout::{Masquerade, TABLE};

/// How often a change is tried anew after another process was faster.
const ATTEMPTS: usize = 10;

/// One nfnetlink socket. Closing it waits while the kernel frees what it removed before, a matter of
/// milliseconds: who is in a hurry leaves a duplicate of the descriptor to a child.
#[derive(Debug)]
pub struct Nft {
    channel: Channel,
}

/// What has to be taken away first, because it stands in the way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct InTheWay {
    chain: bool,
    sets: bool,
    elements: bool,
    /// Whether it was taken away once, or by somebody else: then it is not why the kernel refuses.
    gone: bool,
}

impl InTheWay {
    /// What the refusal teaches; false where trying again cannot help.
    fn learn(&mut self, refusal: &Refusal, operations: &[Operation]) -> bool {
        let known = *self;
        match (refusal.at.and_then(|n| operations.get(n)), refusal.errno) {
            // Removed since the look, or put there since: look again.
            (Some(Operation::AddElement(..) | Operation::DropElement(_)), libc::ENOENT) => return true,
            (Some(Operation::AddElement(..)), libc::EEXIST | libc::EBUSY) => {
                self.elements = true;
                return true;
            }
            // A chain of another hook, or of none.
            (Some(Operation::AddChain(_)), libc::EEXIST | libc::EOPNOTSUPP) => self.chain = !self.gone,
            (Some(Operation::AddSet(..)), libc::EEXIST) => self.sets = !self.gone,
            (Some(Operation::DropChain(..) | Operation::DropSet(..)), libc::ENOENT) => {
                *self = Self { gone: true, ..Self::default() };
            }
            _ => {}
        }
        known != *self
    }
}

impl Nft {
    /// A socket in the current network namespace. Needs no privilege; what follows needs CAP_NET_ADMIN.
    pub fn open() -> Result<Self> {
        Ok(Self { channel: Channel::open()? })
    }

    /// Masquerades `addresses` as `what` says, whatever stood there before. An element of another owner
    /// is replaced, in whichever network, unless `lives` says of its comment that the owner does:
    /// that is [`Kind::Conflict`].
    pub fn masquerade(
        &mut self,
        what: &Masquerade,
        addresses: &[IpAddr],
        owner: &Owner,
        lives: &dyn Fn(&str) -> bool,
    ) -> Result<()> {
        let own = comment(owner);
        let theirs = |held: &str| held != own && lives(held);
        self.ensure(&what.layout(), &what.elements(addresses), addresses, &own, &theirs)
    }

    /// Takes the masquerade of `addresses` back, where it is `owner`'s. What is not there is done.
    pub fn unmasquerade(&mut self, addresses: &[IpAddr], owner: &Owner) -> Result<()> {
        if addresses.is_empty() {
            return Ok(());
        }
        let sets = self.sets(Family::Inet)?;
        let places = |a: &IpAddr| {
            let address = *a;
            let fits = sets.iter().filter(move |s| s.starts_with(layout::prefix(address)));
            fits.map(move |s| Element::address(s.clone(), address))
        };
        let elements: Vec<Element> = addresses.iter().flat_map(places).collect();
        self.remove(&elements, &comment(owner))
    }

    /// The addresses whose elements name `owner`. Reads every element: for when the records are lost.
    pub fn masqueraded_by(&mut self, owner: &Owner) -> Result<Vec<IpAddr>> {
        let comment = comment(owner);
        let mut addresses: Vec<IpAddr> =
            self.owners()?.into_iter().filter(|(c, _)| *c == comment).map(|(_, a)| a).collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    }

    /// Every masqueraded address with its element's comment (see [`comment`]). Reads every element.
    pub fn owners(&mut self) -> Result<Vec<(String, IpAddr)>> {
        let mut all = Vec::new();
        for set in self.sets(Family::Inet)?.iter().filter(|s| layout::chain_of(s).is_some()) {
            let held = self.channel.list(&Question::Elements(Family::Inet, set), Held::read)?;
            all.extend(held.into_iter().filter_map(|h| Some((h.comment.clone(), h.address()?))));
        }
        Ok(all)
    }

    /// Removes the chains and sets of networks that have no pods left. Whatever changes meanwhile
    /// stops it, since a pod may be on its way in: then the next call does it.
    pub fn tidy(&mut self) -> Result<()> {
        let generation = self.channel.generation()?;
        let used: Vec<String> = self.sets_with_elements()?;
        let sets = self.sets(Family::Inet)?;
        let chains: Vec<(String, &String)> = sets
            .iter()
            .filter_map(|s| Some((layout::chain_of(s)?, s)))
            .filter(|(c, _)| !used.contains(c))
            .collect();
        let mut operations = Vec::new();
        let found = self.channel.list(&Question::Rules(Family::Inet), HeldRule::read)?;
        for (chain, _) in &chains {
            let again = operations.iter().any(|o| matches!(o, Operation::DropChain(_, c) if c == chain));
            if !again && found.iter().any(|r| r.chain == *chain) {
                operations.push(Operation::DropChain(Family::Inet, chain));
            }
        }
        operations.extend(chains.iter().map(|(_, set)| Operation::DropSet(Family::Inet, set)));
        match self.channel.commit(&operations, End::CommitAt(generation)) {
            Err(refusal) if refusal.errno == libc::ERESTART => Ok(()),
            Err(refusal) => Err(refusal.error),
            Ok(()) => Ok(()),
        }
    }

    /// The chains whose sets hold an element.
    fn sets_with_elements(&mut self) -> Result<Vec<String>> {
        let mut used = Vec::new();
        for set in self.sets(Family::Inet)? {
            let Some(chain) = layout::chain_of(&set) else { continue };
            let held = self.channel.list(&Question::Elements(Family::Inet, &set), Held::read)?;
            if !held.is_empty() {
                used.push(chain);
            }
        }
        Ok(used)
    }

    /// Makes `elements` stand, with the chain, sets and rules that give them their meaning.
    fn ensure(
        &mut self,
        layout: &Layout,
        elements: &[Element],
        addresses: &[IpAddr],
        comment: &str,
        theirs: &dyn Fn(&str) -> bool,
    ) -> Result<()> {
        let mut in_the_way = InTheWay::default();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let found = self.channel.list(&Question::Rules(layout.family), HeldRule::read)?;
            let stale = self.stale(layout, &found, elements, addresses, in_the_way.elements)?;
            if let Some((place, held)) = stale.iter().find(|(_, held)| theirs(held)) {
                let what = format!("masquerade the address in {place}, which the attachment `{held}` has");
                return Err(Error::new(Kind::Conflict, what).hint("give each pod an address of its own"));
            }
            let mut operations = Vec::new();
            if in_the_way.chain || in_the_way.sets || !layout.stands_in(&found) {
                make(layout, in_the_way, &mut operations);
            }
            operations.extend(stale.iter().map(|(place, _)| Operation::DropElement(place)));
            operations.extend(elements.iter().map(|e| Operation::AddElement(e, comment)));
            let Err(refusal) = self.channel.commit(&operations, End::Commit) else { return Ok(()) };
            if attempt == ATTEMPTS || !in_the_way.learn(&refusal, &operations) {
                return Err(refusal.error);
            }
        }
    }

    /// What holds our keys already: in other networks' sets, where a pod that vanished left them, and,
    /// once the kernel said that they are there, in our own.
    fn stale(
        &mut self,
        layout: &Layout,
        found: &[HeldRule],
        elements: &[Element],
        addresses: &[IpAddr],
        ours: bool,
    ) -> Result<Vec<(Element, String)>> {
        let mut others: Vec<&str> = found
            .iter()
            .filter(|r| r.chain != layout.chain)
            .filter_map(|r| layout::of_chain(&r.chain))
            .collect();
        others.dedup();
        let elsewhere = |a: &IpAddr| {
            let address = *a;
            let set = move |name: &&str| format!("{}{name}", layout::prefix(address));
            others.iter().map(set).map(move |s| Element::address(s, address))
        };
        let mut places: Vec<Element> = addresses.iter().flat_map(elsewhere).collect();
        if ours {
            places.extend(elements.iter().cloned());
        }
        let held = self.held(&places)?;
        Ok(places.into_iter().zip(held).filter_map(|(e, h)| h.map(|h| (e, h.comment))).collect())
    }

    /// Removes those of `elements` that carry `comment`.
    fn remove(&mut self, elements: &[Element], comment: &str) -> Result<()> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let held = self.held(elements)?;
            let ours =
                elements.iter().zip(held).filter(|(_, h)| h.as_ref().is_some_and(|h| h.comment == comment));
            let operations: Vec<Operation> = ours.map(|(e, _)| Operation::DropElement(e)).collect();
            match self.channel.commit(&operations, End::Commit) {
                Ok(()) => return Ok(()),
                Err(refusal) if refusal.errno == libc::ENOENT && attempt < ATTEMPTS => {}
                Err(refusal) => return Err(refusal.error),
            }
        }
    }

    /// What the kernel holds in each of these places, asked for one by one and not by a dump.
    fn held(&mut self, elements: &[Element]) -> Result<Vec<Option<Held>>> {
        let questions: Vec<Question> = elements.iter().map(Question::Element).collect();
        self.channel.ask(&questions, |attributes| {
            let mut all = Vec::new();
            Held::read(attributes, &mut all);
            all.pop()
        })
    }

    fn sets(&mut self, family: Family) -> Result<Vec<String>> {
        self.channel.list(&Question::Sets(family), |attributes, all| {
            let name = SetAttrs::new(attributes).get_name();
            all.extend(name.map(|n| n.to_string_lossy().into_owned()));
        })
    }
}

impl AsFd for Nft {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// Appends what makes the chain from whatever stands there. Table, chain and sets are made where they
/// are not; rules are flushed first, so that of two processes at once the second leaves no double.
fn make<'a>(layout: &'a Layout, in_the_way: InTheWay, operations: &mut Vec<Operation<'a>>) {
    operations.push(Operation::AddTable(layout.family));
    if in_the_way.chain {
        operations.push(Operation::DropChain(layout.family, &layout.chain));
    }
    operations.extend([Operation::AddChain(layout), Operation::Flush(layout)]);
    for set in &layout.sets {
        if in_the_way.sets {
            // Made first where it is not there, since removing it then would be refused.
            operations.push(Operation::DropSet(layout.family, &set.name));
        }
        operations.push(Operation::AddSet(layout.family, set));
    }
    operations.extend((0..layout.rules.len()).map(|index| Operation::AddRule(layout, index)));
}
