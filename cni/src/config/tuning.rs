//! Settings of the pod's interface and namespace: the keys of the reference's tuning plugin.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::feature::Source;
use crate::config::reader::{Problem, Reader};
use crate::config::wanted::MAC_SHAPE;
use crate::mac::Mac;
use crate::role::Role;

/// Where the reference's tuning plugin keeps what was before.
pub const DATA_DIR: &str = "/run/cni/tuning";

/// What stands for the pod's interface in the name of a setting.
const IFNAME: &str = "IFNAME";

/// The least MTU that any link takes (RFC 791).
const LEAST_MTU: u32 = 68;

/// What is set. `None` and an empty list leave things as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// `sysctl`: name and value, in the order of the configuration. A wish has the name as it was written
    /// (see [`setting`]), what was before has it as below /proc/sys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctl: Vec<(String, String)>,
    /// The hardware address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether every frame is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promiscuous: Option<bool>,
    /// Whether every multicast frame is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_multicast: Option<bool>,
    /// `txQLen`, packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_length: Option<u32>,
    /// `dataDir`: the folder that the reference's plugin restores from; `None` where it is not concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
}

impl Tuning {
    /// `None` where nothing is asked for. Where this plugin makes the interface, its MAC and MTU shape it
    /// from the beginning, and are no tuning.
    pub(super) fn read(source: &mut Source<'_, '_>, problems: &mut Vec<Problem>) -> Option<Self> {
        let mut tuning = Self::read_keys(source.reader, !source.makes, problems);
        if let Some(args) = source.reader.value("args").and_then(|args| args.get("cni")) {
            let mut reader = Reader::new(args, &source.reader.place("args.cni"), &mut Vec::new());
            tuning.replace(Self::read_keys(&mut reader, !source.makes, problems));
        }
        if !source.makes {
            // Everybody in the chain is told of a MAC in CNI_ARGS; the reference's tuning takes it as its own.
            let asked = match source.role {
                Role::Tuning => source.mac,
                _ => source.runtime.as_ref().and_then(|(r, _)| r.get("mac")?.as_str()?.parse().ok()),
            };
            tuning.mac = asked.or(tuning.mac);
        }
        let folder = read_folder(source, problems);
        if tuning == Self::default() {
            return None;
        }
        tuning.folder = folder;
        Some(tuning)
    }

    fn read_keys(reader: &mut Reader<'_>, shapes: bool, problems: &mut Vec<Problem>) -> Self {
        let mut tuning = Self {
            sysctl: read_sysctl(reader, problems),
            // `false` asks for nothing, as the reference has it.
            promiscuous: reader.bool("promisc", problems).filter(|on| *on),
            all_multicast: reader.bool("allmulti", problems),
            queue_length: reader.number("txQLen", i32::MAX.unsigned_abs(), problems),
            ..Self::default()
        };
        if shapes {
            tuning.mac = reader.parsed("mac", MAC_SHAPE, problems);
            tuning.mtu = read_mtu(reader, problems);
        }
        tuning
    }

    /// What somebody asked for this one pod goes before the configuration.
    fn replace(&mut self, over: Self) {
        for (name, value) in over.sysctl {
            self.sysctl.retain(|(n, _)| setting(n, IFNAME) != setting(&name, IFNAME));
            self.sysctl.push((name, value));
        }
        self.mac = over.mac.or(self.mac);
        self.mtu = over.mtu.or(self.mtu);
        self.promiscuous = over.promiscuous.or(self.promiscuous);
        self.all_multicast = over.all_multicast.or(self.all_multicast);
        self.queue_length = over.queue_length.or(self.queue_length);
    }

    /// The file that the reference's plugin restores an interface from, below `dataDir`.
    pub fn file(folder: &Path, container: &str, ifname: &str) -> PathBuf {
        folder.join(format!("{container}_{ifname}.json"))
    }
}

/// The setting's name below /proc/sys. As sysctl(8) has it, the first separator decides: `.` and `/` then
/// change places, so that a dot in an interface's name can be written.
pub fn setting(name: &str, ifname: &str) -> String {
    let dotted =
        name.find(['.', '/']).is_some_and(|at| name.get(at..).is_some_and(|rest| rest.starts_with('.')));
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = if dotted { name.chars().map(swap).collect() } else { name.to_owned() };
    path.replacen(IFNAME, ifname, 1)
}

