//! `validate`: what a configuration offers, told to a person or a program.

use std::fmt::Write;
use std::path::Path;

use node::Result;
use serde::Serialize;
use serde_json::{Value, json};

use crate::config::{
    self, BlockSelector, Cdi, CharSelector, Check, CommandSelector, Config, FileKind, Glob, GroupSelector,
    Hex, Measure, Member, NetSelector, ParentMatch, PathSelector, PciClass, Preference, Registration,
    Resource, Selector, Sensor, SensorSelector,
};

/// What a configuration offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How the kubelet learns of it.
    pub registration: String,
    /// The resources.
    pub resources: Vec<Offer>,
    /// What works and is hardly meant.
    pub warnings: Vec<String>,
}

/// One resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// Where its devices come from, a line each.
    pub devices: Vec<String>,
    /// How many pods may have each device.
    pub replicas: u32,
    /// When a device is healthy, a line each.
    pub health: Vec<String>,
    /// What a container gets, a line each.
    pub container: Vec<String>,
    /// Which devices go together.
    pub prefer: Option<String>,
}

/// What a file offers, or what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict(Result<Report, Vec<String>>);

/// Reads the file and judges it. The error is for a file that can't be read.
pub fn validate(path: &Path) -> Result<Verdict> {
    config::read(path).map(|text| judge(&text))
}

/// Judges a file's text.
pub fn judge(text: &str) -> Verdict {
    let config = match Config::understand(text) {
        Ok(config) => config,
        Err(error) => return Verdict(Err(vec![error.causes()])),
    };
    let mistakes = config.mistakes();
    Verdict(if mistakes.is_empty() { Ok(report(&config)) } else { Err(mistakes) })
}

impl Verdict {
    /// Whether the daemon would take the file.
    pub fn is_fine(&self) -> bool {
        self.0.is_ok()
    }

    /// For people: what is offered, or a mistake a line.
    pub fn to_table(&self) -> String {
        match &self.0 {
            Ok(report) => report.table(),
            Err(mistakes) => mistakes.join("\n") + "\n",
        }
    }

    /// For programs: `{"resources": […], "warnings": […], "mistakes": […]}`.
    pub fn to_json(&self) -> Value {
        let (mistakes, report) = match &self.0 {
            Ok(report) => (&[][..], serde_json::to_value(report).unwrap_or_default()),
            Err(mistakes) => (mistakes.as_slice(), json!({"resources": [], "warnings": []})),
        };
        let mut whole = report;
        if let Some(object) = whole.as_object_mut() {
            object.insert("mistakes".to_owned(), json!(mistakes));
        }
        whole
    }
}

/// What the configuration offers.
pub fn report(config: &Config) -> Report {
    let registration = match config.kubelet.registration {
        Registration::Direct => {
            format!("by a call on {}/kubelet.sock", config.kubelet.device_plugins.display())
        }
        Registration::Watcher => format!("by a socket in {}", config.kubelet.plugins_registry.display()),
    };
    Report {
        registration,
        resources: config.resources.iter().map(offer).collect(),
        warnings: config.warnings(),
    }
}

impl Report {
    /// The report for people: lines of two columns, a part for each resource, then the warnings.
    pub fn table(&self) -> String {
        let mut text = String::new();
        row(&mut text, "registered", &self.registration);
        for offer in &self.resources {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\n{}", offer.name);
            rows(&mut text, "devices", &offer.devices);
            if offer.replicas > 1 {
                row(&mut text, "shared", &format!("by {} at a time", offer.replicas));
            }
            rows(&mut text, "healthy", &offer.health);
            rows(&mut text, "a container", &offer.container);
            if let Some(prefer) = &offer.prefer {
                row(&mut text, "together", prefer);
            }
        }
        if !self.warnings.is_empty() {
            text.push('\n');
            rows(&mut text, "hardly meant", &self.warnings);
        }
        text
    }
}

fn row(text: &mut String, name: &str, line: &str) {
    let _ = writeln!(text, "  {name:<14}{line}");
}

