//! nf_tables over netlink, in the network namespace of the thread that opens the socket: what pods get in
//! `table inet nodeplug`, and the MAC check of bridge ports in `table bridge nodeplug`.
//!
//! Settings that pods share have one layout: chains of their own at the hooks, and the sets and maps that
//! these look up. Made once, re-made when anything of it is missing or different. A pod is a few elements,
//! with its owner as their comment: cost does not grow with pods. (A map from address to verdict would make
//! the kernel walk all its elements for loops at each change: `nft_chain_validate`.) All that a pod gets is
//! one transaction, which leaves the same chains whoever else does the same.
//!
//! What it does not: decide who gets what, remember it, or touch other tables beyond what `host` puts in
//! and `reference` takes out.

mod channel;
mod check;
mod droppers;
mod element;
mod expression;
mod filter;
mod firewall;
mod found;
mod host;
mod layout;
mod masquerade;
mod operation;
mod ports;
mod reference;
mod rule;
mod spoof;

use std::os::fd::{AsFd, BorrowedFd};

use netlink_bindings::nftables::SetAttrs;
use node::{Error, Kind, Result};

use self::channel::{Channel, End, Refusal};
use self::element::{Element, Held};
use self::layout::{Family, Layout};
use self::operation::{Operation, Question};
use self::rule::HeldRule;

pub use self::droppers::Dropper;
pub use self::element::comment;
pub use self::filter::{Filter, Trace};
pub use self::firewall::{Ingress, Passage};
pub use self::found::Found;
pub use self::host::MARK;
pub use self::layout::TABLE;
pub use self::masquerade::Masquerade;
pub use self::ports::{Forward, PortRules};

/// How often a change is tried anew after another process was faster, or after something stood in the way:
/// the kernel names one thing at a time.
const ATTEMPTS: usize = 20;

/// One nfnetlink socket. Closing it waits while the kernel frees what it removed before, a matter of
/// milliseconds: who is in a hurry leaves a duplicate of the descriptor to a child.
#[derive(Debug)]
pub struct Nft {
    channel: Channel,
}

/// What has to be taken away first, because it stands in the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct InTheWay {
    chains: Vec<String>,
    sets: Vec<String>,
    elements: bool,
    /// Whether it was taken away once, or by somebody else: then it is not why the kernel refuses.
    gone: bool,
}

impl InTheWay {
    /// What the refusal teaches; false where trying again cannot help.
    fn learn(&mut self, refusal: &Refusal, operations: &[Operation]) -> bool {
        let known = self.clone();
        match (refusal.at.and_then(|n| operations.get(n)), refusal.errno) {
            // Removed since the look, or put there since: look again.
            (Some(Operation::AddElement(..) | Operation::DropElement(_)), libc::ENOENT) => return true,
            (Some(Operation::AddElement(..)), libc::EEXIST | libc::EBUSY) => {
                self.elements = true;
                return true;
            }
            // A chain of another hook, or of none.
            (Some(Operation::AddChain(_, chain)), libc::EEXIST | libc::EOPNOTSUPP) => self.chain(&chain.name),
            // A chain that should have no hook has one, and cannot be called.
            (Some(Operation::AddRule(_, chain, index)), libc::EOPNOTSUPP) => {
                let called = chain.rules.get(*index).and_then(|r| r.calls());
                if let Some(name) = called {
                    self.chain(name);
                }
            }
            (Some(Operation::AddSet(_, set)), libc::EEXIST) if !self.gone => self.sets.push(set.name.clone()),
            (
                Some(Operation::DropChain(..) | Operation::DropSet(..) | Operation::Flush(..)),
                libc::ENOENT,
            ) => {
                *self = Self { gone: true, ..Self::default() };
            }
            _ => {}
        }
        known != *self
    }

    fn chain(&mut self, name: &str) {
        if !self.gone && !self.chains.iter().any(|c| c == name) {
            self.chains.push(name.to_owned());
        }
    }

    /// Whether anything of the layout is in the way, so that it cannot stand.
    fn is_of(&self, layout: &Layout) -> bool {
        layout.chains.iter().any(|c| self.chains.contains(&c.name))
            || layout.sets.iter().any(|s| self.sets.contains(&s.name))
    }
}

impl Nft {
    /// A socket in the current network namespace. Needs no privilege; what follows needs CAP_NET_ADMIN.
    pub fn open() -> Result<Self> {
        Ok(Self { channel: Channel::open()? })
    }