fn read_sysctl(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> Vec<(String, String)> {
    let Some(value) = reader.value("sysctl") else { return Vec::new() };
    let place = reader.place("sysctl");
    let Some(map) = value.as_object() else {
        problems.push(Problem::wrong(&place, "is not an object of names and values"));
        return Vec::new();
    };
    let mut all: Vec<(String, String)> = Vec::new();
    for (name, value) in map {
        let at = format!("{place}[{name:?}]");
        if let Err((what, hint)) = judge(name, value) {
            problems.push(Problem::wrong(&at, what).hint(hint));
        } else if all.iter().any(|(n, _)| setting(n, IFNAME) == setting(name, IFNAME)) {
            let what = "names a setting that stands here already, spelt in another way";
            problems.push(Problem::wrong(&at, what).hint("keep one of the two"));
        } else {
            all.push((name.clone(), value.as_str().unwrap_or_default().to_owned()));
        }
    }
    all
}

fn judge(name: &str, value: &Value) -> Result<(), (&'static str, &'static str)> {
    const HINT: &str = "write it as sysctl(8) does, such as net.ipv4.ip_forward or net/ipv4/ip_forward";
    let path = setting(name, "eth0");
    if path.starts_with('/') {
        return Err(("is an absolute path, and a setting is named from `net` on", HINT));
    }
    if !path.starts_with("net/") {
        let hint = "a pod has network settings of its own and no others: set the node's in its sysctl.conf";
        return Err(("is no setting below net, the only ones of a network namespace", hint));
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(("has an empty part, or one that leads elsewhere", HINT));
    }
    if path.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(("has a character that no setting's name has", HINT));
    }
    match value.as_str() {
        None => Err(("has a value that is not a string", "write the value in quotes")),
        Some(text) if text.contains('\0') => Err(("has a value with a NUL", "take it out")),
        Some(_) => Ok(()),
    }
}

