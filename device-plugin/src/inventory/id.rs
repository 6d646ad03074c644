//! The IDs by which the kubelet knows devices, and what they weigh in its list.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The longest readable part of an ID.
const SLUG: usize = 24;
/// Hexadecimal digits of the hash.
const HASH: usize = 16;

/// The ID of a device's replica: `0403-6001-A50285BI-1f0c9a7b52e6d384`, and `…-3` for the third replica after
/// the first.
///
/// It is the same over reboots and re-plugging, since it is made of the identity alone. It is unique over
/// resources, since the resource's name is in the hash: the kubelet looks a device's health up by ID,
/// whatever the resource. It has at most 47 of the 63 characters that the kubelet's interface allows, all of
/// them fit for a CDI device's name. The first replica has no number, so that what pods hold stays valid when
/// a device gets more replicas.
pub fn id(resource: &str, identity: &str, replica: u32) -> String {
    let mut hash = Sha256::new();
    hash.update(resource.as_bytes());
    hash.update([0]);
    hash.update(identity.as_bytes());
    let mut text = slug(identity);
    if !text.is_empty() {
        text.push('-');
    }
    for byte in hash.finalize().iter().take(HASH / 2) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    if replica > 0 {
        let _ = write!(text, "-{replica}");
    }
    text
}

/// Whether a text has the form of an [`id`]: so that devices of another plugin are known.
pub fn is_one(text: &str) -> bool {
    let hash =
        |part: &str| part.len() == HASH && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = text.rsplit('-');
    let last = parts.next().unwrap_or_default();
    let replica = !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
    hash(last) || replica && parts.next().is_some_and(hash)
}

