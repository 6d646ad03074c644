//! The host's own forward chains: which of them drop what nobody accepts, and the one rule in each that
//! lets the pods' packets by. A packet that one base chain accepts may still be dropped by the next
//! (nft(8), "VERDICT STATEMENTS"), so the rule has to stand in the chain that drops.
//!
//! The packets carry [`MARK`] between our chains before and after those of the host, so one rule is
//! enough for all pods. It is put in where it is missing, nothing of it belongs to a pod, and no rule
//! of the host is changed or removed.

use std::fmt;

use netlink_bindings::nftables::{ChainAttrs, IterableChainAttrs, RuleAttrs};
use netlink_bindings::utils::{IterableChunks, find_attr};
use node::{Error, Kind, Result};

use super::Nft;
use super::channel::{End, Refusal};
use super::expression::says;
use super::layout::{Family, TABLE};
use super::operation::{Operation, Question};
use super::rule::Rule;

/// The bit of a packet's mark that says that the pods' rules accept it: bit 12. kube-proxy has 14 and 15,
/// portmap 13.
pub const MARK: u32 = 0x1000;

/// The priorities between which the mark stands: after `mangle`, and after all that filters.
pub(super) const MARKED: (i32, i32) = (-140, 200);

/// iptables' names.
pub(super) const FILTER: &str = "filter";
const FORWARD: &str = "FORWARD";
/// The chain of the reference's firewall plugin, whose place and comments its own look-up expects.
pub(super) const CNI_FORWARD: &str = "CNI-FORWARD";
pub(super) const PLUGIN_RULES: &str = "CNI firewall plugin rules";
const ADMIN_RULES: &str = "CNI firewall plugin admin overrides";
/// Where the reference drops between bridges: before anything is accepted.
const ISOLATION: &str = "CNI-ISOLATION-STAGE-1";

/// How often a change is tried anew because somebody else changed the ruleset meanwhile.
pub(super) const ATTEMPTS: usize = 100;

pub(super) const FAMILIES: [Family; 3] = [Family::Ip, Family::Ip6, Family::Inet];
const DROP: u32 = libc::NF_DROP.unsigned_abs();
const ACCEPT: u32 = libc::NF_ACCEPT.unsigned_abs();
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const IMMEDIATE_DATA: u16 = 2;
const MATCH_NAME: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;

/// A chain of the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub family: Family,
    pub table: String,
    pub chain: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the chain `{}` of `{} {}`", self.chain, self.family.word(), self.table)
    }
}

/// What the host's ruleset lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lack {
    Chain(Place),
    /// A rule: behind the one with this handle, or before all others.
    Rule {
        place: Place,
        after: Option<u64>,
        rule: Wanted,
    },
}

/// A rule that we put into a chain of the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// On to another chain, with the comment by which the reference finds it.
    Jump(String, &'static str),
    /// Accepts what carries [`MARK`].
    Accept,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(place) => write!(f, "add {place}"),
            Self::Rule { place, rule: Wanted::Jump(to, _), .. } => write!(f, "jump from {place} to `{to}`"),
            Self::Rule { place, rule: Wanted::Accept, .. } => {
                write!(f, "let the pods' packets through {place}")
            }
        }
    }
}

impl Lack {
    /// The sentence for CHECK and STATUS.
    fn told(&self) -> String {
        match self {
            Self::Chain(place) => format!("{place} is missing"),
            Self::Rule { place, rule: Wanted::Jump(to, _), .. } => {
                format!("the jump from {place} to `{to}` is missing")
            }
            Self::Rule { place, rule: Wanted::Accept, .. } => {
                format!("the rule that lets the pods' packets through {place} is missing")
            }
        }
    }

    pub fn place(&self) -> &Place {
        match self {
            Self::Chain(place) | Self::Rule { place, .. } => place,
        }
    }
}

impl Wanted {
    pub fn comment(&self) -> &'static str {
        match self {
            Self::Jump(_, comment) => comment,
            Self::Accept => TABLE,
        }
    }

    /// In words that iptables-nft knows: it refuses to list a table with a rule that it cannot read (a
    /// look-up in a set would be one).
    pub fn rule(&self) -> Rule {
        match self {
            Self::Jump(to, _) => Rule::new().jump(to),
            Self::Accept => Rule::new().marked(MARK).accept(),
        }
    }

    /// Whether `held` is this rule, also as iptables writes it when it restores what it saved, or as the
    /// reference's plugin has it.
    pub fn is(&self, held: &HeldHostRule) -> bool {
        let mut ours = Vec::with_capacity(256);
        self.rule().encode(&mut ours);
        let (ours, theirs) = (expressions(&ours), held.essential());
        ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| says(a, b))
    }
}

