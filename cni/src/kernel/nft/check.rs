//! CHECK and STATUS: what of our ruleset is missing or different, and whether nf_tables can be used.

use netlink_bindings::nftables::{ChainAttrs, IterableChainAttrs, SetAttrs, TableAttrs, TableFlags};
use node::Result;

use super::channel::End;
use super::element::Element;
use super::layout::{Chain, Family, Layout, Set};
use super::operation::Question;
use super::rule::HeldRule;
use super::{InTheWay, Nft, make};

const ACCEPT: u32 = 1;

impl Nft {
    /// Whether our table for what pods get is there.
    pub fn has_table(&mut self) -> Result<bool> {
        Ok(self.table(Family::Inet)?.is_some())
    }

    /// The flags of our table in `family`.
    fn table(&mut self, family: Family) -> Result<Option<u32>> {
        let flags = |attributes: &[u8]| TableAttrs::new(attributes).get_flags().ok();
        Ok(self.channel.ask(&[Question::Table(family)], flags)?.pop().flatten())
    }
}

/// Whether the kernel would take the layout, where none of its kind stands already.
pub(super) fn provable(nft: &mut Nft, layout: &Layout) -> Result<()> {
    let found = nft.channel.list(&Question::Rules(layout.family), HeldRule::read)?;
    if found.iter().any(|r| r.chain.starts_with(layout.kind)) {
        return Ok(());
    }
    let mut operations = Vec::new();
    make(layout, &InTheWay::default(), &mut operations);
    nft.channel.commit(&operations, End::Check).map_err(|refusal| refusal.error)
}

/// What is missing or different of the layouts, which are of one family, and of these elements.
pub(super) fn missing(
    nft: &mut Nft,
    layouts: &[Layout],
    elements: &[Element],
    comment: &str,
) -> Result<Vec<String>> {
    let Some(family) = layouts.first().map(|l| l.family) else { return Ok(Vec::new()) };
    let Some(flags) = nft.table(family)? else { return Ok(vec![format!("the table {family} is missing")]) };
    let mut lines = Vec::new();
    if flags & TableFlags::Dormant as u32 != 0 {
        lines.push(format!("the table {family} is dormant"));
    }
    let found = nft.channel.list(&Question::Rules(family), HeldRule::read)?;
    for layout in layouts {
        for chain in &layout.chains {
            let held =
                nft.channel.ask(&[Question::Chain(family, &chain.name)], |a| Some(is_chain(a, chain)))?;
            lines.extend(told(held.first().copied().flatten(), &format!("the chain `{}`", chain.name)));
            lines.extend(missing_rules(chain, &found));
        }
        for set in &layout.sets {
            let held = nft.channel.ask(&[Question::Set(family, &set.name)], |a| Some(is_set(a, set)))?;
            lines.extend(told(held.first().copied().flatten(), &set.to_string()));
        }
    }
    for (element, held) in elements.iter().zip(nft.held(elements)?) {
        match held {
            None => lines.push(format!("{element} is missing")),
            Some(held) if held.comment != element.comment(comment) => {
                lines.push(format!("{element} belongs to `{}`", held.comment));
            }
            Some(held) if element.data.as_ref().is_some_and(|data| *data != held.data) => {
                lines.push(format!("{element} leads elsewhere"));
            }
            Some(_) => {}
        }
    }
    Ok(lines)
}

fn missing_rules(chain: &Chain, found: &[HeldRule]) -> Vec<String> {
    if chain.stands_in(found) {
        return Vec::new();
    }
    let held: Vec<&HeldRule> = found.iter().filter(|r| r.chain == chain.name).collect();
    let gone = chain.rules.iter().filter(|r| !held.iter().any(|h| r.is(h)));
    let mut lines: Vec<String> =
        gone.map(|r| format!("the rule `{}` of the chain `{}` is missing", r.text, chain.name)).collect();
    if held.len() > chain.rules.len() {
        let (has, should) = (held.len(), chain.rules.len());
        lines.push(format!("the chain `{}` has {has} rules instead of {should}", chain.name));
    } else if lines.is_empty() {
        lines.push(format!("the rules of the chain `{}` are in another order", chain.name));
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

fn is_chain(attributes: &[u8], wanted: &Chain) -> bool {
    let chain: IterableChainAttrs = ChainAttrs::new(attributes);
    let Some(hook) = &wanted.hook else { return chain.get_hook().is_err() };
    let kind = chain.get_type().is_ok_and(|k| k.to_bytes() == hook.kind.as_bytes());
    let place = chain.get_hook().is_ok_and(|h| {
        h.get_num().is_ok_and(|n| n == hook.number) && h.get_priority().is_ok_and(|p| p == hook.priority)
    });
    kind && place && chain.get_policy().is_ok_and(|p| p == ACCEPT)
}

fn is_set(attributes: &[u8], wanted: &Set) -> bool {
    let held = SetAttrs::new(attributes);
    let values = match wanted.values {
        Some(values) => {
            held.get_data_type().is_ok_and(|k| k == values.kind)
                && held.get_data_len().is_ok_and(|w| w == values.width)
        }
        None => true,
    };
    held.get_key_type().is_ok_and(|k| k == wanted.keys.kind)
        && held.get_key_len().is_ok_and(|w| w == wanted.keys.width)
        && held.get_flags().unwrap_or_default() == wanted.flags()
        && values
}

/// What STATUS asks of the kernel is what ADD would: the operations are the same.
#[cfg(test)]
mod tests {
    use super::super::Masquerade;
    use super::super::operation::Operation;
    use super::*;

    #[test]
    fn a_probe_makes_everything_that_a_masquerade_would() {
        let layout = Masquerade { network: "probe".into(), keep: Vec::new() }.layout();
        let mut operations = Vec::new();
        make(&layout, &InTheWay::default(), &mut operations);
        let lines: Vec<String> = operations.iter().map(Operation::to_string).collect();
        assert_eq!(lines.first().unwrap(), "add the table `inet nodeplug`");
        assert_eq!(lines.len(), 5 + layout.chains[0].rules.len());
    }
}
