//! Several nodes that are one device.

use std::path::{Path, PathBuf};

use crate::config::{GroupSelector, Member, ParentMatch};
use crate::inventory::{Found, Looked, Node};

use super::below::{self, Owned};
use super::dev::Behind;
use super::links::Told;
use super::parents::conditions;
use super::rejected::{Match, Rejections};
use super::tree::{Device, by_name};
use super::view::View;
use super::walk::{Walk, has_pattern};
use super::watching::Watching;
use super::{clean, identity, nodes, path, shown};

/// Each parent that matches with its members, or the one device of a fixed list.
pub fn look(wanted: &GroupSelector, view: &View) -> Looked {
    let mut rejected = Rejections::default();
    let found = match &wanted.parent {
        Some(parent) => parents(parent, view)
            .into_iter()
            .filter_map(|device| below_parent(wanted, parent, &device, view, &mut rejected))
            .collect(),
        None => listed(wanted, view, &mut rejected).into_iter().collect(),
    };
    Looked { found, rejected: rejected.finish(), ..Looked::default() }
}

/// What to watch.
pub fn watch(wanted: &GroupSelector, watching: &mut Watching) {
    if let Some(parent) = &wanted.parent {
        watching.parents(std::slice::from_ref(parent));
        if wanted.members.iter().any(|member| member.subsystem.is_none()) || parent.subsystem.is_none() {
            watching.anything();
        }
        wanted
            .members
            .iter()
            .filter_map(|member| member.subsystem.as_ref())
            .for_each(|of| watching.subsystem(of));
        return;
    }
    for glob in wanted.members.iter().filter_map(|member| member.glob.clone()) {
        path::watch(&crate::config::PathSelector { glob: vec![glob], ..Default::default() }, watching);
    }
}

/// What could be the parent: its subsystem's devices, or those of every bus.
fn parents(parent: &ParentMatch, view: &View) -> Vec<Device> {
    let subsystems = parent.subsystem.as_ref().map_or_else(|| view.sys.buses(), |one| vec![one.clone()]);
    subsystems.iter().filter_map(|name| view.sys.subsystem(name)).flatten().collect()
}

/// What was found of one member.
#[derive(Debug, Default)]
struct Part {
    nodes: Vec<Node>,
    /// Why there is none, or not all.
    why: Option<String>,
}

fn below_parent(
    wanted: &GroupSelector,
    parent: &ParentMatch,
    device: &Device,
    view: &View,
    rejected: &mut Rejections,
) -> Option<Found> {
    let mut matching = Match::default();
    conditions(&mut matching, parent, device, &view.sys);
    let mut parts = Vec::new();
    if matching.holds() {
        let (_, told) = identity::of(device, view);
        let owned = below::owned(device, view, |_| true);
        parts = wanted.members.iter().map(|member| part_below(member, &owned, told, view)).collect();
    }
    matching.check(|| some_of(&parts));
    if !matching.decide(|| device.name(), rejected) {
        return None;
    }
    let (identity, _) = identity::of(device, view);
    let found = identity::found(device, format!("group:{identity}"), view);
    Some(put_together(found, wanted, parts))
}

