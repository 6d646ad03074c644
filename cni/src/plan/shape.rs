//! The pod's rates: token buckets on both ways of its host link.
//!
//! What the pod receives leaves by the host link, whose root qdisc is a bucket. What it sends arrives
//! there, where nothing can wait: it is redirected to an ifb of the pod's own, and waits at that one's
//! root. Nothing of it is in the pod, which could take it off.

use node::{Error, Kind, Result};
use sha2::{Digest, Sha512};

use crate::attachment::Attachment;
use crate::config::bandwidth::{Bandwidth, Rate};
use crate::kernel::tc::Bucket;
use crate::mac::Mac;
use crate::owner::Owner;
use crate::plan::step::{Step, Verb};
use crate::plan::target::Target;

/// How long a packet waits at the most, beside the time of the burst: the reference's.
const LATENCY_MS: u64 = 25;
/// A burst that nobody told is worth this time of the rate: long enough for every timer, and the first
/// second holds 1 % more.
const BURST_MS: u64 = 10;
/// It is this large at the least, in bytes: some packets in a row, so that slow rates are held as well.
const LEAST_BURST: u64 = 16 * 1024;
/// 2³² ticks of 64 ns, in whole seconds.
const LONGEST_FILL: u64 = 274;
/// What a packet counts beside the link's MTU: the Ethernet header.
const HEADER: u64 = 14;
/// Before the owner in an ifb's alias.
const MARK: &str = "nodeplug ";

/// The name of a pod's ifb: the reference's, so that either program finds the other's. Fifteen bytes of
/// `bwp` and the SHA-512 of network and container id in hex (`getIfbDeviceName` in its source).
pub fn ifb(network: &str, owner: &Owner) -> String {
    let [a, b, c, d, e, f, ..] = hash(network, owner);
    format!("bwp{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}")
}

/// The chain of the reference's `ipMasq` (`bridge`, `ptp`) and that of its `portmap`: of its `FormatChainName`, cut
/// to 28 characters.
pub fn chains_of_reference(network: &str, owner: &Owner) -> [String; 2] {
    let hash = hash(network, owner);
    let head = hash.first_chunk().copied().map_or(0, u128::from_be_bytes);
    ["CNI-", "CNI-DN-"].map(|prefix| format!("{prefix}{head:032x}").chars().take(28).collect())
}

/// Its hardware address, which nobody sends to: one that the result can name without asking.
pub fn ifb_mac(network: &str, owner: &Owner) -> Mac {
    let [_, _, _, _, _, _, a, b, c, d, e, ..] = hash(network, owner);
    Mac([0x02, a, b, c, d, e])
}

fn hash(network: &str, owner: &Owner) -> [u8; 64] {
    Sha512::digest(format!("{network}{}", owner.container_id)).into()
}

/// Whose ifb the alias names; `None` where it is none of this program's.
pub fn named_owner(alias: Option<&str>) -> Option<Owner> {
    Owner::from_key(alias?.strip_prefix(MARK)?)
}

/// Refuses rates for an interface that this node cannot see the end of, and bursts that would let nothing
/// pass.
pub fn judge(bandwidth: &Bandwidth, target: &Target) -> Result<()> {
    if target.host_link.is_none() {
        let what =
            format!("limit the rates of `{}`, which has no veth end on this node", target.owner.ifname);
        return Err(Error::new(Kind::Config, what)
            .hint("take the rates out: they need an interface of bridge, ptp or another plugin of veths"));
    }
    for (way, rate) in [("ingress", bandwidth.ingress), ("egress", bandwidth.egress)] {
        let Some(rate) = rate else { continue };
        let frame = u64::from(target.mtu) + HEADER;
        if bucket(&rate, target.mtu).largest_packet() >= frame {
            continue;
        }
        let burst = rate.burst.map_or_else(String::new, |bits| format!(" and a burst of {bits} bits"));
        let what = format!(
            "hold the {way} rate of {} bits a second{burst}, by which no packet of the MTU {} could pass",
            rate.rate, target.mtu
        );
        // A bucket fills within the time that 32 bits of ticks count, whatever its burst.
        let (least_rate, least_burst) =
            (frame * 8 / LONGEST_FILL + 1, frame * 8 + rate.rate.div_ceil(500_000));
        let hint = if rate.rate < least_rate {
            format!("set `{way}Rate` to {least_rate} or more")
        } else {
            format!("set `{way}Burst` to {least_burst} or more")
        };
        return Err(Error::new(Kind::Config, what).hint(hint));
    }
    Ok(())
}

