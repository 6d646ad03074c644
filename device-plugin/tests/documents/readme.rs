//! README.md does what it says: its configurations are some, its tables have every key and no other, and what it calls a
//! default is one.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use device_plugin::config::Config;
use device_plugin::metrics::Metrics;
use serde_json::Value;

use super::page::{blocks, quoted, table, text};
use super::schema;

/// Under which heading the keys of a type are.
const HEADINGS: [(&str, &str); 30] = [
    ("Config", "Top level"),
    ("Kubelet", "`kubelet`"),
    ("Host", "`host`"),
    ("Discovery", "`discovery`"),
    ("Http", "`http`"),
    ("Resource", "A resource"),
    ("Selector", "Sources"),
    ("PathSelector", "`path`"),
    ("FileKind", "`path.kinds`"),
    ("UsbSelector", "`usb`"),
    ("PciSelector", "`pci`"),
    ("SysfsSelector", "`sysfs`"),
    ("ParentMatch", "A parent"),
    ("NetSelector", "`net`"),
    ("BlockSelector", "`block`"),
    ("CharSelector", "`char`"),
    ("GroupSelector", "`group`"),
    ("Member", "A member of a group"),
    ("FileSelector", "`file`"),
    ("CommandSelector", "`command`"),
    ("SensorSelector", "`sensor`"),
    ("Measure", "`sensor.of`"),
    ("Preference", "`prefer`"),
    ("Health", "`health`"),
    ("Check", "A check"),
    ("Sensor", "A sensor that is checked"),
    ("Allocate", "`allocate`"),
    ("NodeOptions", "`allocate.node`"),
    ("ExtraDevice", "`allocate.devices`"),
    ("Mount", "`allocate.mounts`"),
];

/// Those whose keys stand in another type's table, and those that stand apart.
const OTHERS: [(&str, &str); 2] = [("Cdi", "`allocate.cdi`"), ("Registration", "")];

fn page() -> String {
    text("README.md")
}

fn told(page: &str, title: &str) -> BTreeSet<String> {
    table(page, title).iter().flat_map(|row| quoted(row[0])).map(str::to_owned).collect()
}

#[test]
fn every_configuration_of_the_readme_is_one() {
    let pages = [page(), text("../README.md")];
    let configurations: Vec<&str> =
        pages.iter().flat_map(|page| blocks(page)).filter(|block| block.starts_with("resources:")).collect();
    assert!(configurations.len() >= 11, "{}", configurations.len());
    for text in configurations {
        let config = Config::parse(text).unwrap_or_else(|e| panic!("{}\n{text}", e.chain()));
        let warnings = config.warnings();
        assert!(warnings.is_empty(), "{warnings:?}\n{text}");
    }
}

#[test]
fn the_tables_of_the_readme_have_every_key_and_no_other() {
    let (page, keys) = (page(), schema::keys());
    let headings: BTreeMap<&str, &str> = HEADINGS.into_iter().chain(OTHERS).collect();
    let known: BTreeSet<&str> = keys.keys().map(String::as_str).collect();
    assert_eq!(known, headings.keys().copied().collect(), "types with keys, and those that have a table");
    for (name, title) in headings.into_iter().filter(|(_, title)| !title.is_empty()) {
        assert_eq!(told(&page, title), keys[name], "{title}");
    }
}

#[test]
fn what_the_readme_calls_a_default_is_one() {
    let page = page();
    let config = serde_json::to_value(Config::default()).unwrap();
    let health = serde_json::to_value(device_plugin::config::Health::default()).unwrap();
    for (title, defaults) in [
        ("`kubelet`", &config["kubelet"]),
        ("`host`", &config["host"]),
        ("`discovery`", &config["discovery"]),
        ("`http`", &config["http"]),
        ("`health`", &health),
    ] {
        for row in table(&page, title) {
            let key = quoted(row[0]).next().unwrap();
            let expect = match &defaults[key] {
                Value::Null => "none".to_owned(),
                Value::Array(none) if none.is_empty() => "none".to_owned(),
                Value::String(text) => format!("`{text}`"),
                other => format!("`{other}`"),
            };
            assert_eq!(row[1], expect, "{title} {key}");
        }
    }
}

#[test]
fn the_table_of_metrics_has_every_metric_with_its_labels() {
    let (metrics, name) = (Metrics::default(), "example.com/x".parse().unwrap());
    metrics.listed(&name, 1, 0, 9);
    metrics.allocated(&name, true, Duration::ZERO);
    metrics.registered(&name, "start", true);
    metrics.streaming(&name, true);
    metrics.sent(&name);
    metrics.looked(&name, Duration::ZERO);
    metrics.held(&name, 1);
    metrics.announced(1);
    metrics.reloaded(true);
    let known: BTreeMap<String, String> = metrics.text().lines().filter_map(metric).collect();
    let page = page();
    let rows = table(&page, "Metrics and health");
    let told: BTreeMap<String, String> = rows
        .iter()
        .filter(|row| !row[0].contains('/'))
        .map(|row| (row[0].trim_matches('`').to_owned(), row[1].to_owned()))
        .collect();
    assert_eq!(told, known);
}

/// The name and the labels' names of a line, without our prefix; a histogram's by its count.
fn metric(line: &str) -> Option<(String, String)> {
    let (whole, _) = line.strip_prefix("nodeplug_device_plugin_")?.rsplit_once(' ')?;
    let (name, labels) = whole.split_once('{').unwrap_or((whole, ""));
    let name = name.strip_suffix("_count").unwrap_or(name);
    if name.ends_with("_bucket") || name.ends_with("_sum") {
        return None;
    }
    let labels: Vec<&str> =
        labels.split(',').filter_map(|pair| pair.split_once('=')).map(|(l, _)| l).collect();
    Some((name.to_owned(), labels.join(", ")))
}
#[test]
fn the_table_of_commands_has_every_command() {
    let help = Command::new(env!("CARGO_BIN_EXE_nodeplug-device-plugin")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    let known: BTreeSet<String> = names.filter(|name| *name != "help").map(str::to_owned).collect();
    let page = page();
    let rows = table(&page, "Commands");
    let told = rows.iter().filter_map(|row| quoted(row[0]).next()?.split(' ').next());
    assert_eq!(told.map(str::to_owned).collect::<BTreeSet<_>>(), known);
}
