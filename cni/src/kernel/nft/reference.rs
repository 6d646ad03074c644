//! What the reference's plugins left in iptables' tables for a pod, by way of iptables-nft: `bridge` and `ptp` a
//! chain that masquerades, `portmap` one that leads to the pod (each with the rules that jump there), and
//! `firewall` the rules that accept an address.
//!
//! After a swap of the binary their pods are ours to delete, and a host port that leads to a dead pod answers
//! nobody. Only a DEL that finds no record comes here. For a pod that is none of theirs this costs two questions;
//! for one of theirs the table has to be listed once, since a rule has no name to ask for.

use std::net::IpAddr;

use netlink_bindings::utils::find_attr;
use node::Result;

use super::Nft;
use super::channel::End;
use super::host::{ATTEMPTS, CNI_FORWARD, FILTER, HeldHostRule, Place, name_of};
use super::layout::Family;
use super::operation::{Operation, Question};

const NAT: &str = "nat";
const FAMILIES: [Family; 2] = [Family::Ip, Family::Ip6];
const ACCEPT: u32 = libc::NF_ACCEPT.unsigned_abs();

const EXPR_DATA: u16 = 2;
const PAYLOAD_BASE: u16 = 2;
const PAYLOAD_OFFSET: u16 = 3;
const PAYLOAD_LEN: u16 = 4;
const NETWORK_HEADER: u32 = 1;
const CMP_OP: u16 = 2;
const CMP_EQ: u32 = 0;
const CMP_DATA: u16 = 3;
const DATA_VALUE: u16 = 1;

/// Something of the reference's that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Doomed {
    Rule(Place, u64),
    /// With all that is in it.
    Chain(Place),
}

impl Doomed {
    fn operations(&self) -> impl Iterator<Item = Operation<'_>> {
        let all = match self {
            Self::Rule(place, handle) => vec![Operation::DropHostRule(place, *handle)],
            Self::Chain(place) => vec![Operation::FlushHost(place), Operation::DropHostChain(place)],
        };
        all.into_iter()
    }
}

impl Nft {
    /// Removes these chains of iptables' table `nat`, IPv4 and IPv6, with what jumps to them.
    pub fn remove_chains_of_reference(&mut self, chains: &[String]) -> Result<()> {
        self.remove_of_reference(|nft| nft.chains_of_reference(chains))
    }

    /// Removes the rules by which the reference's firewall accepts these addresses.
    pub fn remove_accepts_of_reference(&mut self, addresses: &[IpAddr]) -> Result<()> {
        self.remove_of_reference(|nft| nft.accepts_of_reference(addresses))
    }

