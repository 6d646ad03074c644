//! Settings of the pod's interface and namespace as steps, and what puts them back.

use std::net::IpAddr;

use node::{Error, Kind, Result};
use serde_json::{Map, Value, json};

use crate::attachment::Attachment;
use crate::config::tuning::{Tuning, setting};
use crate::mac::Mac;
use crate::owner::Owner;
use crate::plan::step::{Place, Step, Verb};
use crate::plan::target::Target;

/// What IPv6 needs (RFC 8200, section 5): with less, the kernel takes it off the interface.
const LEAST_MTU_6: u32 = 1280;

/// What is known of the pod before its interface is tuned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Before {
    /// The values of the settings that are about to change, named as below /proc/sys.
    pub settings: Vec<(String, String)>,
    /// Entries of the node's neighbour tables that know the pod's addresses by its MAC.
    pub known: Vec<Known>,
    /// The neighbours that the interface itself knows for ever. With a new MAC the kernel forgets them.
    pub neighbours: Vec<(IpAddr, Mac)>,
}

/// One such entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The node's link.
    pub link: String,
    /// The pod's address.
    pub address: IpAddr,
    /// It never expires.
    pub permanent: bool,
}

/// Refuses what the interface cannot have.
pub fn judge(tuning: &Tuning, target: &Target) -> Result<()> {
    let six = target.addresses.iter().any(|net| net.addr().is_ipv6());
    match tuning.mtu.filter(|mtu| six && *mtu < LEAST_MTU_6) {
        Some(mtu) => Err(Error::new(
            Kind::Config,
            format!(
                "set an MTU of {mtu} on `{}`, whose IPv6 address needs {LEAST_MTU_6}",
                target.owner.ifname
            ),
        )
        .hint("set a higher `mtu`, or give the pod no IPv6 address")),
        None => Ok(()),
    }
}

/// The steps, with what was before kept first where another plugin made the interface: it may outlive the
/// pod.
pub fn steps(tuning: &Tuning, target: &Target) -> Vec<Step> {
    let link = &target.owner.ifname;
    let mut steps = Vec::new();
    if let Some(before) = before(tuning, target) {
        let (link, file) = (link.clone(), file_of(&before, &target.owner));
        steps.push(Step::Keep { link, before: Box::new(before), file });
    }
    if tuning.mac.is_some() {
        // Neighbours hear of the new address at once, IPv4's by ARP and IPv6's by an advertisement.
        for name in announcements(link).into_iter().filter(|name| name.contains("ipv6")) {
            steps.push(Step::setting(Place::Pod, &name, "1"));
        }
        steps.push(Step::pod(Verb::ArpNotify { link: link.clone() }));
    }
    steps.extend(verbs(link, tuning).into_iter().map(Step::pod));
    if tuning.mac.is_some() {
        steps.extend(remembered(link, &target.tuned.neighbours).into_iter().map(Step::pod));
    }
    steps.extend(tuning.mac.map(|mac| known(mac, target)).into_iter().flatten());
    steps.extend(
        tuning
            .sysctl
            .iter()
            .map(|(name, value)| Step::Sysctl { name: setting(name, link), value: value.clone() }),
    );
    steps
}

/// The changes of the link itself, for the way there and back.
pub fn verbs(link: &str, tuning: &Tuning) -> Vec<Verb> {
    let name = || link.to_owned();
    let mut verbs = Vec::new();
    verbs.extend(tuning.mtu.map(|mtu| Verb::Mtu { link: name(), mtu }));
    verbs.extend(tuning.mac.map(|mac| Verb::Mac { link: name(), mac }));
    verbs.extend(tuning.promiscuous.map(|on| Verb::Promiscuous { link: name(), on }));
    verbs.extend(tuning.all_multicast.map(|on| Verb::AllMulticast { link: name(), on }));
    verbs.extend(tuning.queue_length.map(|packets| Verb::QueueLength { link: name(), packets }));
    verbs
}

/// The neighbours that the interface knew for ever before its MAC changed.
pub fn remembered(link: &str, neighbours: &[(IpAddr, Mac)]) -> Vec<Verb> {
    let entry = |(address, mac): &(IpAddr, Mac)| Verb::Neighbour {
        link: link.to_owned(),
        address: *address,
        mac: *mac,
        permanent: true,
    };
    neighbours.iter().map(entry).collect()
}

