//! What each resource would offer now, and what came near and is not offered. Nothing is registered.

use node::{Error, Kind, Result};
use serde_json::{Value, json};

use crate::config::{Config, Resource, overlaps};
use crate::discover::look_all;
use crate::inventory::{Found, Looked, Node, Rejected};

use super::columns::columns;

/// As many of those that were not taken as the table has for each resource; `explain` has all.
const NEAREST: usize = 5;

/// A resource, and what its sources showed.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The resource.
    pub resource: &'a Resource,
    /// All of them as one.
    pub looked: Looked,
}

/// What was found for some resources.
#[derive(Debug)]
pub struct Report<'a> {
    seen: Vec<Seen<'a>>,
}

/// Looks for the devices of all resources, or of one.
pub fn discover<'a>(config: &'a Config, only: Option<&str>) -> Result<Report<'a>> {
    let resources: Vec<&Resource> = match only {
        Some(name) => vec![named(config, name)?],
        None => config.resources.iter().collect(),
    };
    let seen = resources.into_iter().map(|resource| Seen::now(resource, config));
    Ok(Report { seen: seen.collect() })
}

/// The resource of that name, or the hint which was meant.
pub fn named<'a>(config: &'a Config, name: &str) -> Result<&'a Resource> {
    let mut names = config.resources.iter();
    if let Some(resource) = names.find(|resource| resource.name.as_str() == name) {
        return Ok(resource);
    }
    let error = Error::new(Kind::Usage, format!("find the resource `{name}` in the configuration"));
    let names = config.resources.iter().map(|resource| resource.name.as_str());
    let nearest = names.max_by(|a, b| likeness(name, a).total_cmp(&likeness(name, b)));
    Err(error.hint(match nearest {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => "the configuration has no resources".to_owned(),
    }))
}

/// The last part of a name is what people type.
fn likeness(typed: &str, name: &str) -> f64 {
    let last = name.rsplit('/').next().unwrap_or(name);
    strsim::jaro_winkler(typed, name).max(strsim::jaro_winkler(typed, last))
}

impl<'a> Seen<'a> {
    /// Looks at each source of a resource.
    pub fn now(resource: &'a Resource, config: &Config) -> Self {
        Self { resource, looked: look_all(resource, &config.host) }
    }

    /// Its devices.
    pub fn devices(&self) -> &[Found] {
        &self.looked.found
    }

    fn rejected(&self) -> impl ExactSizeIterator<Item = &Rejected> {
        self.looked.rejected.iter()
    }
}

impl<'a> Report<'a> {
    /// The report of looks that were taken.
    pub fn of(seen: Vec<Seen<'a>>) -> Self {
        Self { seen }
    }

    /// Devices that two resources have: two pods could get one, each for itself alone.
    fn overlaps(&self) -> Vec<String> {
        let found = self.seen.iter().map(|seen| (seen.resource.name.as_str(), seen.devices()));
        let found: Vec<(&str, &[Found])> = found.collect();
        overlaps(&found).iter().map(ToString::to_string).collect()
    }

    /// Whether each resource has a device that can be had.
    pub fn is_fine(&self) -> bool {
        self.seen.iter().all(|seen| seen.devices().iter().any(|found| found.ailing.is_none()))
    }

    /// The devices, then the nearest of what was not taken, then a line that sums it up.
    pub fn to_table(&self) -> String {
        let mut rows = vec![words(["RESOURCE", "DEVICE", "NODES", "NUMA", "STATE"])];
        let mut others = vec![words(["RESOURCE", "NOT TAKEN", "WHY"])];
        for seen in &self.seen {
            let name = seen.resource.name.as_str();
            rows.extend(seen.devices().iter().map(|found| row(name, found)));
            let rejected = seen.rejected().take(NEAREST);
            others.extend(rejected.map(|one| words([name, &one.what, &one.why])));
            if let Some(more) = seen.rejected().len().checked_sub(NEAREST).filter(|more| *more > 0) {
                let more = format!("{more} more: see `explain {name}`");
                others.push(words([name, "…", &more]));
            }
        }
        let tables = [rows, others].into_iter().filter(|table| table.len() > 1);
        let text: Vec<String> = tables.map(|table| columns(0, &table)).collect();
        let gap = if text.is_empty() { "" } else { "\n" };
        let overlaps: String = self.overlaps().into_iter().map(|overlap| overlap + "\n").collect();
        format!("{}{gap}{overlaps}{}\n", text.join("\n"), self.summary())
    }

