//! Keys of the reference's plugins that this program does not serve. Ignoring one would leave a pod
//! without what its operator asked for, so each is refused by name.

use serde_json::Value;

use crate::config::reader::{Problem, Reader};

const VLAN: [&str; 3] = ["vlan", "vlanTrunk", "preserveDefaultVlan"];

/// A key and the reference plugin that reads it.
const ELSEWHERE: [(&str, &str); 27] = [
    ("snat", "portmap"),
    ("masqAll", "portmap"),
    ("markMasqBit", "portmap"),
    ("externalSetMarkChain", "portmap"),
    ("conditionsV4", "portmap"),
    ("conditionsV6", "portmap"),
    ("ingressRate", "bandwidth"),
    ("ingressBurst", "bandwidth"),
    ("egressRate", "bandwidth"),
    ("egressBurst", "bandwidth"),
    ("shapedSubnets", "bandwidth"),
    ("unshapedSubnets", "bandwidth"),
    ("sysctl", "tuning"),
    ("mac", "tuning"),
    ("promisc", "tuning"),
    ("allmulti", "tuning"),
    ("txQLen", "tuning"),
    ("master", "macvlan` or `ipvlan"),
    ("linkInContainer", "macvlan` or `ipvlan"),
    ("vlanId", "vlan"),
    ("device", "host-device"),
    ("hwaddr", "host-device"),
    ("kernelpath", "host-device"),
    ("pciBusID", "host-device"),
    ("vrfname", "vrf"),
    ("table", "sbr` or `vrf"),
    ("delegate", "flannel"),
];

/// Reports each such key of `value` and takes it off the unknown ones.
pub(super) fn report(reader: &mut Reader<'_>, value: &Value, problems: &mut Vec<Problem>) {
    // A key is asked for only where it stands, so that the suggestion for a slip of the pen never names it.
    for key in VLAN.into_iter().filter(|k| value.get(k).is_some()) {
        let Some(value) = reader.value(key) else { continue };
        let what = format!("is {}, and VLANs on the bridge are not supported", shown(value));
        let hint = "take the key out: it needs a kernel with bridge VLAN filtering, on which this build was \
                    never shown working";
        problems.push(Problem::unsupported(&reader.place(key), what).hint(hint));
    }
    for (key, plugin) in ELSEWHERE.into_iter().filter(|(k, _)| value.get(k).is_some()) {
        let Some(value) = reader.value(key) else { continue };
        let what = format!(
            "is {}, a key of the reference's `{plugin}` plugin that is not supported here",
            shown(value)
        );
        let hint = match key {
            // A MAC that a later plugin sets is none that the neighbour entries know.
            "mac" => "ask for it by `args.cni.mac`, or declare the capability `mac`".to_owned(),
            _ => format!("take the key out, or put it into an entry of `{plugin}` in this network's list"),
        };
        problems.push(Problem::unsupported(&reader.place(key), what).hint(hint));
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    let cut: String = text.chars().take(60).collect();
    format!("`{cut}{}`", if cut.len() < text.len() { "…" } else { "" })
}
