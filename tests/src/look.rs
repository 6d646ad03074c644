//! What the kernel and the disk hold, read by `ip -j`, `nft -j` and plain files.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::call::try_tool;
use crate::node::{CLAIMS, LEASES, Namespace, RECORDS};

/// The JSON of `ip -j WORDS` on the node; an empty list where `ip` has nothing to say.
pub fn ip(words: &[&str]) -> Vec<Value> {
    let mut all = vec!["ip", "-j"];
    all.extend(words);
    list(&try_tool(&all).stdout)
}

/// The JSON of `ip -j WORDS` in a namespace.
pub fn ip_in(namespace: &Namespace, words: &[&str]) -> Vec<Value> {
    let mut all = vec!["ip", "-j"];
    all.extend(words);
    list(&namespace.try_tool(&all).stdout)
}

fn list(text: &str) -> Vec<Value> {
    match serde_json::from_str(text) {
        Ok(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// The names of the node's links.
pub fn links() -> Vec<String> {
    ip(&["link"]).iter().map(|l| text(l, "ifname")).collect()
}

/// The host ends of pods and their ifbs: ours, and the reference's.
pub fn host_ends() -> Vec<String> {
    links().into_iter().filter(|name| is_host_end(name)).collect()
}

fn is_host_end(name: &str) -> bool {
    let ours = name.len() == 14 && name.starts_with("np");
    ours || name.starts_with("veth") || name.starts_with("bwp")
}

/// The addresses of a link in a pod, link-local ones left out, as `address/prefix`.
pub fn addresses(pod: &Namespace, link: &str) -> BTreeSet<String> {
    let all = ip_in(pod, &["addr", "show", "dev", link]);
    let infos = all.iter().flat_map(|l| l["addr_info"].as_array().cloned().unwrap_or_default());
    infos
        .filter(|a| a["scope"] != "link")
        .map(|a| format!("{}/{}", text(&a, "local"), a["prefixlen"]))
        .collect()
}

/// The MTU of a link in a pod.
pub fn mtu(pod: &Namespace, link: &str) -> Option<u64> {
    ip_in(pod, &["link", "show", "dev", link]).first().and_then(|l| l["mtu"].as_u64())
}

/// The addresses that are leased, with their owners, below `/var/lib/cni/networks/NETWORK`.
pub fn leases(network: &str) -> Vec<(IpAddr, String)> {
    leases_in(&Path::new(LEASES).join(network))
}

/// The addresses that are leased in a folder of host-local's format.
pub fn leases_in(folder: &Path) -> Vec<(IpAddr, String)> {
    let mut found: Vec<(IpAddr, String)> = Vec::new();
    for path in files(folder) {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        // On disk an IPv6 address is written as it is read: file names may hold colons.
        if let Ok(address) = name.parse() {
            let owner = fs::read_to_string(&path).unwrap_or_default();
            found.push((address, owner.replace("\r\n", ":")));
        }
    }
    found.sort();
    found
}

/// The attachments on record.
pub fn records() -> Vec<String> {
    let names = files(Path::new(RECORDS)).into_iter();
    names.filter_map(|p| p.file_name().map(|n| n.to_string_lossy().into_owned())).collect()
}

/// The records of chained plugins, as `PLUGIN/ID:IFNAME`.
pub fn chained_records() -> Vec<String> {
    let base = Path::new(RECORDS).with_file_name("chained");
    let all = folders(&base).into_iter().flat_map(|folder| files(&folder));
    all.filter_map(|path| Some(path.strip_prefix(&base).ok()?.display().to_string())).collect()
}

/// The rule set, without what changes on its own.
pub fn rules() -> Vec<Value> {
    let answer = try_tool(&["nft", "-j", "list", "ruleset"]);
    let Ok(Value::Object(mut top)) = serde_json::from_str(&answer.stdout) else { return Vec::new() };
    let Some(Value::Array(mut items)) = top.remove("nftables") else { return Vec::new() };
    items.retain(|item| item.get("metainfo").is_none());
    items.iter_mut().for_each(forget_handles);
    items
}

fn forget_handles(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.remove("handle");
            if let Some(counter) = object.get_mut("counter") {
                *counter = Value::Null;
            }
            object.values_mut().for_each(forget_handles);
        }
        Value::Array(list) => list.iter_mut().for_each(forget_handles),
        _ => {}
    }
}

/// The elements of the sets and maps of our tables: `MAP ELEMENT`. Those that pods share are none of them.
pub fn elements() -> Vec<String> {
    let mut found = Vec::new();
    for item in rules() {
        for kind in ["set", "map"] {
            let set = &item[kind];
            if set["table"] == "nodeplug" {
                let list = set["elem"].as_array().cloned().unwrap_or_default();
                let own = list.iter().filter(|e| e["elem"]["comment"] != "nodeplug");
                found.extend(own.map(|e| format!("{} {e}", text(set, "name"))));
            }
        }
    }
    found
}

/// The full name of our set whose name begins like this: a network's name and hash follow.
pub fn set_named(start: &str) -> Option<String> {
    let rules = rules();
    let sets = rules.iter().map(|item| &item["set"]).filter(|set| set["table"] == "nodeplug");
    sets.map(|set| text(set, "name")).find(|name| name.starts_with(start))
}

/// All that pods left on the node: links, routes, neighbours, elements, leases, records.
pub fn leftovers() -> Vec<String> {
    let mut found: Vec<String> = host_ends().iter().map(|l| format!("link {l}")).collect();
    for family in ["-4", "-6"] {
        found.extend(of_host_ends("route", ip(&[family, "route", "show", "table", "all"])));
        found.extend(of_host_ends("neighbour", ip(&[family, "neigh", "show"])));
        let stuck = ip(&[family, "neigh", "show", "nud", "permanent"]).into_iter();
        found.extend(stuck.map(|n| format!("neighbour {n}")));
    }
    found.extend(elements().iter().map(|e| format!("element {e}")));
    for folder in folders(Path::new(LEASES)) {
        found.extend(leases_in(&folder).iter().map(|(ip, owner)| format!("lease {ip} of {owner}")));
    }
    found.extend(records().iter().chain(&chained_records()).map(|r| format!("record {r}")));
    found.extend(claims().iter().map(|c| format!("claim {c}")));
    found
}

/// The ports of the node that are claimed, as `PROTOCOL-PORT/ADDRESS`.
pub fn claims() -> Vec<String> {
    let folder = Path::new(CLAIMS);
    let named = |path: PathBuf| path.strip_prefix(folder).map(|p| p.display().to_string()).ok();
    folders(folder).iter().flat_map(|port| files(port)).filter_map(named).collect()
}

fn of_host_ends(what: &str, items: Vec<Value>) -> Vec<String> {
    let items = items.into_iter().filter(|i| is_host_end(&text(i, "dev")));
    items.map(|i| format!("{what} {i}")).collect()
}

/// Stops the test when pods left anything.
#[track_caller]
pub fn assert_nothing_left(when: &str) {
    let left = leftovers();
    assert!(left.is_empty(), "{when}: {} left: {left:#?}", left.len());
}

/// The whole state of the node, one fact a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Every fact that `keep` does not refuse. Facts begin with their kind: `link`, `address`, `route`,
    /// `neighbour`, `nft`, `file`.
    pub fn take(keep: impl Fn(&str) -> bool) -> Self {
        let mut facts = BTreeSet::new();
        for link in ip(&["addr"]) {
            facts.insert(format!("link {} mtu {} {}", text(&link, "ifname"), link["mtu"], link["address"]));
            for a in link["addr_info"].as_array().into_iter().flatten() {
                facts.insert(format!("address {} {}", text(&link, "ifname"), text(a, "local")));
            }
        }
        for family in ["-4", "-6"] {
            let routes = ip(&[family, "route", "show", "table", "all"]);
            facts.extend(routes.iter().map(|r| format!("route {r}")));
            let stuck = ip(&[family, "neigh", "show", "nud", "permanent"]);
            facts.extend(stuck.iter().map(|n| format!("neighbour {n}")));
        }
        facts.extend(rules().iter().map(|r| format!("nft {r}")));
        for folder in ["/var/lib/cni", "/var/lib/nodeplug", "/run"] {
            facts.extend(tree(Path::new(folder)).iter().map(|p| format!("file {}", p.display())));
        }
        Self(facts.into_iter().filter(|f| keep(f)).collect())
    }

    /// [`Snapshot::take`], and what other plugins make: queues, rules of routing, and the rules of iptables, as
    /// `iptables TABLE RULE` and `ip6tables TABLE RULE`.
    pub fn whole(keep: impl Fn(&str) -> bool) -> Self {
        let Self(facts) = Self::take(|_| true);
        // A bridge without ports is down when the kernel's own watch has come round.
        let mut facts: BTreeSet<_> = facts.iter().map(|f| f.replace(r#"["linkdown"]"#, "[]")).collect();
        facts.extend(queues(None).iter().map(|q| format!("qdisc {} {}", text(q, "dev"), text(q, "kind"))));
        for family in ["-4", "-6"] {
            facts.extend(ip(&[family, "rule", "show"]).iter().map(|rule| format!("rule {family} {rule}")));
        }
        for tool in ["iptables", "ip6tables"] {
            facts.extend(saved(tool).iter().map(|rule| format!("{tool} {rule}")));
        }
        facts.retain(|f| keep(f));
        Self(facts)
    }

    /// Every fact.
    pub fn facts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// What is here and not in `other`, and the other way round.
    pub fn difference(&self, other: &Self) -> Vec<String> {
        let gone = self.0.difference(&other.0).map(|f| format!("- {f}"));
        let new = other.0.difference(&self.0).map(|f| format!("+ {f}"));
        gone.chain(new).collect()
    }
}

/// The queueing disciplines on the node, or in a pod.
pub fn queues(pod: Option<&Namespace>) -> Vec<Value> {
    let words = ["tc", "-j", "qdisc", "show"];
    list(&pod.map_or_else(|| try_tool(&words), |pod| pod.try_tool(&words)).stdout)
}

/// `TABLE RULE` and `TABLE :CHAIN POLICY`, without counters and remarks.
fn saved(tool: &str) -> Vec<String> {
    let said = try_tool(&[&format!("{tool}-save")]).stdout;
    let mut table = String::new();
    let mut found = Vec::new();
    for line in said.lines() {
        match line.split_at_checked(1) {
            Some(("*", name)) => name.clone_into(&mut table),
            Some((":", _)) => found.push(format!("{table} {}", line.split(" [").next().unwrap_or(line))),
            Some(("-", _)) => found.push(format!("{table} {line}")),
            _ => {}
        }
    }
    found
}

fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = files(folder);
    for below in folders(folder) {
        found.extend(tree(&below));
    }
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    entries(folder, |kind| !kind.is_dir())
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    entries(folder, fs::FileType::is_dir)
}

fn entries(folder: &Path, want: impl Fn(&fs::FileType) -> bool) -> Vec<PathBuf> {
    let Ok(read) = fs::read_dir(folder) else { return Vec::new() };
    let wanted = read.flatten().filter(|e| e.file_type().is_ok_and(|kind| want(&kind)));
    wanted.map(|e| e.path()).collect()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}