    /// Removes the chains and sets of settings that no pod has any more. Whatever changes meanwhile
    /// stops it, since a pod may be on its way in: then the next call does it.
    pub fn tidy(&mut self) -> Result<()> {
        let family = Family::Inet;
        let generation = self.channel.generation()?;
        let bridges = self.forget_bridges()?;
        let (mut used, mut unused) = (Vec::new(), Vec::new());
        for set in self.sets(family)? {
            let Some(layout) = filter::layout_of(&set).map(str::to_owned) else { continue };
            let held = self.channel.list(&Question::Elements(family, &set), Held::read)?;
            if !held.is_empty() {
                used.push(layout.clone());
            }
            unused.push((layout, set));
        }
        unused.retain(|(layout, _)| !used.contains(layout));
        let found = self.channel.list(&Question::Rules(family), HeldRule::read)?;
        let mut chains: Vec<&str> = found.iter().map(|r| r.chain.as_str()).collect();
        chains.dedup();
        chains.retain(|c| filter::layout_of(c).is_some_and(|l| unused.iter().any(|(other, _)| l == other)));
        let flush = chains.iter().map(|chain| Operation::Flush(family, chain));
        let drop_chain = chains.iter().map(|chain| Operation::DropChain(family, chain));
        let drop_set = unused.iter().map(|(_, set)| Operation::DropSet(family, set));
        let drop_bridge = bridges.iter().map(Operation::DropElement);
        let operations: Vec<Operation> = flush.chain(drop_chain).chain(drop_set).chain(drop_bridge).collect();
        match self.channel.commit(&operations, End::CommitAt(generation)) {
            Err(refusal) if refusal.errno == libc::ERESTART => Ok(()),
            Err(refusal) => Err(refusal.error),
            Ok(()) => Ok(()),
        }
    }

    /// Makes `elements` stand, with the layouts that give them their meaning, in one transaction.
    /// `elsewhere` says from the rules found where else the same keys may be held; who holds them goes,
    /// unless it is `theirs` by its comment: that is [`Kind::Conflict`].
    fn ensure(
        &mut self,
        layouts: &[Layout],
        elements: &[Element],
        elsewhere: &dyn Fn(&[HeldRule]) -> Vec<Element>,
        comment: &str,
        theirs: &dyn Fn(&str) -> bool,
    ) -> Result<()> {
        let Some(family) = layouts.first().map(|l| l.family) else { return Ok(()) };
        let mut in_the_way = InTheWay::default();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let found = self.channel.list(&Question::Rules(family), HeldRule::read)?;
            // Once the kernel said that our keys are there already, they are looked at, too.
            let ours = elements.iter().filter(|e| in_the_way.elements && !e.shared).cloned();
            let stale = self.there(elsewhere(&found).into_iter().chain(ours).collect())?;
            if let Some((place, held)) = stale.iter().find(|(_, held)| theirs(held)) {
                return Err(taken(place, held));
            }
            let mut operations = Vec::new();
            for layout in layouts.iter().filter(|l| in_the_way.is_of(l) || !l.stands_in(&found)) {
                make(layout, &in_the_way, &mut operations);
            }
            operations.extend(stale.iter().map(|(place, _)| Operation::DropElement(place)));
            operations.extend(elements.iter().map(|e| Operation::AddElement(e, comment)));
            let Err(refusal) = self.channel.commit(&operations, End::Commit) else { return Ok(()) };
            if attempt == ATTEMPTS || !in_the_way.learn(&refusal, &operations) {
                return Err(refusal.error);
            }
        }
    }

    /// Which of these places are held, and by whom.
    fn there(&mut self, places: Vec<Element>) -> Result<Vec<(Element, String)>> {
        let held = self.held(&places)?;
        Ok(places.into_iter().zip(held).filter_map(|(e, h)| h.map(|h| (e, h.comment))).collect())
    }

    /// Removes those of `elements` that carry `comment`, in one transaction.
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

fn taken(place: &Element, held: &str) -> Box<Error> {
    let what = format!("put {place}, which the attachment `{held}` has");
    Error::new(Kind::Conflict, what).hint(place.hint)
}

/// Appends what makes the layout from whatever stands there. Table, chains and sets are made where they
/// are not; rules are flushed first, so that of two processes at once the second leaves no double, and
/// that nothing in the way is still in use.
fn make<'a>(layout: &'a Layout, in_the_way: &InTheWay, operations: &mut Vec<Operation<'a>>) {
    let family = layout.family;
    operations.push(Operation::AddTable(family));
    let blocked = |name: &String| in_the_way.chains.contains(name);
    for chain in &layout.chains {
        if !blocked(&chain.name) {
            operations.push(Operation::AddChain(family, chain));
        }
        if !chain.free {
            operations.push(Operation::Flush(family, &chain.name));
        }
    }
    for chain in layout.chains.iter().filter(|c| blocked(&c.name)) {
        operations.extend([Operation::DropChain(family, &chain.name), Operation::AddChain(family, chain)]);
    }
    for set in &layout.sets {
        if in_the_way.sets.contains(&set.name) {
            operations.push(Operation::DropSet(family, &set.name));
        }
        operations.push(Operation::AddSet(family, set));
    }
    for chain in layout.chains.iter().filter(|c| !c.free) {
        operations.extend((0..chain.rules.len()).map(|index| Operation::AddRule(family, chain, index)));
    }
}