fn part_below(member: &Member, owned: &[Owned<'_>], told: Told, view: &View) -> Part {
    let mut part = Part::default();
    let of_it = |of: &str| member.subsystem.as_deref().is_none_or(|wanted| wanted == of);
    for (device, _) in owned.iter().filter(|(_, of)| of_it(of)) {
        match nodes::node(device, told, view) {
            Some(Ok(node)) if is_named(member, &node, view) => part.nodes.push(node),
            Some(Err(why)) => part.why = Some(why),
            Some(Ok(_)) | None => {}
        }
    }
    part.nodes.sort_by(|a, b| by_name(&a.real, &b.real));
    part.finish(member)
}

/// A member's pattern is for the kernel's name or any link to it.
fn is_named(member: &Member, node: &Node, view: &View) -> bool {
    let Some(glob) = &member.glob else { return true };
    let matches = |path: &Path| path.to_str().is_some_and(|path| glob.matches_path(path));
    matches(&node.real) || view.links().all(&node.real).any(matches)
}

/// The members of a fixed list: known by their patterns.
fn listed(wanted: &GroupSelector, view: &View, rejected: &mut Rejections) -> Option<Found> {
    let parts: Vec<Part> = wanted.members.iter().map(|member| part_listed(member, view, rejected)).collect();
    let patterns = wanted.members.iter().filter_map(|member| member.glob.as_ref()).map(ToString::to_string);
    let patterns = patterns.collect::<Vec<_>>().join(" ");
    if let Err(why) = some_of(&parts) {
        rejected.note(patterns, why);
        return None;
    }
    let first = parts.iter().flat_map(|part| &part.nodes).next().map(|node| node.real.clone());
    let name = first.as_deref().and_then(Path::file_name).unwrap_or_default();
    let name = clean(&name.to_string_lossy());
    let known = first.and_then(|real| view.dev.behind(&real).ok()).and_then(|behind| sysfs(&behind, view));
    let known = known.map(|device| identity::found(&device, String::new(), view)).unwrap_or_default();
    let found = Found { identity: format!("group:{patterns}"), name, ..known };
    Some(put_together(found, wanted, parts))
}

fn sysfs(behind: &Behind, view: &View) -> Option<Device> {
    let number = behind.number?;
    view.sys.numbered(if number.block { "block" } else { "char" }, number.major, number.minor)
}

fn part_listed(member: &Member, view: &View, rejected: &mut Rejections) -> Part {
    let mut part = Part::default();
    let Some(glob) = &member.glob else {
        part.why = Some("a member without `glob` needs the group's `parent`".to_owned());
        return part;
    };
    let mut walk = Walk::new(&view.dev);
    if let Err(why) = walk.glob(glob) {
        part.why = Some(format!("`{glob}` {why}"));
    }
    let mut hits: Vec<(PathBuf, PathBuf)> = walk.hits.into_iter().collect();
    hits.sort_by(|(a, _), (b, _)| by_name(a, b));
    for (hit, folder) in hits {
        match view.dev.behind_within(&hit, &folder) {
            Ok(behind) if behind.number.is_some() || !has_pattern(glob.as_str()) => {
                part.nodes.push(behind.node(&hit));
            }
            Ok(behind) => {
                rejected.note(shown(&hit), format!("it is {}", behind.kind.words()));
            }
            Err(why) if has_pattern(glob.as_str()) => rejected.note(shown(&hit), why),
            Err(why) => part.why = Some(why),
        }
    }
    if part.nodes.is_empty() && part.why.is_none() && !has_pattern(glob.as_str()) {
        part.why = view.dev.behind(Path::new(glob.as_str())).err();
    }
    part.finish(member)
}

impl Part {
    fn finish(mut self, member: &Member) -> Self {
        self.nodes
            .truncate(member.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)));
        for node in &mut self.nodes {
            node.options = member.node.clone();
        }
        if self.nodes.is_empty() && self.why.is_none() {
            self.why = Some(format!("nothing of {} is there", words(member)));
        }
        self
    }
}

fn words(member: &Member) -> String {
    let subsystem = member.subsystem.as_ref().map(|of| format!("`{}`", clean(of)));
    let glob = member.glob.as_ref().map(|glob| format!("`{glob}`"));
    let words: Vec<String> = subsystem.into_iter().chain(glob).collect();
    if words.is_empty() { "any subsystem".to_owned() } else { words.join(" at ") }
}

/// A device that has nothing at all is not the one that is meant.
fn some_of(parts: &[Part]) -> Result<(), String> {
    if parts.iter().any(|part| !part.nodes.is_empty()) {
        return Ok(());
    }
    let why: Vec<&str> = parts.iter().filter_map(|part| part.why.as_deref()).collect();
    Err(if why.is_empty() { "it has no members".to_owned() } else { why.join("; ") })
}

/// A node that two members name is handed out once, as the first says.
fn put_together(mut found: Found, wanted: &GroupSelector, parts: Vec<Part>) -> Found {
    for (member, part) in wanted.members.iter().zip(parts) {
        if part.nodes.is_empty() && !member.optional && found.ailing.is_none() {
            found.ailing = part.why;
        }
        for node in part.nodes {
            if found.nodes.iter().all(|other| other.real != node.real) {
                found.nodes.push(node);
            }
        }
    }
    found
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