    fn remove_of_reference(&mut self, look: impl Fn(&mut Self) -> Result<Vec<Doomed>>) -> Result<()> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let Some(generation) = no_tables(self.channel.generation())? else { return Ok(()) };
            let doomed = look(self)?;
            let operations: Vec<Operation> = doomed.iter().flat_map(Doomed::operations).collect();
            // iptables may be at work: what it has put in since would keep the chain in use.
            match self.channel.commit(&operations, End::CommitAt(generation)) {
                Ok(()) => return Ok(()),
                // The kernel lets nobody change a table whose owner lives (nft(8), table flag `owner`), so
                // trying again would not help.
                // Nor for a chain that is in use by what only its maker can see.
                Err(refusal) if matches!(refusal.errno, libc::EPERM | libc::EBUSY) => return Ok(()),
                Err(refusal)
                    if matches!(refusal.errno, libc::ERESTART | libc::ENOENT) && attempt < ATTEMPTS => {}
                Err(refusal) => return Err(refusal.error),
            }
        }
    }

    fn chains_of_reference(&mut self, chains: &[String]) -> Result<Vec<Doomed>> {
        let place = |family, chain: &String| Place { family, table: NAT.to_owned(), chain: chain.clone() };
        let places: Vec<Place> =
            FAMILIES.iter().flat_map(|family| chains.iter().map(|chain| place(*family, chain))).collect();
        let there = self.there_of_host(&places)?;
        let mut doomed = Vec::new();
        for family in FAMILIES {
            let there: Vec<&Place> = there.iter().filter(|p| p.family == family).collect();
            if there.is_empty() {
                continue;
            }
            let rules = self.channel.list(&Question::HostTable(family, NAT), HeldHostRule::read)?;
            let jumps = rules.iter().filter(|r| there.iter().any(|p| r.jumps_to(&p.chain)));
            // The jumps first: a chain that is in use stays.
            doomed.extend(jumps.map(|r| Doomed::Rule(place(family, &r.chain), r.handle)));
            doomed.extend(there.into_iter().cloned().map(Doomed::Chain));
        }
        Ok(doomed)
    }

    fn accepts_of_reference(&mut self, addresses: &[IpAddr]) -> Result<Vec<Doomed>> {
        let mut doomed = Vec::new();
        for family in FAMILIES {
            let is_v4 = family == Family::Ip;
            let ours: Vec<&IpAddr> = addresses.iter().filter(|a| a.is_ipv4() == is_v4).collect();
            if ours.is_empty() {
                continue;
            }
            let place = Place { family, table: FILTER.to_owned(), chain: CNI_FORWARD.to_owned() };
            let rules = self.channel.list(&Question::HostRules(&place), HeldHostRule::read)?;
            let accepts = rules.iter().filter(|r| ours.iter().any(|a| accepts(r, a)));
            doomed.extend(accepts.map(|r| Doomed::Rule(place.clone(), r.handle)));
        }
        Ok(doomed)
    }

    fn there_of_host(&mut self, places: &[Place]) -> Result<Vec<Place>> {
        let questions: Vec<Question> = places.iter().map(Question::HostChain).collect();
        let answers = self.channel.ask(&questions, |_| Some(()))?;
        Ok(places.iter().zip(answers).filter_map(|(p, a)| a.map(|()| p.clone())).collect())
    }
}

/// `None` on a kernel without nf_tables, which holds nothing of anybody's: nfnetlink then knows no such subsystem.
fn no_tables(generation: Result<u32>) -> Result<Option<u32>> {
    match generation {
        Ok(generation) => Ok(Some(generation)),
        Err(e) if matches!(e.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether the rule accepts what comes from the address alone, or goes there.
fn accepts(rule: &HeldHostRule, address: &IpAddr) -> bool {
    let (wanted, offsets) = match address {
        IpAddr::V4(ip) => (ip.octets().to_vec(), [12, 16]),
        IpAddr::V6(ip) => (ip.octets().to_vec(), [8, 24]),
    };
    let all = rule.essential();
    let [payload, compare, ..] = all.as_slice() else { return false };
    let data = |expression| find_attr(expression, EXPR_DATA).unwrap_or_default();
    let number = |data, kind| find_attr(data, kind)?.try_into().ok().map(u32::from_be_bytes);
    let (loads, compares) = (data(payload), data(compare));
    let is_address = name_of(payload) == b"payload"
        && number(loads, PAYLOAD_BASE) == Some(NETWORK_HEADER)
        && number(loads, PAYLOAD_OFFSET).is_some_and(|at| offsets.contains(&at))
        && number(loads, PAYLOAD_LEN).is_some_and(|n| usize::try_from(n) == Ok(wanted.len()));
    let is_this = name_of(compare) == b"cmp"
        && number(compares, CMP_OP) == Some(CMP_EQ)
        && find_attr(compares, CMP_DATA).and_then(|d| find_attr(d, DATA_VALUE)) == Some(wanted.as_slice());
    // A rule that asks for more of the packet is an operator's own.
    let alone = all.iter().filter(|e| name_of(e) == b"payload").count() == 1;
    is_address && is_this && alone && rule.verdict() == Some((ACCEPT, None))
}
