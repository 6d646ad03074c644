//! Devices that two resources would offer: two pods could have the same one, each for itself alone.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::selector::literal;
use crate::config::{PathSelector, Resource, Selector};
use crate::inventory::{DeviceNumber, Found};

/// A node that belongs to no device: it is handed out beside each of its kind.
const COMMON: &str = "/dev/vfio/vfio";

/// A device that two resources found, or one resource as two devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The resource that came first, and what it knows the device by.
    pub first: (String, String),
    /// The other one, and what it knows the device by.
    pub second: (String, String),
    /// What they share: a path or a folder of sysfs.
    pub what: String,
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((first, one), (second, other)) = (&self.first, &self.second);
        if first == second {
            return write!(f, "`{first}` has `{}` twice, as `{one}` and as `{other}`", self.what);
        }
        write!(f, "`{first}` (`{one}`) and `{second}` (`{other}`) both offer `{}`", self.what)
    }
}

/// What makes a device the same one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Mark<'a> {
    Device(bool, u32, u32),
    File(&'a Path),
    Sysfs(&'a Path),
}

/// Devices that were found twice, each pair once.
pub fn overlaps(resources: &[(&str, &[Found])]) -> Vec<Overlap> {
    let mut known: BTreeMap<Mark<'_>, (&str, &str)> = BTreeMap::new();
    let mut overlaps: Vec<Overlap> = Vec::new();
    for (resource, found) in resources {
        for found in *found {
            let own = (*resource, found.identity.as_str());
            let nodes = found.nodes.iter().filter(|node| node.real.as_path() != Path::new(COMMON));
            let nodes = nodes.map(|node| (mark(node.device, &node.real), node.real.as_path()));
            let sysfs = found.sysfs.as_deref().map(|path| (Mark::Sysfs(path), path));
            for (mark, path) in nodes.chain(sysfs) {
                let first = *known.entry(mark).or_insert(own);
                let pair = |o: &Overlap| is(&o.first, first) && is(&o.second, own);
                if first != own && !overlaps.iter().any(pair) {
                    let what = path.display().to_string();
                    overlaps.push(Overlap { first: owned(first), second: owned(own), what });
                }
            }
        }
    }
    overlaps
}

fn mark(device: Option<DeviceNumber>, real: &Path) -> Mark<'_> {
    device.map_or(Mark::File(real), |d| Mark::Device(d.block, d.major, d.minor))
}

fn is(owned: &(String, String), (resource, identity): (&str, &str)) -> bool {
    owned.0 == resource && owned.1 == identity
}

fn owned((resource, identity): (&str, &str)) -> (String, String) {
    (resource.to_owned(), identity.to_owned())
}

/// Selectors that are sure to find the same devices, whatever the node has.
pub(super) fn written(resources: &[Resource]) -> Vec<String> {
    let all: Vec<_> = resources
        .iter()
        .flat_map(|r| r.devices.iter().enumerate().map(move |(n, selector)| (r, n, selector)))
        .collect();
    let mut overlaps = Vec::new();
    for (n, (resource, index, selector)) in all.iter().enumerate() {
        for (first, other, earlier) in all.iter().take(n) {
            let Some(what) = same(earlier, selector) else { continue };
            overlaps.push(if first.name == resource.name {
                format!("`{}`: `devices[{index}]` finds what `devices[{other}]` finds ({what}); leave one \
                     out", resource.name)
            } else {
                format!(
                    "`{}`: `devices[{index}]` finds what `{}` offers by its `devices[{other}]` ({what}), so that two \
                     pods would have the same device; take it out of one of them, or use `replicas`",
                    resource.name, first.name
                )
            });
        }
    }
    overlaps
}

/// What both are sure to find.
fn same(one: &Selector, other: &Selector) -> Option<String> {
    match (one, other) {
        (Selector::Path(one), Selector::Path(other)) => same_path(one, other),
        (Selector::Count(_) | Selector::File(_) | Selector::Command(_) | Selector::Sensor(_), _) => None,
        (Selector::Group(one), Selector::Group(other)) => {
            (one.parent == other.parent && one.members == other.members).then(|| "the same group".to_owned())
        }
        _ => (one == other).then(|| "the same selector".to_owned()),
    }
}

fn same_path(one: &PathSelector, other: &PathSelector) -> Option<String> {
    if one.kinds != other.kinds {
        return None;
    }
    if one.regex.is_some()
        && one.regex == other.regex
        && one.below == other.below
        && one.exclude == other.exclude
    {
        return Some("the same regular expression".to_owned());
    }
    let pairs = one.glob.iter().flat_map(|a| other.glob.iter().map(move |b| (a, b)));
    for (a, b) in pairs {
        let hit = match (literal(a), literal(b)) {
            (true, _) if b.matches_path(a.as_str()) => Some(a),
            (_, true) if a.matches_path(b.as_str()) => Some(b),
            _ if a == b && one.exclude == other.exclude => Some(a),
            _ => None,
        };
        let excluded =
            |path: &str| one.exclude.iter().chain(&other.exclude).any(|glob| glob.matches_path(path));
        if let Some(glob) = hit.filter(|glob| !literal(glob) || !excluded(glob.as_str())) {
            return Some(format!("`{glob}`"));
        }
    }
    None
}