/// The settings whose value a wish changes, as below /proc/sys.
pub fn settings(tuning: &Tuning, link: &str) -> Vec<String> {
    let asked = tuning.sysctl.iter().map(|(name, _)| setting(name, link));
    let told = announcements(link).into_iter().filter(|_| tuning.mac.is_some());
    asked.chain(told).collect()
}

/// What of an interface that another plugin made has to be kept: only that which is about to change.
pub fn before(tuning: &Tuning, target: &Target) -> Option<Tuning> {
    let link = target.before.as_ref()?;
    Some(Tuning {
        sysctl: target.tuned.settings.clone(),
        mac: link.mac.filter(|_| tuning.mac.is_some()),
        mtu: tuning.mtu.map(|_| link.mtu),
        promiscuous: tuning.promiscuous.map(|_| link.promiscuous),
        all_multicast: tuning.all_multicast.map(|_| link.all_multicast),
        queue_length: tuning.queue_length.map(|_| link.queue_length),
        folder: tuning.folder.clone().filter(|_| changes_the_link(tuning)),
    })
}

/// What puts an interface back that a record says was changed.
pub fn unmake(record: &Attachment) -> Option<Step> {
    let before = record.restore.clone()?;
    let file = file_of(&before, &record.owner);
    Some(Step::Restore { link: record.owner.ifname.clone(), before: Box::new(before), file })
}

/// What the reference's plugin kept, as it wrote it (plugins/meta/tuning, `configToRestore`). What does not
/// read is left out.
pub fn from_reference(value: &Value) -> Tuning {
    let number = |key| value.get(key).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    let switch = |key| value.get(key).and_then(Value::as_bool);
    Tuning {
        mac: value.get("mac").and_then(Value::as_str).and_then(|mac| mac.parse().ok()),
        mtu: number("mtu").filter(|mtu| *mtu != 0),
        promiscuous: switch("promisc"),
        all_multicast: switch("allmulti"),
        queue_length: number("txQLen"),
        ..Tuning::default()
    }
}

/// The same in the reference's words. It knows of no settings.
pub fn to_reference(before: &Tuning) -> Value {
    let keys = [
        ("mac", before.mac.map(|mac| json!(mac))),
        ("promisc", before.promiscuous.map(|on| json!(on))),
        ("mtu", before.mtu.map(|mtu| json!(mtu))),
        ("allmulti", before.all_multicast.map(|on| json!(on))),
        ("txQLen", before.queue_length.map(|packets| json!(packets))),
    ];
    Value::Object(keys.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))).collect::<Map<_, _>>())
}

/// The reference writes its file for changes of the interface, and none for settings alone.
fn changes_the_link(tuning: &Tuning) -> bool {
    !verbs("", tuning).is_empty()
}

fn file_of(before: &Tuning, owner: &Owner) -> Option<std::path::PathBuf> {
    before.folder.as_ref().map(|folder| Tuning::file(folder, &owner.container_id, &owner.ifname))
}

/// With these on, a link tells its neighbours of a new address (kernel: ip-sysctl).
fn announcements(link: &str) -> [String; 2] {
    [format!("net/ipv4/conf/{link}/arp_notify"), format!("net/ipv6/conf/{link}/ndisc_notify")]
}

