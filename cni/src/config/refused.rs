//! Keys of the reference's plugins that this program does not serve. Ignoring one would leave a pod
//! without what its operator asked for, so each is refused by name.

use serde_json::Value;

use crate::config::reader::{Problem, Reader};
use crate::role::{OWN, Role};

const VLAN: [&str; 3] = ["vlan", "vlanTrunk", "preserveDefaultVlan"];

/// Keys that the reference's plugins would pass over.
const OURS: [&str; 3] = ["mode", "encapOverhead", "nonMasqueradeCIDRs"];

/// A key and the reference plugin that reads it.
const ELSEWHERE: &[(&str, &str)] = &[
    ("shapedSubnets", "bandwidth"),
    ("unshapedSubnets", "bandwidth"),
    ("master", "macvlan` or `ipvlan"),
    ("linkInContainer", "macvlan` or `ipvlan"),
    ("vlanId", "vlan"),
    ("device", "host-device"),
    ("hwaddr", "host-device"),
    ("kernelpath", "host-device"),
    ("pciBusID", "host-device"),
    ("vrfname", "vrf"),
    ("delegate", "flannel"),
];

/// Reports each such key of `value` and takes it off the unknown ones.
pub(super) fn report(reader: &mut Reader<'_>, value: &Value, role: Role, problems: &mut Vec<Problem>) {
    for key in OURS.into_iter().filter(|k| role != Role::Main && value.get(k).is_some()) {
        let Some(value) = reader.value(key) else { continue };
        let what =
            format!("is {}, a key of `{OWN}` that the reference's `{}` lacks", shown(value), role.name());
        let hint = format!("write `\"type\": \"{OWN}\"`, or take the key out");
        problems.push(Problem::unsupported(&reader.place(key), what).hint(hint));
    }
    // A key is asked for only where it stands, so that the suggestion for a slip of the pen never names it.
    for key in VLAN.into_iter().filter(|k| value.get(k).is_some()) {
        let Some(value) = reader.value(key) else { continue };
        let what = format!("is {}, and VLANs on the bridge are not supported", shown(value));
        let hint = "take the key out: it needs a kernel with bridge VLAN filtering, on which this build was \
                    never shown working";
        problems.push(Problem::unsupported(&reader.place(key), what).hint(hint));
    }
    for (key, plugin) in ELSEWHERE.iter().copied().filter(|(k, _)| value.get(k).is_some()) {
        let Some(value) = reader.value(key) else { continue };
        let what = format!(
            "is {}, a key of the reference's `{plugin}` plugin that is not supported here",
            shown(value)
        );
        let back = matches!(key, "shapedSubnets" | "unshapedSubnets");
        let hint = if back {
            "take the key out: the reference took it back".to_owned()
        } else {
            format!("take the key out, or put it into an entry of `{plugin}` in this network's list")
        };
        problems.push(Problem::unsupported(&reader.place(key), what).hint(hint));
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    let cut: String = text.chars().take(60).collect();
    format!("`{cut}{}`", if cut.len() < text.len() { "…" } else { "" })
}