fn read_mtu(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> Option<u32> {
    let mtu = reader.number("mtu", 65535, problems).filter(|mtu| *mtu != 0)?;
    if mtu < LEAST_MTU {
        let what = format!("is {mtu}, and no link takes less than {LEAST_MTU}");
        problems
            .push(Problem::wrong(&reader.place("mtu"), what).hint("leave it out to keep the interface's"));
        return None;
    }
    Some(mtu)
}

/// Only under the reference's own name are its files shared.
fn read_folder(source: &mut Source<'_, '_>, problems: &mut Vec<Problem>) -> Option<PathBuf> {
    if source.role != Role::Tuning {
        return None;
    }
    let folder = PathBuf::from(source.reader.string("dataDir", problems).unwrap_or(DATA_DIR));
    if !folder.is_absolute() {
        let what = format!("is `{}`, not an absolute path", folder.display());
        problems.push(Problem::wrong(&source.reader.place("dataDir"), what).hint("write it from `/` on"));
        return Some(DATA_DIR.into());
    }
    Some(folder)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::wanted::Asked;
    use crate::config::{NetConf, Position};

    fn read(role: Role, position: Position, value: &Value) -> (NetConf, Vec<String>) {
        let mut problems = Vec::new();
        let mut entry = json!({"cniVersion": "1.0.0", "name": "n", "type": role.name()});
        for (key, value) in value.as_object().unwrap() {
            entry[key] = value.clone();
        }
        let asked = Asked { ips: Vec::new(), mac: "0a:00:00:00:00:03".parse().ok() };
        let conf = NetConf::read(role, &entry, "", position, &asked, &mut problems);
        (conf, problems.iter().map(|p| format!("{}: {}", p.at, p.what)).collect())
    }

    #[test]
    fn names_are_read_as_sysctl_reads_them() {
        let cases = [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            ("net.ipv4.conf.IFNAME.arp_notify", "net/ipv4/conf/eth0.5/arp_notify"),
            ("net/ipv4/conf/IFNAME/arp_notify", "net/ipv4/conf/eth0.5/arp_notify"),
            ("net/ipv4/conf/eth1.7/forwarding", "net/ipv4/conf/eth1.7/forwarding"),
            ("net.ipv4.conf.eth1/7.forwarding", "net/ipv4/conf/eth1.7/forwarding"),
        ];
        for (name, path) in cases {
            assert_eq!(setting(name, "eth0.5"), path, "{name}");
        }
    }

    #[test]
    fn every_key_is_read_and_args_go_before_them() {
        let value = json!({
            "sysctl": {"net.core.somaxconn": "500", "net.ipv4.ip_forward": "0"},
            "mac": "0a:00:00:00:00:01", "mtu": 1400, "promisc": true, "allmulti": false, "txQLen": 7,
            "dataDir": "/run/x",
            "args": {"cni": {"sysctl": {"net/core/somaxconn": "600"}, "mtu": 1300, "txQLen": 0}},
        });
        let (conf, problems) = read(Role::Tuning, Position::Chained, &value);
        assert_eq!(problems, [""; 0]);
        let sysctl = [("net.ipv4.ip_forward", "0"), ("net/core/somaxconn", "600")];
        let wish = Tuning {
            sysctl: sysctl.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
            // CNI_ARGS' MAC goes before the configuration's.
            mac: "0a:00:00:00:00:03".parse().ok(),
            mtu: Some(1300),
            promiscuous: Some(true),
            all_multicast: Some(false),
            queue_length: Some(0),
            folder: Some("/run/x".into()),
        };
        assert_eq!(conf.features.tuning, Some(wish));
    }

    #[test]
    fn an_interface_of_our_own_is_shaped_and_another_plugins_is_tuned() {
        let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}]]});
        let mac = "0a:00:00:00:00:01".parse().ok();
        let value = json!({"mac": "0a:00:00:00:00:01", "mtu": 1400, "txQLen": 7});
        let mut first = value.clone();
        first["ipam"] = ipam;
        first["args"] = json!({"cni": {"mac": "0a:00:00:00:00:01"}});
        let (conf, problems) = read(Role::Main, Position::First, &first);
        assert_eq!(problems, [""; 0]);
        assert_eq!((conf.mac, conf.mtu), (mac, Some(1400)));
        let tuning = conf.features.tuning.unwrap();
        assert_eq!((tuning.mac, tuning.mtu, tuning.queue_length), (None, None, Some(7)));
        let (conf, problems) = read(Role::Main, Position::Chained, &value);
        assert_eq!(problems, [""; 0]);
        let tuning = conf.features.tuning.unwrap();
        assert_eq!((tuning.mac, tuning.mtu, tuning.folder), (mac, Some(1400), None));
        // A MAC in CNI_ARGS is the first plugin's affair.
        let (conf, _) = read(Role::Main, Position::Chained, &json!({"mtu": 1400}));
        assert_eq!(conf.features.tuning.unwrap().mac, None);
        let (conf, _) = read(Role::Main, Position::Chained, &json!({"promisc": false}));
        assert_eq!(conf.features.tuning, None);
    }

    #[test]
    fn what_no_pod_can_have_is_refused_with_its_place() {
        let cases = [
            (
                json!({"sysctl": {"kernel.hostname": "x"}}),
                "sysctl[\"kernel.hostname\"]: is no setting below net",
            ),
            (json!({"sysctl": {"net/../kernel/x": "1"}}), "sysctl[\"net/../kernel/x\"]: has an empty part"),
            (json!({"sysctl": {"net..x": "1"}}), "sysctl[\"net..x\"]: has an empty part"),
            (json!({"sysctl": {"/proc/sys/net/x": "1"}}), "sysctl[\"/proc/sys/net/x\"]: is an absolute path"),
            (json!({"sysctl": {"net.core.somaxconn": 500}}), "has a value that is not a string"),
            (json!({"sysctl": {"net.a.b": "1", "net/a/b": "1"}}), "spelt in another way"),
            (json!({"sysctl": []}), "sysctl: is not an object"),
            (json!({"mtu": 67}), "mtu: is 67, and no link takes less than 68"),
            (json!({"txQLen": -1}), "txQLen: is `-1`, not a whole number"),
            (json!({"mac": "zz"}), "mac: `zz` is not a hardware address"),
            (json!({"dataDir": "x"}), "dataDir: is `x`, not an absolute path"),
        ];
        for (value, expect) in cases {
            let (_, problems) = read(Role::Tuning, Position::Chained, &value);
            assert!(problems.iter().any(|p| p.contains(expect)), "{value}: {problems:?}");
        }
    }
}