/// A rule of the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HeldHostRule {
    pub chain: String,
    pub handle: u64,
    expressions: Vec<u8>,
}

impl HeldHostRule {
    pub fn read(attributes: &[u8], all: &mut Vec<Self>) {
        let mut rule = Self::default();
        for attribute in RuleAttrs::new(attributes) {
            match attribute {
                Ok(RuleAttrs::Chain(chain)) => rule.chain = chain.to_string_lossy().into_owned(),
                Ok(RuleAttrs::Handle(handle)) => rule.handle = handle,
                Ok(RuleAttrs::Expressions(list)) => rule.expressions = list.get_buf().to_vec(),
                _ => {}
            }
        }
        all.push(rule);
    }

    /// Its expressions without those that only count and tell.
    pub fn essential(&self) -> Vec<&[u8]> {
        let mut all = expressions(&self.expressions);
        all.retain(|e| !matches!(name_of(e), b"counter" | b"log") && !is_comment(e));
        all
    }

    /// The code and the chain of the verdict that it ends in.
    pub fn verdict(&self) -> Option<(u32, Option<Vec<u8>>)> {
        let last = self.essential().pop().filter(|e| name_of(e) == b"immediate")?;
        let verdict = find_attr(last, EXPR_DATA).and_then(|d| find_attr(d, IMMEDIATE_DATA));
        let verdict = verdict.and_then(|d| find_attr(d, DATA_VERDICT))?;
        let code = find_attr(verdict, VERDICT_CODE)?.try_into().ok().map(u32::from_be_bytes)?;
        let chain = find_attr(verdict, VERDICT_CHAIN);
        Some((code, chain.map(|c| c.strip_suffix(&[0]).unwrap_or(c).to_vec())))
    }

    /// Whether nothing passes it.
    pub fn stops_all(&self) -> bool {
        match self.essential().as_slice() {
            [one] if name_of(one) == b"reject" => true,
            [_] => self.verdict() == Some((DROP, None)),
            _ => false,
        }
    }

    /// Whether some packet may be accepted by it: what accepts answers to packets that went out before is not
    /// meant, since no first packet passes it.
    pub fn may_accept(&self) -> bool {
        let accepts = self.verdict().is_some_and(|(code, to)| code == ACCEPT || to.is_some());
        let answers = self.essential().iter().any(|e| name_of(e) == b"ct");
        accepts && !answers
    }

    pub fn jumps_to(&self, chain: &str) -> bool {
        self.verdict().is_some_and(|(_, to)| to.as_deref() == Some(chain.as_bytes()))
    }
}

/// The items of a list of expressions.
fn expressions(list: &[u8]) -> Vec<&[u8]> {
    IterableChunks::new(list).map(|(_, item)| item).collect()
}

pub(super) fn name_of(expression: &[u8]) -> &[u8] {
    let name = find_attr(expression, EXPR_NAME).unwrap_or_default();
    name.strip_suffix(&[0]).unwrap_or(name)
}

/// A comment that is an extension of iptables, which looks at no packet.
fn is_comment(expression: &[u8]) -> bool {
    let data = find_attr(expression, EXPR_DATA).filter(|_| name_of(expression) == b"match");
    data.and_then(|d| find_attr(d, MATCH_NAME)).is_some_and(|name| name == b"comment\0")
}

/// A base chain at the forward hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub place: Place,
    pub drops: bool,
}

impl Base {
    fn read(family: Family, attributes: &[u8]) -> Option<Self> {
        let chain: IterableChainAttrs = ChainAttrs::new(attributes);
        let hook = chain.get_hook().ok()?;
        let forward = hook.get_num().ok()? == libc::NF_INET_FORWARD.unsigned_abs();
        let priority = hook.get_priority().ok()?;
        let between = priority > MARKED.0 && priority < MARKED.1;
        let table = chain.get_table().ok()?.to_string_lossy().into_owned();
        let name = chain.get_name().ok()?.to_string_lossy().into_owned();
        (forward && between && table != TABLE).then(|| Self {
            place: Place { family, table, chain: name },
            drops: chain.get_policy().is_ok_and(|p| p == DROP),
        })
    }

    /// Whether it is iptables', whose user may expect chains of the reference's names in it.
    pub fn is_iptables(&self) -> bool {
        let ip = matches!(self.place.family, Family::Ip | Family::Ip6);
        ip && self.place.table == FILTER && self.place.chain == FORWARD
    }
}

impl Nft {
    /// The base chains of a family that [`MARK`] passes.
    pub(super) fn forward_chains(&mut self, family: Family) -> Result<Vec<Base>> {
        self.channel.list(&Question::Chains(family), |attributes, all| {
            all.extend(Base::read(family, attributes));
        })
    }