/// What is done between the making of the host link and its start: the kernel waits for an RCU grace
/// period when the root qdisc of a link changes that is up.
pub fn steps(bandwidth: &Bandwidth, target: &Target) -> Vec<Step> {
    let Some(link) = &target.host_link else { return Vec::new() };
    let (foreign, owner) = (target.before.is_some(), &target.owner);
    let shape = |link: &str, rate: &Rate, foreign| {
        let (handle, bucket) = (owner.qdisc_handle(), bucket(rate, target.mtu));
        Step::host(Verb::Shape { link: link.to_owned(), handle, bucket, told: rate.burst.is_some(), foreign })
    };
    let mut steps = Vec::new();
    let ifb = ifb(&target.network, owner);
    if bandwidth.egress.is_some() {
        let mac = ifb_mac(&target.network, owner);
        steps.extend([
            Step::host(Verb::CreateIfb { link: ifb.clone(), mac, mtu: target.mtu }),
            Step::host(Verb::Alias { link: ifb.clone(), alias: format!("{MARK}{}", owner.key()) }),
            Step::host(Verb::NoLinkLocal { link: ifb.clone() }),
        ]);
    }
    steps.extend(bandwidth.ingress.map(|rate| shape(link, &rate, foreign)));
    if let Some(rate) = bandwidth.egress {
        steps.extend([
            shape(&ifb, &rate, false),
            Step::host(Verb::Up { link: ifb.clone() }),
            Step::host(Verb::Ingress { link: link.clone(), to: ifb.clone(), foreign }),
            Step::host(Verb::Redirect { link: link.clone(), to: ifb }),
        ]);
    }
    steps
}

/// The inverse of [`steps`]: what goes from another plugin's link, and the pod's ifb. On a link of ours
/// everything dies with it.
pub fn unmake(record: &Attachment) -> (Vec<Step>, Option<String>) {
    let Some(bandwidth) = record.bandwidth else { return (Vec::new(), None) };
    let ifb = ifb(&record.network, &record.owner);
    let mut steps = Vec::new();
    if let Some(link) = record.host_link.as_ref().filter(|_| record.chained.is_some()) {
        if bandwidth.egress.is_some() {
            steps.push(Step::Unredirect { link: link.clone(), to: ifb.clone() });
        }
        if bandwidth.ingress.is_some() {
            let handle = record.owner.qdisc_handle();
            steps.push(Step::host(Verb::Unshape { link: link.clone(), handle }));
        }
    }
    (steps, bandwidth.egress.map(|_| ifb))
}

/// The bucket of a rate, counted as the reference counts it, so that its CHECK finds what it expects.
pub fn bucket(rate: &Rate, mtu: u32) -> Bucket {
    let bytes = rate.rate / 8;
    let burst = rate.burst.map_or_else(|| usual_burst(bytes, mtu), |bits| bits / 8);
    let burst = burst.min(u64::from(u32::MAX));
    // Whole microseconds, and 15.625 ticks each (/proc/net/psched).
    let fill = burst.saturating_mul(1_000_000).checked_div(bytes).unwrap_or(u64::MAX);
    let buffer = u128::from(fill.min(u64::from(u32::MAX))) * 125 / 8;
    let waiting = u128::from(bytes) * u128::from(LATENCY_MS) / 1000 + u128::from(burst);
    Bucket {
        rate: bytes,
        buffer: u32::try_from(buffer).unwrap_or(u32::MAX),
        limit: u32::try_from(waiting).unwrap_or(u32::MAX),
    }
}

