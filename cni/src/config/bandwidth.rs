//! Rates: the keys of the reference's bandwidth plugin and the runtime's `bandwidth`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::feature::Source;
use crate::config::reader::{Problem, Reader};

/// A runtime that was told a rate alone sends this burst or a larger one: kubelet's and cri-o's annotation
/// gives `MaxInt32`, containerd's `MaxUint32`.
const NOT_TOLD: u64 = i32::MAX as u64;
/// The kernel counts bytes a second.
const LEAST_RATE: u64 = 8;
/// The kernel counts a burst in bytes of 32 bits; the reference has the same bound.
const MOST_BURST: u64 = u32::MAX as u64 * 8 - 1;

const KEYS: [[&str; 2]; 2] = [["ingressRate", "ingressBurst"], ["egressRate", "egressBurst"]];

/// A pod's rates, seen from the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// What the pod receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Rate>,
    /// What it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Rate>,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Bits a second.
    pub rate: u64,
    /// Bits that may pass at once after a rest; `None` where nobody told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
}

impl Bandwidth {
    /// `None` where no rate is asked for. An entry that has any of the keys is alone in what it says: the
    /// runtime's rates are for entries without, as for the reference.
    pub(super) fn read(source: &mut Source<'_, '_>, problems: &mut Vec<Problem>) -> Option<Self> {
        let mut entry = false;
        for key in KEYS.as_flattened() {
            entry |= source.reader.value(key).is_some();
        }
        if entry {
            return pair(source.reader, false, problems);
        }
        let (runtime, place) = source.runtime.as_ref()?;
        let value = runtime.get("bandwidth").filter(|v| !v.is_null())?;
        let mut reader = Reader::new(value, &format!("{place}.bandwidth"), problems);
        let found = pair(&mut reader, true, problems);
        reader.finish(problems);
        found
    }
}

fn pair(reader: &mut Reader<'_>, runtime: bool, problems: &mut Vec<Problem>) -> Option<Bandwidth> {
    let [ingress, egress] = KEYS.map(|keys| read(reader, keys, runtime, problems));
    (ingress.is_some() || egress.is_some()).then_some(Bandwidth { ingress, egress })
}