fn rows(text: &mut String, name: &str, lines: &[String]) {
    let names = std::iter::once(name).chain(std::iter::repeat(""));
    for (name, line) in names.zip(lines) {
        row(text, name, line);
    }
}

fn offer(resource: &Resource) -> Offer {
    Offer {
        name: resource.name.to_string(),
        devices: resource.devices.iter().map(source).collect(),
        replicas: resource.replicas,
        health: health(resource),
        container: container(resource),
        prefer: resource.prefer.map(|preference| preferred(preference).to_owned()),
    }
}

fn preferred(preference: Preference) -> &'static str {
    match preference {
        Preference::Packed => "as few devices as possible",
        Preference::Spread => "the least used devices",
        Preference::Numa => "devices near one NUMA node",
        Preference::SameParent => "devices of one parent",
    }
}

/// The parts of a line, without those that say nothing.
fn joined(parts: impl IntoIterator<Item = Option<String>>) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn word(name: &str, value: Option<impl std::fmt::Display>) -> Option<String> {
    value.map(|value| format!("{name} {value}"))
}

fn list(globs: &[Glob]) -> Option<String> {
    let all: Vec<_> = globs.iter().map(Glob::as_str).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn when(condition: bool, text: &str) -> Option<String> {
    condition.then(|| text.to_owned())
}

fn source(selector: &Selector) -> String {
    match selector {
        Selector::Path(path) => files(path),
        Selector::Usb(usb) => joined([
            Some("USB".to_owned()),
            word("vendor", usb.vendor.as_ref().map(Hex::as_str)),
            word("product", usb.product.as_ref().map(Hex::as_str)),
            word("serial number", usb.serial.as_ref()),
            word("port", usb.port.as_ref()),
            word("interface class", usb.interface_class.as_ref().map(Hex::as_str)),
            Some(nodes(&usb.nodes, "usb")),
        ]),
        Selector::Pci(pci) => joined([
            Some("PCI".to_owned()),
            word("vendor", pci.vendor.as_ref().map(Hex::as_str)),
            word("device", pci.device.as_ref().map(Hex::as_str)),
            word("class", pci.class.as_ref().map(PciClass::as_str)),
            word("driver", pci.driver.as_ref()),
            word("address", pci.address.as_ref()),
            Some(nodes(&pci.nodes, "all")),
        ]),
        Selector::Sysfs(sysfs) => {
            let own = [Some(format!("{} devices", sysfs.subsystem)), word("name", sysfs.name.as_ref())];
            joined(own.into_iter().chain(attributes(&sysfs.attributes)).chain(parents(&sysfs.parents)))
        }
        Selector::Net(net) => interfaces(net),
        Selector::Block(block) => disks(block),
        Selector::Char(char) => numbers(char),
        Selector::Group(group) => together(group),
        Selector::Count(count) => format!("{}, counted", count.0),
        Selector::File(file) => format!("as many as {} says, at most {}", file.path.display(), file.max),
        Selector::Command(command) => asked(command),
        Selector::Sensor(sensor) => measured(sensor),
    }
}

fn files(path: &PathSelector) -> String {
    joined([
        list(&path.glob),
        word("paths that match", path.regex.as_ref()),
        path.below.as_ref().map(|below| format!("below {}", below.display())),
        list(&path.exclude).map(|globs| format!("but not {globs}")),
        (!path.kinds.is_empty()).then(|| kinds(&path.kinds)),
        when(path.together, "all of them one device"),
        when(path.expected, "expected to be there"),
    ])
}

fn interfaces(net: &NetSelector) -> String {
    let own = [
        Some("network interfaces".to_owned()),
        word("name", net.name.as_ref()),
        word("driver", net.driver.as_ref()),
    ];
    let more = [when(net.r#virtual, "virtual ones, too"), when(net.needs_carrier, "healthy with a carrier")];
    joined(own.into_iter().chain(attributes(&net.attributes)).chain(parents(&net.parents)).chain(more))
}

fn disks(block: &BlockSelector) -> String {
    let own = [
        Some(if block.partitions { "partitions" } else { "disks" }.to_owned()),
        word("name", block.name.as_ref()),
        word("model", block.model.as_ref()),
        word("serial number", block.serial.as_ref()),
        word("WWN", block.wwn.as_ref()),
        word("from", block.min_size.as_ref()),
        word("up to", block.max_size.as_ref()),
        block.removable.map(|yes| if yes { "removable" } else { "not removable" }.to_owned()),
    ];
    joined(own.into_iter().chain(parents(&block.parents)))
}

fn numbers(char: &CharSelector) -> String {
    match (char.minor, char.last_minor) {
        (None, _) => format!("character devices {}:*", char.major),
        (Some(minor), None) => format!("character device {}:{minor}", char.major),
        (Some(minor), Some(last)) => format!("character devices {}:{minor} to {last}", char.major),
    }
}

fn together(group: &GroupSelector) -> String {
    let member = |member: &Member| {
        let glob = member.glob.as_ref().map(Glob::as_str);
        let what = glob.or(member.subsystem.as_deref()).unwrap_or_default();
        format!("{what}{}", if member.optional { " (optional)" } else { "" })
    };
    let members: Vec<_> = group.members.iter().map(member).collect();
    let each = group.parent.as_ref().map(|p| format!("for each {}: ", parent(p))).unwrap_or_default();
    format!("{each}{} as one", members.join(" + "))
}

fn asked(command: &CommandSelector) -> String {
    let (run, every) = (command.run.join(" "), command.every);
    format!(
        "as many as `{run}` says, asked each {every} for up to {}, at most {}",
        command.timeout, command.max
    )
}

fn measured(sensor: &SensorSelector) -> String {
    let of = match &sensor.of {
        Measure::MemoryTotal => "memory".to_owned(),
        Measure::MemoryAvailable => "available memory".to_owned(),
        Measure::DiskTotal(path) => format!("the disk of {}", path.display()),
        Measure::DiskFree(path) => format!("the free space of {}", path.display()),
    };
    let (unit, reserve, every) = (sensor.unit, sensor.reserve, sensor.every);
    let without = if reserve.bytes() == 0 { String::new() } else { format!(" without {reserve}") };
    format!("one for each {unit} of {of}{without}, measured each {every}, at most {}", sensor.max)
}

fn kinds(kinds: &[FileKind]) -> String {
    let name = |kind: &FileKind| match kind {
        FileKind::Char => "character devices",
        FileKind::Block => "block devices",
        FileKind::File => "files",
        FileKind::Folder => "folders",
        FileKind::Fifo => "FIFOs",
        FileKind::Socket => "sockets",
    };
    format!("only {}", kinds.iter().map(name).collect::<Vec<_>>().join(" and "))
}

fn nodes(nodes: &[String], usual: &str) -> String {
    let all = if nodes.is_empty() { usual.to_owned() } else { nodes.join(" + ") };
    format!("nodes: {all}")
}

fn attributes(attributes: &std::collections::BTreeMap<String, Glob>) -> Vec<Option<String>> {
    attributes.iter().map(|(name, glob)| Some(format!("{name} = {glob}"))).collect()
}

fn parents(parents: &[ParentMatch]) -> Vec<Option<String>> {
    parents.iter().map(|p| Some(format!("below {}", parent(p)))).collect()
}

fn parent(parent: &ParentMatch) -> String {
    let own = [
        Some(
            parent
                .subsystem
                .clone()
                .map_or_else(|| "a parent".to_owned(), |subsystem| format!("{subsystem} device")),
        ),
        word("name", parent.name.as_ref()),
        word("driver", parent.driver.as_ref()),
    ];
    let all: Vec<_> = own.into_iter().chain(attributes(&parent.attributes)).flatten().collect();
    all.join(" ")
}

fn health(resource: &Resource) -> Vec<String> {
    let health = &resource.health;
    if health.checks.is_empty() {
        return vec!["while it is there".to_owned()];
    }
    let mut lines: Vec<_> = health.checks.iter().map(check).collect();
    let before = if health.before_start { ", and before each start of a container" } else { "" };
    lines.push(format!(
        "looked at each {}{before}; unhealthy after {}, healthy again after {}",
        health.every, health.failures, health.successes
    ));
    lines
}

fn check(check: &Check) -> String {
    match check {
        Check::Exists(path) => format!("{} is there", path.display()),
        Check::Attribute { name, matches } => format!("the attribute {name} is {matches}"),
        Check::Command { run, timeout } => format!("`{}` ends with 0 within {timeout}", run.join(" ")),
        Check::Sensor(sensor) => match sensor {
            Sensor::Temperature { label: Some(label), below } => format!("{label} is below {below} °C"),
            Sensor::Temperature { label: None, below } => format!("all is below {below} °C"),
            Sensor::Load { below } => format!("the load of a CPU is below {below}"),
            Sensor::Memory { above } => format!("more than {above} % of memory is available"),
            Sensor::Disk { path, above } => format!("more than {above} % of {} is free", path.display()),
            Sensor::Battery { above } => format!("the battery has more than {above} %, or there is mains"),
        },
    }
}

fn container(resource: &Resource) -> Vec<String> {
    let allocate = &resource.allocate;
    let permissions = allocate.node.permissions.clone().unwrap_or_default();
    let place = allocate.node.container_path.as_ref().map_or_else(String::new, |path| format!(" as {path}"));
    let own = match &allocate.cdi {
        None if resource.devices.iter().all(bare) => None,
        None => Some(format!("its files{place}, device nodes with {permissions}")),
        Some(Cdi::Write { .. }) => {
            let kind = crate::cdi::kind(resource).ok().flatten();
            kind.map(|kind| format!("CDI devices of {kind}, with {permissions}"))
        }
        Some(Cdi::Use { name }) => Some(format!("the CDI device {name}")),
    };
    let mut lines: Vec<_> = own.into_iter().collect();
    let optional = |optional: bool| if optional { ", if it is there" } else { "" };
    for device in &allocate.devices {
        lines.push(format!("the device {}{}", device.host_path.display(), optional(device.optional)));
    }
    for mount in &allocate.mounts {
        let mode = if mount.read_only { "read-only" } else { "read-write" };
        lines.push(format!(
            "{} at {}, {mode}{}",
            mount.host_path,
            mount.container_path,
            optional(mount.optional)
        ));
    }
    lines.extend(allocate.env.iter().map(|(name, text)| format!("{name}={text}")));
    lines.extend(allocate.annotations.iter().map(|(name, text)| format!("annotation {name}: {text}")));
    if lines.is_empty() {
        lines.push("nothing: it is only counted".to_owned());
    }
    lines
}

/// Whether its devices have no files.
fn bare(selector: &Selector) -> bool {
    matches!(
        selector,
        Selector::Net(_)
            | Selector::Count(_)
            | Selector::File(_)
            | Selector::Command(_)
            | Selector::Sensor(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../tests/golden/validate.yaml");

    #[test]
    fn what_a_configuration_offers_is_told_as_reviewed() {
        let path = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/validate.txt");
        let text = judge(EXAMPLE).to_table();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
    #[test]
    fn mistakes_are_told_one_by_one() {
        let two = judge("discovery: {debounce: 2s, rescan: 0s}");
        assert!(!two.is_fine());
        assert_eq!(
            two.to_table(),
            "`discovery.debounce` (2s) is longer than 1s\n`discovery.rescan` (0s) is shorter than 1s\n"
        );
        let one = judge("discovry: {}");
        let why = "line 1, column 1: `discovry` is not known here; did you mean `discovery`?";
        assert_eq!(one.to_json(), json!({"resources": [], "warnings": [], "mistakes": [why]}));
        let fine = judge(EXAMPLE).to_json();
        assert_eq!((&fine["mistakes"], &fine["resources"][2]["replicas"]), (&json!([]), &json!(1000)));
    }
}