    /// `{"resources": [{"resource", "replicas", "devices": […], "rejected": [{"what", "why"} …]} …],
    /// "overlaps": [TEXT …], "fine": BOOL, "summary": TEXT}`.
    pub fn to_json(&self) -> Value {
        let resources: Vec<Value> = self.seen.iter().map(resource_json).collect();
        let overlaps = self.overlaps();
        json!({"resources": resources, "overlaps": overlaps, "fine": self.is_fine(), "summary": self.summary()})
    }

    fn summary(&self) -> String {
        let devices: Vec<&Found> = self.seen.iter().flat_map(Seen::devices).collect();
        let ailing = devices.iter().filter(|found| found.ailing.is_some()).count();
        let without = self.seen.iter().filter(|seen| seen.devices().is_empty());
        let without: Vec<String> = without.map(|seen| format!("`{}`", seen.resource.name)).collect();
        let found = format!("{} of {}", many(devices.len(), "device"), many(self.seen.len(), "resource"));
        let ailing = if ailing > 0 { format!(", {ailing} of them not healthy") } else { String::new() };
        let without = (!without.is_empty()).then(|| format!("; none for {}", without.join(", ")));
        format!("{found}{ailing}{}", without.unwrap_or_default())
    }
}

fn words<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn many(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn row(resource: &str, found: &Found) -> Vec<String> {
    let nodes: Vec<String> = found.nodes.iter().map(|node| node.path.display().to_string()).collect();
    let nodes = if nodes.is_empty() { "-".to_owned() } else { nodes.join(" ") };
    let numa = found.numa.map_or_else(|| "-".to_owned(), |numa| numa.to_string());
    words([resource, &found.identity, &nodes, &numa, &state(found)])
}

/// `healthy`, or why it is not. Health checks are not made here.
pub fn state(found: &Found) -> String {
    found.ailing.as_ref().map_or_else(|| "healthy".to_owned(), |why| format!("unhealthy: {why}"))
}

fn resource_json(seen: &Seen<'_>) -> Value {
    let devices: Vec<Value> = seen.devices().iter().map(device_json).collect();
    let rejected: Vec<Value> = seen.rejected().map(|one| json!({"what": one.what, "why": one.why})).collect();
    json!({
        "resource": seen.resource.name.as_str(),
        "replicas": seen.resource.replicas,
        "devices": devices,
        "rejected": rejected,
    })
}

/// A device with all that is known of it.
pub fn device_json(found: &Found) -> Value {
    json!({
        "identity": found.identity,
        "name": found.name,
        "nodes": found.nodes.iter().map(node_json).collect::<Vec<_>>(),
        "sysfs": found.sysfs.as_ref().map(|folder| folder.display().to_string()),
        "parent": found.parent,
        "numa": found.numa,
        "attributes": found.attributes,
        "ailing": found.ailing,
    })
}

fn node_json(node: &Node) -> Value {
    json!({
        "path": node.path.display().to_string(),
        "real": node.real.display().to_string(),
        "device": number(node),
    })
}

/// `c 188:0`, as `ls -l` and mknod have it.
pub fn number(node: &Node) -> Option<String> {
    let number = node.device?;
    let kind = if number.block { 'b' } else { 'c' };
    Some(format!("{kind} {}:{}", number.major, number.minor))
}

#[cfg(test)]
#[path = "discover_tests.rs"]
mod tests;