/// A neighbour entry that never expires would lead to the old MAC for ever.
fn known(mac: Mac, target: &Target) -> Vec<Step> {
    let entry = |known: &Known| Verb::Neighbour {
        link: known.link.clone(),
        address: known.address,
        mac,
        permanent: known.permanent,
    };
    target.tuned.known.iter().map(|known| Step::host(entry(known))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::link::Link;

    fn wish() -> Tuning {
        Tuning {
            sysctl: vec![("net.ipv4.conf.IFNAME.forwarding".into(), "1".into())],
            mac: "0a:00:00:00:00:01".parse().ok(),
            mtu: Some(1400),
            promiscuous: Some(true),
            all_multicast: Some(true),
            queue_length: Some(7),
            folder: Some("/run/cni/tuning".into()),
        }
    }

    fn target() -> Target {
        let address: IpAddr = "10.1.0.7".parse().unwrap();
        Target {
            owner: Owner { container_id: "c".into(), ifname: "eth0".into() },
            before: Some(Link {
                mac: "0a:00:00:00:00:09".parse().ok(),
                mtu: 1500,
                queue_length: 1000,
                ..Link::default()
            }),
            tuned: Before {
                settings: vec![("net/ipv4/conf/eth0/forwarding".into(), "0".into())],
                known: vec![Known { link: "veth0".into(), address, permanent: true }],
                neighbours: vec![("10.1.0.1".parse().unwrap(), "0a:00:00:00:00:07".parse().unwrap())],
            },
            ..Target::default()
        }
    }

    #[test]
    fn what_was_is_kept_before_anything_is_changed() {
        let lines: Vec<_> = steps(&wish(), &target()).iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "keep what `eth0` in the pod is before it is changed",
                "in the pod: set `net/ipv6/conf/eth0/ndisc_notify` to 1",
                "in the pod: have `eth0` announce its addresses",
                "in the pod: set the MTU of `eth0` to 1400",
                "in the pod: fix the MAC of `eth0` at 0a:00:00:00:00:01",
                "in the pod: make `eth0` promiscuous",
                "in the pod: set all-multicast on `eth0` to true",
                "in the pod: set the queue of `eth0` to 7 packets",
                "in the pod: tell `eth0` that `10.1.0.1` is at 0a:00:00:00:00:07",
                "tell `veth0` that `10.1.0.7` is at 0a:00:00:00:00:01",
                "in the pod: set `net/ipv4/conf/eth0/forwarding` to `1`",
            ]
        );
    }

    #[test]
    fn a_del_plans_what_the_undo_of_an_add_does() {
        let undo: Vec<Step> =
            steps(&wish(), &target()).iter().filter_map(node::step::Step::inverse).collect();
        let record = Attachment {
            owner: target().owner,
            restore: before(&wish(), &target()),
            ..Attachment::default()
        };
        assert_eq!(undo, Vec::from_iter(unmake(&record)));
        assert_eq!(
            undo,
            [Step::Restore {
                link: "eth0".into(),
                before: Box::new(Tuning {
                    sysctl: vec![("net/ipv4/conf/eth0/forwarding".into(), "0".into())],
                    mac: "0a:00:00:00:00:09".parse().ok(),
                    mtu: Some(1500),
                    promiscuous: Some(false),
                    all_multicast: Some(false),
                    queue_length: Some(1000),
                    folder: Some("/run/cni/tuning".into()),
                }),
                file: Some("/run/cni/tuning/c_eth0.json".into()),
            }]
        );
    }

    #[test]
    fn an_interface_of_this_call_is_changed_and_nothing_kept() {
        let target = Target { before: None, ..target() };
        let tuning = Tuning { mac: None, mtu: None, folder: None, ..wish() };
        assert!(!steps(&tuning, &target).iter().any(|s| matches!(s, Step::Keep { .. })));
        assert_eq!(before(&tuning, &target), None);
    }

    #[test]
    fn the_references_file_is_read_as_it_is_written() {
        let kept = Tuning { sysctl: Vec::new(), folder: None, promiscuous: Some(false), ..wish() };
        let file = to_reference(&kept);
        assert_eq!(
            file,
            json!({"mac": "0a:00:00:00:00:01", "promisc": false, "mtu": 1400, "allmulti": true, "txQLen": 7})
        );
        assert_eq!(from_reference(&file), kept);
        assert_eq!(from_reference(&json!({"mac": 7, "x": true})), Tuning::default());
        assert_eq!(from_reference(&json!([])), Tuning::default());
    }

    #[test]
    fn ipv6_keeps_the_mtu_that_it_needs() {
        let target = Target { addresses: vec!["fd00::7/64".parse().unwrap()], ..target() };
        let with = |mtu| Tuning { mtu: Some(mtu), ..Tuning::default() };
        assert!(judge(&with(1280), &target).is_ok());
        let refused = judge(&with(1279), &target).unwrap_err().chain();
        assert_eq!(refused, "set an MTU of 1279 on `eth0`, whose IPv6 address needs 1280");
    }
}
