//! Names that others have rules for: the kubelet for resources, CDI for kinds of devices.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::words::word;

/// Kubernetes' own names are below this domain and its subdomains.
const RESERVED: &str = "kubernetes.io/";
/// A quota names a resource with this in front, so that the whole has to be a name, too.
const QUOTA: &str = "requests.";
/// The longest domain: 253 without `requests.`.
const LONGEST_DOMAIN: usize = 244;
const LONGEST_NAME: usize = 63;

/// A resource's name, as the kubelet takes it: `domain/name`
/// (<https://kubernetes.io/docs/tasks/administer-cluster/extended-resource-node/>).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName(String);

impl ResourceName {
    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ResourceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mistakes = mistakes(text);
        if mistakes.is_empty() {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("`{}` is no resource name: {}", text.escape_debug(), mistakes.join(", and ")))
    }
}

impl<'de> Deserialize<'de> for ResourceName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for ResourceName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl JsonSchema for ResourceName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ResourceName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "title": "domain/name",
            "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*\
                        /[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
            "not": {"pattern": "^requests[.]|kubernetes[.]io/"},
            "maxLength": LONGEST_DOMAIN + 1 + LONGEST_NAME,
        })
    }
}

/// Every rule of the kubelet that the text breaks.
fn mistakes(text: &str) -> Vec<String> {
    let mut mistakes = Vec::new();
    let Some((domain, name)) = text.split_once('/') else {
        let example = if name_mistake(text).is_none() { text } else { "NAME" };
        return vec![format!("it has no domain; write `example.com/{example}`, with a domain of yours")];
    };
    if name.contains('/') {
        mistakes.push("it has more than one `/`; write `domain/name`".to_owned());
        return mistakes;
    }
    if text.contains(RESERVED) {
        mistakes.push(
            "domains that end with `kubernetes.io` are Kubernetes' own; take a domain of yours".to_owned(),
        );
    }
    if text.starts_with(QUOTA) {
        mistakes.push("`requests.` in front is for quotas; leave it out".to_owned());
    }
    mistakes.extend(domain_mistake(domain));
    mistakes.extend(name_mistake(name));
    mistakes
}

fn domain_mistake(domain: &str) -> Option<String> {
    if domain.is_empty() {
        return Some("nothing is before the `/`; write a domain there".to_owned());
    }
    if domain.len() > LONGEST_DOMAIN {
        return Some(format!(
            "its domain has {} characters; at most {LONGEST_DOMAIN} are allowed",
            domain.len()
        ));
    }
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let label = |l: &str| !l.is_empty() && l.chars().all(inner) && !l.starts_with('-') && !l.ends_with('-');
    if domain.chars().any(|c| c.is_ascii_uppercase()) {
        return Some(format!("its domain has capitals; write `{}`", domain.to_ascii_lowercase()));
    }
    (!domain.split('.').all(label)).then(|| {
        "its domain is not of words of `a-z`, `0-9` and `-` with dots between, each beginning and ending with \
         a letter or digit"
            .to_owned()
    })
}

fn name_mistake(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("nothing is behind the `/`; write a name there".to_owned());
    }
    if name.len() > LONGEST_NAME {
        return Some(format!("its name has {} characters; at most {LONGEST_NAME} are allowed", name.len()));
    }
    if let Some(odd) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !"-_.".contains(*c)) {
        return Some(format!(
            "its name has `{}`; only letters, digits, `-`, `_` and `.` are allowed",
            odd.escape_debug()
        ));
    }
    let ends = |c: char| c.is_ascii_alphanumeric();
    (!name.starts_with(ends) || !name.ends_with(ends))
        .then(|| "its name has to begin and end with a letter or digit".to_owned())
}

/// A kind of CDI devices: `vendor/class`
/// (<https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CdiKind(String);

word!(
    CdiKind,
    "vendor/class",
    "^[A-Za-z]([-A-Za-z0-9_.]*[A-Za-z0-9])?/[A-Za-z]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
);

impl CdiKind {
    /// The whole kind.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CdiKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CdiKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part.ends_with(|c: char| c.is_ascii_alphanumeric())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        match text.split_once('/') {
            Some((vendor, class)) if part(vendor) && part(class) => Ok(Self(text.to_owned())),
            _ => Err(format!(
                "`{}` is no CDI kind: write `vendor/class`, each beginning with a letter, ending with a letter or digit, \
                 of letters, digits, `-`, `_` and `.`",
                text.escape_debug()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kubelet_takes_is_taken() {
        let long = format!("{}/{}", "a".repeat(244), "b".repeat(63));
        for name in [
            "example.com/serial",
            "a/b",
            "example.com/A",
            "x/a.b_c-D",
            "0.example/9",
            "a-b.c/x",
            "kubernetes.io.example/x",
            &long,
        ] {
            assert!(name.parse::<ResourceName>().is_ok(), "{name}");
        }
    }

    #[test]
    fn each_rule_of_the_kubelet_has_its_words() {
        let (domain, name) = (format!("{}/x", "a".repeat(245)), format!("a/{}", "b".repeat(64)));
        let cases = [
            ("serial", "write `example.com/serial`"),
            ("", "write `example.com/NAME`"),
            ("a/b/c", "more than one `/`"),
            ("kubernetes.io/x", "Kubernetes' own"),
            ("node.kubernetes.io/x", "Kubernetes' own"),
            ("mykubernetes.io/x", "Kubernetes' own"),
            ("requests.example.com/x", "for quotas"),
            ("/x", "before the `/`"),
            ("a/", "behind the `/`"),
            (&domain, "245 characters; at most 244"),
            (&name, "64 characters; at most 63"),
            ("Example.com/x", "write `example.com`"),
            ("-a/x", "its domain is not of words"),
            ("a..b/x", "its domain is not of words"),
            ("a_b/x", "its domain is not of words"),
            ("a/x y", "its name has ` `"),
            ("a/-x", "begin and end with a letter or digit"),
            ("a/x.", "begin and end with a letter or digit"),
            (
                "a_b/x.",
                "with dots between, each beginning and ending with a letter or digit, and its name has to begin",
            ),
        ];
        for (text, expect) in cases {
            let why = text.parse::<ResourceName>().unwrap_err();
            assert!(why.contains(expect), "{text}: {why}");
        }
    }

    #[test]
    fn a_cdi_kind_is_a_vendor_and_a_class() {
        for (text, good) in [
            ("example.com/serial", true),
            ("a/b", true),
            ("0.example/x", false),
            ("example.com/0", false),
            ("example.com", false),
            ("a/b/c", false),
            ("a./b", false),
            ("a=/b", false),
        ] {
            assert_eq!(text.parse::<CdiKind>().is_ok(), good, "{text}");
        }
    }
}
