//! Records, leases, links, nf_tables and claims to ports: whether each has the others.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use node::Result;
use node::finding::{Finding, counted, listed, unread};

use super::kernel::has_nf_tables;
use crate::apply::Hands;
use crate::command::ipam;
use crate::kernel::link;
use crate::kernel::nft::comment;
use crate::owner::Owner;
use crate::plan::step::Place;
use crate::state::State;
use crate::verb::repair::{self, Outcome};

const WHAT: &str = "attachments";
const EARLIER: &str = "earlier boots";
const RULES: &str = "pods in nf_tables";
const STRAYS: &str = "left behind";

/// Longer than a DEL takes that is at work between two looks.
const PAUSE: Duration = Duration::from_millis(300);

/// All of it.
pub(super) fn all(state: &State, hands: &mut Hands) -> Vec<Finding> {
    let looks = [checked(state), earlier(state), ruled(state, hands), strays(state, hands)];
    let of = |(what, look): (&'static str, Result<Vec<Finding>>)| match look {
        Ok(found) => found,
        Err(error) => vec![unread(what, &error)],
    };
    [WHAT, EARLIER, RULES, STRAYS].into_iter().zip(looks).flat_map(of).collect()
}

/// What `ipam check` says.
fn checked(state: &State) -> Result<Vec<Finding>> {
    let ailments = ipam::ailments(state)?;
    let (mendable, others): (Vec<_>, Vec<_>) = ailments.into_iter().partition(|a| a.mendable);
    let mut found = Vec::new();
    if let Some(first) = mendable.first() {
        let more =
            if mendable.len() == 1 { String::new() } else { format!(" ({} more)", mendable.len() - 1) };
        let why = format!("`{}` of `{}`: {}{more}", first.holder, first.network, first.what);
        found.push(Finding::warning(WHAT, why, "nodeplug-cni ipam check --fix"));
    }
    found.extend(others.into_iter().filter(|a| !a.young).map(|ailment| {
        let why = format!("`{}` of `{}`: {}", ailment.holder, ailment.network, ailment.what);
        if ailment.leaked {
            let free = format!(
                "where its pod is gone: nodeplug-cni ipam free --network {} {}",
                ailment.network, ailment.address
            );
            return Finding::warning(WHAT, why, free);
        }
        Finding::warning(WHAT, why, "delete the pod, or restart it; `nodeplug-cni ipam list` names it")
    }));
    if found.is_empty() {
        let count = state.attachments.owners()?.len();
        let why = format!("{}, each with its link and its lease", counted(count, "attachment"));
        found.push(Finding::fine(WHAT, why));
    }
    Ok(found)
}

/// Records of a boot that is over. The first ADD of a boot drops them; later nobody does.
fn earlier(state: &State) -> Result<Vec<Finding>> {
    let mut old = Vec::new();
    for folder in state.everywhere()? {
        old.extend(folder.all()?.into_iter().filter(|record| record.boot != state.boot));
    }
    if old.is_empty() {
        return Ok(Vec::new());
    }
    let count = counted(old.len(), "record");
    if state.is_this_boots()? {
        let why = format!("{count} of an earlier boot stayed, and hold their addresses");
        return Ok(vec![Finding::warning(EARLIER, why, "nodeplug-cni ipam check --fix")]);
    }
    Ok(vec![Finding::fine(EARLIER, format!("{count}; the first ADD of this boot takes them away"))])
}

/// What `repair --dry-run` says, without its lock: what was missing for a moment only is no finding.
fn ruled(state: &State, hands: &mut Hands) -> Result<Vec<Finding>> {
    if !has_nf_tables() {
        return Ok(Vec::new());
    }
    let mut damaged = Vec::new();
    let mut whole = 0;
    for round in 0..2 {
        damaged.clear();
        whole = 0;
        for mended in repair::look(state, hands)? {
            match mended.outcome {
                Outcome::Missing(lines) => damaged.push((mended.record, lines)),
                Outcome::Failed(error) => return Err(error),
                Outcome::Whole => whole += 1,
                Outcome::Gone => {}
            }
        }
        if damaged.is_empty() {
            break;
        }
        if round == 0 {
            thread::sleep(PAUSE);
        }
    }
    let claims = state.claims().all()?;
    if damaged.is_empty() {
        let ports = if claims.is_empty() {
            String::new()
        } else {
            format!(", {}", counted(claims.len(), "host port"))
        };
        return Ok(vec![Finding::fine(
            RULES,
            format!("{} with all that they have{ports}", counted(whole, "pod")),
        )]);
    }
    let names: Vec<String> =
        damaged.iter().map(|(r, _)| r.pod.clone().unwrap_or_else(|| r.owner.to_string())).collect();
    let first = damaged.first().and_then(|(_, lines)| lines.first()).cloned().unwrap_or_default();
    let why = format!("{} lack something, such as: {first}", listed(&names));
    Ok(vec![Finding::problem(RULES, why, "nodeplug-cni repair")])
}

/// Links and elements of ours that no record answers for.
fn strays(state: &State, hands: &mut Hands) -> Result<Vec<Finding>> {
    // Links first: what an ADD makes from now on has its record by then.
    let links = link::veths(hands.socket(Place::Host)?)?;
    let links: Vec<String> =
        links.into_iter().map(|l| l.name).filter(|name| Owner::is_host_ifname(name)).collect();
    let elements = if has_nf_tables() { hands.nft()?.found()? } else { Vec::new() };
    let mut known: BTreeSet<Owner> = BTreeSet::new();
    for folder in state.everywhere()? {
        known.extend(folder.owners()?);
    }
    let names: BTreeSet<String> = known.iter().map(Owner::host_ifname).collect();
    let comments: BTreeSet<String> = known.iter().map(comment).collect();
    let mut found = Vec::new();
    let links: Vec<String> = links.into_iter().filter(|name| !names.contains(name)).collect();
    if !links.is_empty() {
        let why = format!(
            "{} has no record: the runtime's DEL or GC takes it away, where it still knows the pod",
            listed(&links)
        );
        let deletes: Vec<String> = links.iter().map(|name| format!("ip link delete {name}")).collect();
        let remedy = format!("where `crictl pods` has no such pod: {}", deletes.join("; "));
        found.push(Finding::warning(STRAYS, why, remedy));
    }
    let mut owners: Vec<String> =
        elements.into_iter().map(|e| e.comment).filter(|c| !comments.contains(c)).collect();
    owners.sort();
    owners.dedup();
    if !owners.is_empty() {
        let why = format!("`table inet nodeplug` has elements of {}, which have no record", listed(&owners));
        let remedy =
            "the runtime's GC takes them away (containerd 2, CRI-O), and a reboot; they hold no address";
        found.push(Finding::warning(STRAYS, why, remedy));
    }
    Ok(found)
}
