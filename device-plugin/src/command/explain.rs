//! Why a resource has the devices that it has: source by source, with all that is known of each.

use std::collections::HashSet;

use node::Result;
use serde_json::{Value, json};

use crate::config::{Config, Resource, Selector};
use crate::discover::{Watches, look, watches};
use crate::inventory::{Found, Looked};

use super::columns::columns;
use super::discover::{device_json, named, number, state};

/// One resource, source by source.
#[derive(Debug)]
pub struct Explanation<'a> {
    resource: &'a Resource,
    sources: Vec<Source<'a>>,
}

/// One source: what it is asked for, what it showed, and what tells that it is time to look again.
#[derive(Debug)]
pub struct Source<'a> {
    /// What it is asked for.
    pub selector: &'a Selector,
    /// What it showed.
    pub look: Looked,
    /// What is watched for it.
    pub watches: Watches,
}

/// Looks for the devices of one resource.
pub fn explain<'a>(config: &'a Config, resource: &str) -> Result<Explanation<'a>> {
    let resource = named(config, resource)?;
    let source = |selector: &'a Selector| Source {
        selector,
        look: look(selector, &config.host),
        watches: watches(selector, &config.host),
    };
    Ok(Explanation::of(resource, resource.devices.iter().map(source).collect()))
}

impl<'a> Explanation<'a> {
    /// The explanation of looks that were taken.
    pub fn of(resource: &'a Resource, sources: Vec<Source<'a>>) -> Self {
        Self { resource, sources }
    }

    /// Whether a device can be had.
    pub fn is_fine(&self) -> bool {
        self.sources.iter().flat_map(|source| &source.look.found).any(|found| found.ailing.is_none())
    }

    /// A paragraph a source.
    pub fn to_text(&self) -> String {
        let mut known = HashSet::new();
        let sources: Vec<String> = self.sources.iter().map(|source| source.to_text(&mut known)).collect();
        format!("{}\n\n{}", self.heading(), sources.join("\n"))
    }

    /// `{"resource", "replicas", "sources": [{"selector", "devices", "rejected", "watches"} …], "fine": BOOL}`.
    pub fn to_json(&self) -> Value {
        let sources: Vec<Value> = self.sources.iter().map(source_json).collect();
        json!({
            "resource": self.resource.name.as_str(),
            "replicas": self.resource.replicas,
            "sources": sources,
            "fine": self.is_fine(),
        })
    }

    fn heading(&self) -> String {
        let identities = self.sources.iter().flat_map(|source| &source.look.found);
        let identities: HashSet<&str> = identities.map(|found| found.identity.as_str()).collect();
        let devices = match identities.len() {
            1 => "1 device".to_owned(),
            count => format!("{count} devices"),
        };
        match self.resource.replicas {
            1 => format!("{}: {devices}", self.resource.name),
            replicas => format!("{}: {devices}, each {replicas} times", self.resource.name),
        }
    }
}

impl Source<'_> {
    fn to_text<'b>(&'b self, known: &mut HashSet<&'b str>) -> String {
        let devices: Vec<String> = self.look.found.iter().map(|found| device(found, known)).collect();
        let devices = if devices.is_empty() { "  no device\n".to_owned() } else { devices.concat() };
        let selector = selector_text(self.selector);
        format!("{selector}\n{devices}{}{}", not_taken(&self.look), watched(&self.watches))
    }
}

fn device<'b>(found: &'b Found, known: &mut HashSet<&'b str>) -> String {
    if known.insert(&found.identity) {
        return format!("  {}: {}\n{}", found.identity, state(found), columns(4, &particulars(found)));
    }
    format!("  {}: found by a source above\n", found.identity)
}

/// As it is in the configuration: JSON is YAML, too.
fn selector_text(selector: &Selector) -> String {
    let text = serde_json::to_value(without_nulls(selector)).unwrap_or_default();
    match text.as_object().and_then(|whole| whole.iter().next()) {
        Some((name, rest)) => format!("{name}: {rest}"),
        None => text.to_string(),
    }
}

/// What a selector does not say is left out.
fn without_nulls(selector: &Selector) -> Value {
    let mut value = serde_json::to_value(selector).unwrap_or_default();
    // The source's own word stays, whatever it says.
    if let Value::Object(source) = &mut value {
        source.values_mut().for_each(prune);
    }
    value
}

fn prune(value: &mut Value) {
    if let Value::Object(map) = value {
        map.values_mut().for_each(prune);
        map.retain(|_, value| !is_nothing(value));
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn particulars(found: &Found) -> Vec<Vec<String>> {
    let mut rows = vec![vec!["name".to_owned(), found.name.clone()]];
    for node in &found.nodes {
        let path = node.path.display();
        let behind =
            if node.path == node.real { String::new() } else { format!(" -> {}", node.real.display()) };
        let number = number(node).map(|number| format!(" ({number})")).unwrap_or_default();
        rows.push(vec!["node".to_owned(), format!("{path}{behind}{number}")]);
    }
    let sysfs = found.sysfs.as_ref().map(|folder| folder.display().to_string());
    let numa = found.numa.map(|numa| numa.to_string());
    for (what, text) in [("sysfs", sysfs), ("parent", found.parent.clone()), ("numa", numa)] {
        rows.extend(text.map(|text| vec![what.to_owned(), text]));
    }
    let attributes = found.attributes.iter();
    rows.extend(attributes.map(|(name, value)| vec![format!("${{attribute.{name}}}"), value.clone()]));
    rows
}

fn not_taken(look: &Looked) -> String {
    if look.rejected.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> =
        look.rejected.iter().map(|one| vec![one.what.clone(), one.why.clone()]).collect();
    format!("  not taken, the nearest first:\n{}", columns(4, &rows))
}

fn watched(watches: &Watches) -> String {
    let folders = watches.folders.iter().map(|folder| folder.display().to_string());
    let events = watches.subsystems.iter().map(|one| match one.as_str() {
        "*" => "all uevents".to_owned(),
        one => format!("uevents of `{one}`"),
    });
    let every = watches.every.map(|every| format!("every {}s", every.as_secs()));
    let all: Vec<String> = events.chain(folders).chain(every).collect();
    if all.is_empty() { String::new() } else { format!("  watched: {}\n", all.join(", ")) }
}

fn source_json(source: &Source<'_>) -> Value {
    let devices: Vec<Value> = source.look.found.iter().map(device_json).collect();
    let rejected = source.look.rejected.iter().map(|one| json!({"what": one.what, "why": one.why}));
    let folders: Vec<String> =
        source.watches.folders.iter().map(|folder| folder.display().to_string()).collect();
    json!({
        "selector": without_nulls(source.selector),
        "devices": devices,
        "rejected": rejected.collect::<Vec<_>>(),
        "watches": {
            "folders": folders,
            "subsystems": source.watches.subsystems,
            "everySeconds": source.watches.every.map(|every| every.as_secs()),
        },
    })
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
