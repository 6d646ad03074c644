//! The pods' subnets: whether they are networks, one for each family, and have room.

use std::net::IpAddr;

use ipnet::IpNet;
use node::{Context, Error, Kind, Result};

/// How many pods a kubelet starts unless it is told otherwise.
const PODS: u128 = 110;
/// Fewer are a slip of the pen.
const FEWEST: u128 = 4;

/// Reads the words. Errors: [`Kind::Config`] for what is no network, for two of one family, for too small a one.
pub(super) fn read(words: &[String]) -> Result<Vec<IpNet>> {
    let mut subnets: Vec<IpNet> = Vec::with_capacity(2);
    for word in words.iter().map(|w| w.trim()).filter(|w| !w.is_empty()) {
        let net = network(word)?;
        let doing = || format!("take `{net}` as the pods' subnet");
        if let Some(other) = subnets.iter().find(|other| other.addr().is_ipv4() == net.addr().is_ipv4()) {
            return Err(Error::caused(Kind::Config, doing(), format!("`{other}` is of the same family"))
                .hint("give one subnet, or one of IPv4 and one of IPv6"));
        }
        let room = room(&net);
        if room < FEWEST {
            let why = format!("it has {room} addresses for pods, and a kubelet starts up to {PODS}");
            return Err(
                Error::caused(Kind::Config, doing(), why).hint("a /24 of IPv4 and a /64 of IPv6 are usual")
            );
        }
        subnets.push(net);
    }
    if subnets.is_empty() {
        return Err(Error::caused(Kind::Config, "read the pods' subnets", "there are none")
            .hint("--pod-cidr 10.244.1.0/24, with IPv6 beside it after a comma"));
    }
    Ok(subnets)
}

/// One network, without host bits.
pub(super) fn network(word: &str) -> Result<IpNet> {
    let doing = || format!("read `{word}` as a subnet");
    let net: IpNet = word
        .parse()
        .doing(Kind::Config, doing)
        .map_err(|e| e.hint("an address and a prefix length, such as 10.244.1.0/24"))?;
    if net.trunc() == net {
        return Ok(net);
    }
    Err(Error::caused(Kind::Config, doing(), "it has host bits set").hint(format!("write `{}`", net.trunc())))
}

/// How many pods get an address: all but the network's, the gateway's and, of IPv4, the broadcast one.
pub(super) fn room(net: &IpNet) -> u128 {
    let bits = u32::from(net.max_prefix_len() - net.prefix_len());
    let all = 1_u128.checked_shl(bits).unwrap_or(u128::MAX);
    all.saturating_sub(if net.addr().is_ipv4() { 3 } else { 2 })
}

/// What a person should know of subnets that can be used.
pub(super) fn remarks(
    subnets: &[IpNet],
    cluster: &[IpNet],
    root_forwards: &dyn Fn(bool) -> bool,
) -> Vec<String> {
    let mut notes = Vec::new();
    for net in subnets {
        let room = room(net);
        if room < PODS {
            notes.push(format!(
                "`{net}` has {room} addresses for pods, and a kubelet starts up to {PODS}: set its maxPods, or give more"
            ));
        }
        let same_family = |other: &&IpNet| other.addr().is_ipv4() == net.addr().is_ipv4();
        let mut theirs = cluster.iter().filter(same_family).peekable();
        if theirs.peek().is_some() && !theirs.any(|other| other.contains(net)) {
            notes.push(format!("`{net}` is in none of the cluster's subnets"));
        }
        if !root_forwards(net.addr().is_ipv6()) {
            let setting =
                if net.addr().is_ipv6() { "net.ipv6.conf.all.forwarding" } else { "net.ipv4.ip_forward" };
            notes.push(format!("the node does not forward: the first pod switches `{setting}` on"));
        }
    }
    if subnets.iter().any(|net| net.addr().is_ipv6()) && !root_forwards(true) {
        notes.push(
            "with IPv6 forwarding on, the kernel ignores router advertisements: a node that learns its default route \
             from them needs `net.ipv6.conf.LINK.accept_ra=2` on that link"
                .to_owned(),
        );
    }
    notes
}

/// Whether two networks have an address in common.
pub(super) fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// Whether one of the subnets has the address.
pub(super) fn hold(subnets: &[IpNet], address: IpAddr) -> bool {
    subnets.iter().any(|net| net.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn one_network_a_family_with_room_is_taken() {
        for text in ["10.244.1.0/24", "10.244.1.0/24,fd00::/64", "fd00::/64", "10.0.0.0/29", "10.244.1.0/24,"]
        {
            assert!(read(&words(text)).is_ok(), "{text}");
        }
        let table = [
            ("10.244.1.1/24", "host bits"),
            ("10.244.1.0", "read"),
            ("10.244.1.0/24,10.244.2.0/24", "family"),
            ("10.244.1.0/30", "1 addresses"),
            ("10.244.1.0/32", "0 addresses"),
            ("fd00::/127", "0 addresses"),
            ("", "none"),
        ];
        for (text, part) in table {
            let error = read(&words(text)).unwrap_err();
            assert!(error.chain().contains(part), "{text}: {}", error.chain());
        }
    }

    #[test]
    fn room_is_counted_without_what_no_pod_gets() {
        let table = [("10.0.0.0/24", 253), ("10.0.0.0/26", 61), ("fd00::/125", 6), ("::/0", u128::MAX - 2)];
        for (net, expect) in table {
            assert_eq!(room(&net.parse().unwrap()), expect, "{net}");
        }
    }

    #[test]
    fn what_is_likely_not_meant_is_said() {
        let notes = |subnets: &str, cluster: &str, on: bool| {
            let cluster: Vec<IpNet> = cluster.split(' ').filter_map(|c| c.parse().ok()).collect();
            remarks(&read(&words(subnets)).unwrap(), &cluster, &|_| on)
        };
        assert!(notes("10.244.1.0/24,fd00::/64", "10.244.0.0/16 fd00::/48", true).is_empty());
        assert!(notes("10.244.1.0/26", "", true)[0].contains("61"));
        assert!(notes("10.9.1.0/24", "10.244.0.0/16", true)[0].contains("none of the cluster's"));
        assert!(notes("10.9.1.0/24", "fd00::/48", true).is_empty(), "another family says nothing");
        let off = notes("10.244.1.0/24,fd00::/64", "", false);
        assert!(off.len() == 3 && off[2].contains("accept_ra=2"), "{off:?}");
    }
}