/// 16 hexadecimal digits of a text, for the names of sockets.
pub fn hash(text: &str) -> String {
    let mut hex = String::with_capacity(HASH);
    for byte in Sha256::digest(text.as_bytes()).iter().take(HASH / 2) {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// The end of the identity without its source, which says the most: the serial number, the last part of a path.
fn slug(identity: &str) -> String {
    let (_, own) = identity.split_once(':').unwrap_or(("", identity));
    let mut slug = String::with_capacity(own.len());
    for c in own.chars() {
        let fits = c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
        match fits {
            true => slug.push(c),
            false if slug.ends_with('-') => {}
            false => slug.push('-'),
        }
    }
    // Only ASCII is left, so that every index is a boundary.
    let (before, tail) = slug.split_at(slug.len().saturating_sub(SLUG));
    let in_a_word = before.ends_with(|c: char| c.is_ascii_alphanumeric());
    // Half a word says less than none, unless it is all there is.
    let whole = match tail.find(|c: char| !c.is_ascii_alphanumeric()) {
        Some(end) if in_a_word && end < SLUG / 2 => tail.get(end..).unwrap_or_default(),
        _ => tail,
    };
    whole.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// The bytes of a device in the list at its worst, that is while it is unhealthy: tags and lengths, the ID,
/// the word `Unhealthy`, and the NUMA node where it has one.
pub fn weight(id_length: usize, numa: Option<u32>) -> usize {
    let numa = match numa {
        None => 0,
        Some(0) => 4,
        Some(node) => 5 + varint(node),
    };
    2 + 2 + id_length + 11 + numa
}

/// How many bytes a number takes.
fn varint(number: u32) -> usize {
    let bits = usize::try_from(u32::BITS - number.leading_zeros()).unwrap_or(32);
    bits.div_ceil(7).max(1)
}

/// The bytes of a whole list of counted devices, `PREFIX:0` to `PREFIX:count-1`, with so many replicas each.
/// It takes no time, however many they are.
pub fn counted_weight(count: u64, replicas: u32) -> u64 {
    let replicas = u64::from(replicas);
    let bare = u64::try_from(weight(HASH + 1, None)).unwrap_or(u64::MAX);
    let every = bare.saturating_mul(count).saturating_mul(replicas);
    let numbers = digits_below(count).saturating_mul(replicas);
    // Each replica but the first has a dash and its number; `digits_below` counts one digit for the first.
    let suffixes = digits_below(replicas).saturating_add(replicas).saturating_sub(2).saturating_mul(count);
    every.saturating_add(numbers).saturating_add(suffixes)
}

/// The digits of all numbers from 0 below `end`.
fn digits_below(end: u64) -> u64 {
    let mut sum = end;
    let mut power = 10_u64;
    while power < end {
        sum = sum.saturating_add(end - power);
        power = power.saturating_mul(10);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;
    use proto::deviceplugin::{Device, ListAndWatchResponse, NumaNode, TopologyInfo};

    /// Pods hold devices by ID: one that changes with a new version of this program costs them theirs.
    #[test]
    fn an_id_is_told_from_another_plugins() {
        for replica in [0, 1, 12] {
            let own = id("a.b/c", "usb:0403:6001:A50285BI", replica);
            assert!(is_one(&own), "{own}");
        }
        for other in ["", "0", "GPU-8c2a1f", "a-b-3", "0123456789abcdeg", "x-0123456789abcdef-y", "-1"] {
            assert!(!is_one(other), "{other}");
        }
    }

    #[test]
    fn an_id_says_which_device_it_is_and_stays() {
        let cases = [
            ("usb:0403:6001:A50285BI", 0, "0403-6001-A50285BI-660c12247ee41026"),
            ("usb:0403:6001:A50285BI", 3, "0403-6001-A50285BI-660c12247ee41026-3"),
            (
                "path:/dev/serial/by-id/usb-FTDI_UART_A50285BI-if00-port0",
                0,
                "UART_A50285BI-if00-port0-8f1c0ecb22696ef3",
            ),
            ("path:/dev/serial/by-id/usb-adapter-1", 0, "by-id-usb-adapter-1-175601cac114a7b8"),
            ("path:/dev/kvm", 0, "dev-kvm-02fba5ab8ef58619"),
            ("pci:0000:01:00.0", 0, "0000-01-00.0-dffed4f0afbde1ec"),
            ("count:17", 0, "17-1bf3f17fb927ff07"),
            ("net:ü", 0, "af3d29a5af966db3"),
            ("--", 0, "fa5dbbee1d46e9e7"),
        ];
        for (identity, replica, expect) in cases {
            assert_eq!(id("example.com/x", identity, replica), expect);
        }
    }

    #[test]
    fn the_same_device_in_another_resource_has_another_id() {
        assert_ne!(id("example.com/a", "path:/dev/kvm", 0), id("example.com/b", "path:/dev/kvm", 0));
        assert_ne!(id("example.com/a", "b", 0), id("example.com/", "ab", 0));
    }

    fn list(ids: impl Iterator<Item = String>, numa: Option<u32>) -> usize {
        let topology = numa.map(|id| TopologyInfo { nodes: vec![NumaNode { id: i64::from(id) }] });
        let health = proto::UNHEALTHY.to_owned();
        let devices =
            ids.map(|id| Device { id, health: health.clone(), topology: topology.clone() }).collect();
        ListAndWatchResponse { devices }.encoded_len()
    }

    #[test]
    fn a_device_weighs_what_it_weighs_in_the_list() {
        for numa in [None, Some(0), Some(1), Some(127), Some(128), Some(40_000)] {
            for length in [1, 40, 63] {
                let expect = list(std::iter::once("x".repeat(length)), numa);
                assert_eq!(weight(length, numa), expect, "{length} {numa:?}");
            }
        }
    }

    #[test]
    fn counted_devices_weigh_what_their_list_weighs() {
        for (count, replicas) in [(0, 1), (1, 1), (9, 3), (10, 10), (11, 11), (101, 1), (1001, 2), (3, 1002)]
        {
            let ids =
                (0..count).flat_map(|n| (0..replicas).map(move |r| id("a/b", &format!("count:{n}"), r)));
            assert_eq!(counted_weight(count, replicas), list(ids, None) as u64, "{count} {replicas}");
        }
        assert!(counted_weight(u64::MAX, u32::MAX) > 4 << 20);
    }

    proptest! {
        #[test]
        fn an_id_fits_the_kubelet_and_cdi(resource in ".{0,300}", identity in ".{0,300}", replica in 0_u32..10_000) {
            let id = id(&resource, &identity, replica);
            prop_assert!(id.len() <= 47, "{}", id);
            prop_assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c)));
            prop_assert!(id.starts_with(|c: char| c.is_ascii_alphanumeric()));
            prop_assert!(id.ends_with(|c: char| c.is_ascii_alphanumeric()));
        }
    }
}