    /// Lets what carries [`MARK`] through every forward chain of the host that drops. `admin` is the name of
    /// the operator's chain, which goes first in iptables' tables.
    pub(super) fn open_host(&mut self, admin: &str) -> Result<()> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let generation = self.channel.generation()?;
            let lacks = self.host_lacks(admin)?;
            let operations: Vec<Operation> = lacks.iter().map(Operation::Host).collect();
            // Two at once would otherwise both put the rule in.
            let end = if attempt < ATTEMPTS { End::CommitAt(generation) } else { End::Commit };
            match self.channel.commit(&operations, end) {
                Ok(()) => return Ok(()),
                Err(refusal) if refusal.errno == libc::ERESTART && attempt < ATTEMPTS => {}
                Err(refusal) => return Err(explained(refusal, &lacks)),
            }
        }
    }

    /// What [`Nft::open_host`] would have to put in, one line for each thing.
    pub(super) fn host_missing(&mut self, admin: &str) -> Result<Vec<String>> {
        Ok(self.host_lacks(admin)?.iter().map(Lack::told).collect())
    }

    fn host_lacks(&mut self, admin: &str) -> Result<Vec<Lack>> {
        let mut lacks = Vec::new();
        for family in FAMILIES {
            for base in self.forward_chains(family)? {
                let rules = self.rules_of(&base.place)?;
                if base.is_iptables() {
                    lacks.extend(self.iptables_lacks(&base.place, &rules, admin)?);
                } else if base.drops || rules.last().is_some_and(HeldHostRule::stops_all) {
                    let there = rules.iter().any(|r| Wanted::Accept.is(r));
                    let lack = Lack::Rule { place: base.place, after: None, rule: Wanted::Accept };
                    lacks.extend((!there).then_some(lack));
                }
            }
        }
        Ok(lacks)
    }

    /// The layout of the reference's plugin: FORWARD leads to CNI-FORWARD, and that to the operator's chain
    /// before anything is accepted.
    fn iptables_lacks(&mut self, forward: &Place, rules: &[HeldHostRule], admin: &str) -> Result<Vec<Lack>> {
        let beside = |chain: &str| Place { chain: chain.to_owned(), ..forward.clone() };
        let (own, theirs) = (beside(CNI_FORWARD), beside(admin));
        let mut lacks = Vec::new();
        for place in [&theirs, &own] {
            if !self.has_chain(place)? {
                lacks.push(Lack::Chain(place.clone()));
            }
        }
        let inside = self.rules_of(&own)?;
        // Whatever is put before all others last stands first.
        let jump = Wanted::Jump(admin.to_owned(), ADMIN_RULES);
        let admin_jump = inside.iter().find(|r| jump.is(r));
        if !inside.iter().any(|r| Wanted::Accept.is(r)) {
            let after = admin_jump.map(|r| r.handle);
            lacks.push(Lack::Rule { place: own.clone(), after, rule: Wanted::Accept });
        }
        if admin_jump.is_none() {
            lacks.push(Lack::Rule { place: own, after: None, rule: jump });
        }
        let jump = Wanted::Jump(CNI_FORWARD.to_owned(), PLUGIN_RULES);
        if !rules.iter().any(|r| jump.is(r)) {
            let after = rules.iter().find(|r| r.jumps_to(ISOLATION)).map(|r| r.handle);
            lacks.push(Lack::Rule { place: forward.clone(), after, rule: jump });
        }
        Ok(lacks)
    }

    pub(super) fn has_chain(&mut self, place: &Place) -> Result<bool> {
        Ok(self.channel.ask(&[Question::HostChain(place)], |_| Some(()))?.pop().flatten().is_some())
    }

    pub(super) fn rules_of(&mut self, place: &Place) -> Result<Vec<HeldHostRule>> {
        self.channel.list(&Question::HostRules(place), HeldHostRule::read)
    }
}

/// The kernel lets nobody change a table whose owner lives (nft(8), table flag `owner`): firewalld 2 has such.
fn explained(refusal: Refusal, lacks: &[Lack]) -> Box<Error> {
    let place = refusal.at.and_then(|at| lacks.get(at)).map(Lack::place);
    let (Some(place), libc::EPERM) = (place, refusal.errno) else { return refusal.error };
    let what = format!("let the pods' packets through {place}, whose table only its owner may change");
    let hint = if place.table.contains("firewalld") {
        "put the pods' subnets into firewalld's zone `trusted` (`firewall-cmd --permanent --zone=trusted \
         --add-source=SUBNET`), and take the firewall out of this configuration"
    } else {
        "accept the pods' subnets there, and take the firewall out of this configuration"
    };
    Error::caused(Kind::Kernel, what, refusal.error).hint(hint)
}
