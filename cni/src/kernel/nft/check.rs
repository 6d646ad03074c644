//! CHECK and STATUS: what of our ruleset is missing or different, and whether nf_tables can be used.

use std::net::IpAddr;

use netlink_bindings::nftables::{ChainAttrs, IterableChainAttrs, SetAttrs, TableAttrs, TableFlags};
use node::Result;

use crate::owner::Owner;

use super::channel::End;
use super::element::{Element, comment};
use super::layout::{Family, Hook, Layout, Masquerade, Set};
use super::operation::Question;
use super::rule::HeldRule;
use super::{InTheWay, Nft, make};

const ACCEPT: u32 = 1;

impl Nft {
    /// What is missing or different of the masquerade of `addresses`, one line for each thing; no line
    /// means that it stands as [`Nft::masquerade`] made it.
    pub fn missing(&mut self, what: &Masquerade, addresses: &[IpAddr], owner: &Owner) -> Result<Vec<String>> {
        let layout = what.layout();
        let mut lines = missing(self, &layout, &what.elements(addresses), &comment(owner))?;
        let found = self.channel.list(&Question::Rules(Family::Inet), HeldRule::read)?;
        let strays = self.stale(&layout, &found, &[], addresses, false)?;
        lines.extend(
            strays.iter().map(|(s, _)| format!("{s} belongs to another network or to older settings")),
        );
        Ok(lines)
    }

    /// Whether our table for masquerade is there.
    pub fn has_table(&mut self) -> Result<bool> {
        Ok(self.table(Family::Inet)?.is_some())
    }

    /// Whether pods can be masqueraded here: that nf_tables answers to us, and that it has what our
    /// rules need. Where rules of ours stand, they prove it; otherwise the kernel is given all of them
    /// in a transaction that it only checks, so that the ruleset stays as it is.
    pub fn usable(&mut self) -> Result<()> {
        let found = self.channel.list(&Question::Rules(Family::Inet), HeldRule::read)?;
        if found.iter().any(|r| super::layout::of_chain(&r.chain).is_some()) {
            return Ok(());
        }
        provable(self, &Masquerade { network: "probe".to_owned(), keep: Vec::new() }.layout())
    }

    /// The flags of our table in `family`.
    fn table(&mut self, family: Family) -> Result<Option<u32>> {
        let flags = |attributes: &[u8]| TableAttrs::new(attributes).get_flags().ok();
        Ok(self.channel.ask(&[Question::Table(family)], flags)?.pop().flatten())
    }
}

/// Whether the kernel would take the layout, where it does not stand already.
pub(super) fn provable(nft: &mut Nft, layout: &Layout) -> Result<()> {
    let found = nft.channel.list(&Question::Rules(layout.family), HeldRule::read)?;
    if layout.stands_in(&found) {
        return Ok(());
    }
    let mut operations = Vec::new();
    make(layout, InTheWay::default(), &mut operations);
    nft.channel.commit(&operations, End::Check).map_err(|refusal| refusal.error)
}

/// What is missing or different of a chain with its sets and rules, and of these elements.
pub(super) fn missing(
    nft: &mut Nft,
    layout: &Layout,
    elements: &[Element],
    comment: &str,
) -> Result<Vec<String>> {
    let family = layout.family;
    let Some(flags) = nft.table(family)? else { return Ok(vec![format!("the table {family} is missing")]) };
    let mut lines = Vec::new();
    if flags & TableFlags::Dormant as u32 != 0 {
        lines.push(format!("the table {family} is dormant"));
    }
    let chain =
        nft.channel.ask(&[Question::Chain(family, &layout.chain)], |a| Some(is_chain(a, &layout.hook)))?;
    lines.extend(told(chain.first().copied().flatten(), &format!("the chain `{}`", layout.chain)));
    for set in &layout.sets {
        let held = nft.channel.ask(&[Question::Set(family, &set.name)], |a| Some(is_set(a, set)))?;
        lines.extend(told(held.first().copied().flatten(), &format!("the set `{}`", set.name)));
    }
    let found = nft.channel.list(&Question::Rules(family), HeldRule::read)?;
    lines.extend(missing_rules(layout, &found));
    for (element, held) in elements.iter().zip(nft.held(elements)?) {
        match held {
            None => lines.push(format!("{element} is missing")),
            Some(held) if held.comment != comment => {
                lines.push(format!("{element} belongs to `{}`", held.comment));
            }
            Some(_) => {}
        }
    }
    Ok(lines)
}

fn missing_rules(layout: &Layout, found: &[HeldRule]) -> Vec<String> {
    let held: Vec<&HeldRule> = found.iter().filter(|r| r.chain == layout.chain).collect();
    let gone = layout.rules.iter().filter(|r| !held.iter().any(|h| r.is(h)));
    let mut lines: Vec<String> =
        gone.map(|r| format!("the rule `{}` of the chain `{}` is missing", r.text, layout.chain)).collect();
    if held.len() > layout.rules.len() {
        let (has, should) = (held.len(), layout.rules.len());
        lines.push(format!("the chain `{}` has {has} rules instead of {should}", layout.chain));
    } else if lines.is_empty() && !layout.stands_in(found) {
        lines.push(format!("the rules of the chain `{}` are in another order", layout.chain));
    }
    lines
}

fn told(held: Option<bool>, thing: &str) -> Option<String> {
    match held {
        None => Some(format!("{thing} is missing")),
        Some(false) => Some(format!("{thing} is of another kind")),
        Some(true) => None,
    }
}

fn is_chain(attributes: &[u8], hook: &Hook) -> bool {
    let chain: IterableChainAttrs = ChainAttrs::new(attributes);
    let kind = chain.get_type().is_ok_and(|k| k.to_bytes() == hook.kind.as_bytes());
    let place = chain.get_hook().is_ok_and(|h| {
        h.get_num().is_ok_and(|n| n == hook.number) && h.get_priority().is_ok_and(|p| p == hook.priority)
    });
    kind && place && chain.get_policy().is_ok_and(|p| p == ACCEPT)
}

fn is_set(attributes: &[u8], set: &Set) -> bool {
    let held = SetAttrs::new(attributes);
    held.get_key_type().is_ok_and(|k| k == set.keys.kind)
        && held.get_key_len().is_ok_and(|w| w == set.keys.width)
        && held.get_flags().unwrap_or_default() == 0
}

/// What STATUS asks of the kernel is what ADD would: the operations are the same.
#[cfg(test)]
mod tests {
    use super::super::operation::Operation;
    use super::*;

    #[test]
    fn a_probe_makes_everything_that_a_masquerade_would() {
        let layout = Masquerade { network: "probe".into(), keep: Vec::new() }.layout();
        let mut operations = Vec::new();
        make(&layout, InTheWay::default(), &mut operations);
        let lines: Vec<String> = operations.iter().map(Operation::to_string).collect();
        assert_eq!(lines.first().unwrap(), "add the table `inet nodeplug`");
        assert_eq!(lines.len(), 5 + layout.rules.len());
    }
}