fn usual_burst(bytes: u64, mtu: u32) -> u64 {
    let frames = 2 * (u64::from(mtu) + HEADER);
    // Whole microseconds of the rate may be a part of a packet short.
    (bytes / 1000 * BURST_MS).max(LEAST_BURST).max(frames + bytes / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use node::step::Step as _;

    fn owner() -> Owner {
        Owner { container_id: "abc".into(), ifname: "eth0".into() }
    }

    fn both() -> Bandwidth {
        let rate = |rate, burst| Some(Rate { rate, burst });
        Bandwidth { ingress: rate(10_000_000, Some(1_000_000)), egress: rate(20_000_000, None) }
    }

    fn target(before: bool) -> Target {
        Target {
            owner: owner(),
            network: "pods".into(),
            host_link: Some("veth1".into()),
            mtu: 1500,
            before: before.then(crate::kernel::link::Link::default),
            ..Target::default()
        }
    }

    fn lines(steps: &[Step]) -> Vec<String> {
        steps.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_ifb_is_named_as_the_reference_names_it() {
        // printf podsabc | sha512sum
        assert_eq!(ifb("pods", &owner()), "bwp43db335ee2d9");
        assert_eq!(ifb_mac("pods", &owner()).0.first(), Some(&0x02));
    }

    #[test]
    fn the_references_chains_are_named_as_it_names_them() {
        assert_eq!(
            chains_of_reference("pods", &owner()),
            ["CNI-43db335ee2d9e2b5ce5d355d", "CNI-DN-43db335ee2d9e2b5ce5d3"]
        );
    }

    #[test]
    fn both_ways_are_shaped_in_this_order() {
        assert_eq!(
            lines(&steps(&both(), &target(false))),
            [
                "create the ifb `bwp43db335ee2d9` with MTU 1500",
                "name the pod `nodeplug abc:eth0` on `bwp43db335ee2d9`",
                "make no link-local address on `bwp43db335ee2d9`",
                "let `veth1` send 10000000 bits a second",
                "let `bwp43db335ee2d9` send 20000000 bits a second",
                "bring `bwp43db335ee2d9` up",
                "give `veth1` an ingress qdisc",
                "redirect what arrives by `veth1` to `bwp43db335ee2d9`",
            ]
        );
    }

    #[test]
    fn a_record_takes_back_exactly_what_was_done_to_another_plugins_link() {
        for bandwidth in [both(), Bandwidth { ingress: None, ..both() }, Bandwidth { egress: None, ..both() }]
        {
            let record = Attachment {
                network: "pods".into(),
                owner: owner(),
                chained: Some("bandwidth".into()),
                host_link: Some("veth1".into()),
                bandwidth: Some(bandwidth),
                ..Attachment::default()
            };
            let undone: Vec<Step> =
                steps(&bandwidth, &target(true)).iter().rev().filter_map(Step::inverse).collect();
            let (mut planned, link) = unmake(&record);
            planned.extend(link.map(|link| Step::DeleteLinks { links: vec![link] }));
            assert_eq!(planned, undone);
            // On a link of ours, the ifb is all that is left.
            let own = Attachment { chained: None, host_link: None, ..record };
            let undone: Vec<Step> =
                steps(&bandwidth, &target(false)).iter().rev().filter_map(Step::inverse).collect();
            let (mut planned, link) = unmake(&own);
            planned.extend(link.map(|link| Step::DeleteLinks { links: vec![link] }));
            assert_eq!(planned, undone);
        }
    }

    #[test]
    fn buckets_count_as_the_references() {
        let cases = [
            // 8 Mbit/s with 10 kB: 10 ms are 156250 ticks; 25 ms more may wait.
            ((8_000_000, Some(80_000)), (1_000_000, 156_250, 35_000)),
            // Fractions are cut: 12.112 µs count 12, which are 187.5 ticks.
            ((1_000_000_000, Some(12_112)), (125_000_000, 187, 3_126_514)),
            // What 32 bits do not hold stays at their end.
            ((8, Some(34_359_738_359)), (1, u32::MAX, 4_294_967_294)),
            // 100 Gbit/s.
            ((100_000_000_000, None), (12_500_000_000, 156_250, 437_500_000)),
            // Slow: 16 KiB.
            ((1_000_000, None), (125_000, 2_048_000, 19_509)),
        ];
        for ((rate, burst), (bytes, buffer, limit)) in cases {
            let expected = Bucket { rate: bytes, buffer, limit };
            assert_eq!(bucket(&Rate { rate, burst }, 1500), expected, "{rate} {burst:?}");
        }
    }

    #[test]
    fn a_burst_that_nobody_told_lets_every_packet_pass() {
        for rate in [2000, 64_000, 1_000_000, 10_000_000_000, 1_000_000_000_000, 1_000_000_000_000_000] {
            for mtu in [68, 1500, 9000, 65535] {
                let bandwidth = Bandwidth { ingress: None, egress: Some(Rate { rate, burst: None }) };
                judge(&bandwidth, &Target { mtu, ..target(false) }).unwrap();
            }
        }
    }

    #[test]
    fn what_could_not_work_is_refused() {
        let small =
            Bandwidth { ingress: None, egress: Some(Rate { rate: 1_000_000_000, burst: Some(12_112) }) };
        let error = judge(&small, &target(false)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "hold the egress rate of 1000000000 bits a second and a burst of 12112 bits, by which no packet of \
             the MTU 1500 could pass"
        );
        assert_eq!(error.advice(), Some("set `egressBurst` to 14112 or more"));
        let enough =
            Bandwidth { ingress: None, egress: Some(Rate { rate: 1_000_000_000, burst: Some(14_112) }) };
        judge(&enough, &target(false)).unwrap();
        let slow = Bandwidth { ingress: Some(Rate { rate: 40, burst: None }), egress: None };
        let error = judge(&slow, &target(false)).unwrap_err();
        assert_eq!(error.advice(), Some("set `ingressRate` to 45 or more"));
        let least = Bandwidth { ingress: Some(Rate { rate: 48, burst: Some(80_000) }), egress: None };
        judge(&least, &target(false)).unwrap();
        let error = judge(&both(), &Target { host_link: None, ..target(true) }).unwrap_err();
        assert_eq!(error.to_string(), "limit the rates of `eth0`, which has no veth end on this node");
    }

    #[test]
    fn an_alias_names_the_owner() {
        assert_eq!(named_owner(Some("nodeplug abc:eth0")), Some(owner()));
        assert_eq!(named_owner(Some("uplink")), None);
        assert_eq!(named_owner(None), None);
    }
}