fn read(
    reader: &mut Reader<'_>,
    [rate_key, burst_key]: [&'static str; 2],
    runtime: bool,
    problems: &mut Vec<Problem>,
) -> Option<Rate> {
    let before = problems.len();
    let rate = number(reader, rate_key, problems);
    let burst = number(reader, burst_key, problems);
    let mut wrong = |key: &str, what: String, hint: &str| {
        problems.push(Problem::wrong(&reader.place(key), what).hint(hint));
    };
    match (rate, burst) {
        (0, 0) => return None,
        (1.., 0) => wrong(
            burst_key,
            format!("is missing or 0 beside `{rate_key}`"),
            "say how many bits may pass at once, such as a hundredth of the rate",
        ),
        (0, 1..) => {
            wrong(rate_key, format!("is missing or 0 beside `{burst_key}`"), "say the bits a second");
        }
        (1..LEAST_RATE, _) => wrong(
            rate_key,
            format!("is {rate}, and {LEAST_RATE} bits a second are the least"),
            "the unit is bits a second",
        ),
        (_, burst) if burst > MOST_BURST && !runtime => {
            wrong(burst_key, format!("is {burst}, and no burst reaches 4 GiB"), "the unit is bits");
        }
        _ => {}
    }
    let told = Some(burst).filter(|b| !runtime || *b < NOT_TOLD);
    (problems.len() == before).then_some(Rate { rate, burst: told })
}

/// 0 counts as absent, as it does for the reference.
fn number(reader: &mut Reader<'_>, key: &'static str, problems: &mut Vec<Problem>) -> u64 {
    let Some(value) = reader.value(key) else { return 0 };
    value.as_u64().unwrap_or_else(|| {
        problems.push(Problem::wrong(&reader.place(key), what_of(value)).hint("the unit is bits"));
        0
    })
}

fn what_of(value: &Value) -> String {
    let text: String = value.to_string().chars().take(60).collect();
    format!("is `{text}`, not a whole number of 0 or more")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::Role;
    use serde_json::json;

    fn read(entry: &Value, runtime: Option<&Value>) -> (Option<Bandwidth>, Vec<String>) {
        let mut problems = Vec::new();
        let mut reader = Reader::new(entry, "", &mut problems);
        let runtime = runtime.map(|value| (value, "runtimeConfig".to_owned()));
        let mut source =
            Source { reader: &mut reader, runtime, role: Role::Bandwidth, makes: false, mac: None };
        let found = Bandwidth::read(&mut source, &mut problems);
        (found, problems.iter().map(|p| format!("{} {}", p.at, p.what)).collect())
    }

    fn rate(rate: u64, burst: u64) -> Rate {
        Rate { rate, burst: Some(burst) }
    }

    #[test]
    fn an_entry_with_any_key_is_alone_in_what_it_says() {
        let runtime = json!({"bandwidth": {"egressRate": 16, "egressBurst": 160}});
        let cases = [
            (json!({}), None, None),
            (json!({}), Some(Bandwidth { ingress: None, egress: Some(rate(16, 160)) }), Some(&runtime)),
            (json!({"ingressRate": 0}), None, Some(&runtime)),
            (
                json!({"ingressRate": 8, "ingressBurst": 80, "egressRate": 9, "egressBurst": 90}),
                Some(Bandwidth { ingress: Some(rate(8, 80)), egress: Some(rate(9, 90)) }),
                Some(&runtime),
            ),
            (
                json!({"ingressRate": 8, "ingressBurst": 80, "egressRate": null}),
                Some(Bandwidth { ingress: Some(rate(8, 80)), egress: None }),
                Some(&runtime),
            ),
            (json!({}), None, Some(&json!({"bandwidth": null}))),
            (json!({}), None, Some(&json!({}))),
        ];
        for (entry, expected, runtime) in cases {
            assert_eq!(read(&entry, runtime), (expected, Vec::new()), "{entry}");
        }
    }

    #[test]
    fn a_burst_that_only_says_that_nobody_told_is_none() {
        for burst in [2_147_483_647_u64, 4_294_967_295, 1 << 40] {
            let runtime = json!({"bandwidth": {"ingressRate": 1000, "ingressBurst": burst}});
            let told = Bandwidth { ingress: Some(Rate { rate: 1000, burst: None }), egress: None };
            assert_eq!(read(&json!({}), Some(&runtime)), (Some(told), Vec::new()));
        }
        let entry = json!({"ingressRate": 1000, "ingressBurst": 2_147_483_647_u64});
        let told = Bandwidth { ingress: Some(rate(1000, 2_147_483_647)), egress: None };
        assert_eq!(read(&entry, None), (Some(told), Vec::new()));
    }

    #[test]
    fn mistakes_have_their_place() {
        let cases = [
            (json!({"ingressRate": 8}), "ingressBurst is missing or 0 beside `ingressRate`"),
            (json!({"egressBurst": 8}), "egressRate is missing or 0 beside `egressBurst`"),
            (
                json!({"egressRate": 7, "egressBurst": 8}),
                "egressRate is 7, and 8 bits a second are the least",
            ),
            (
                json!({"egressRate": 8, "egressBurst": 34_359_738_360_u64}),
                "egressBurst is 34359738360, and no burst reaches 4 GiB",
            ),
            (json!({"egressRate": -1}), "egressRate is `-1`, not a whole number of 0 or more"),
            (json!({"egressRate": "10M"}), "egressRate is `\"10M\"`, not a whole number of 0 or more"),
            (json!({"egressRate": 1.5}), "egressRate is `1.5`, not a whole number of 0 or more"),
        ];
        for (entry, expected) in cases {
            assert_eq!(read(&entry, None), (None, vec![expected.to_owned()]), "{entry}");
            let runtime = json!({"bandwidth": entry});
            if !expected.contains("4 GiB") {
                let expected = format!("runtimeConfig.bandwidth.{expected}");
                assert_eq!(read(&json!({}), Some(&runtime)), (None, vec![expected]));
            }
        }
        let runtime = json!({"bandwidth": {"shapedSubnets": ["10.0.0.0/8"]}});
        assert_eq!(read(&json!({}), Some(&runtime)).1.len(), 1);
    }
}
