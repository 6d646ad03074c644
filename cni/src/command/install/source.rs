//! Where the pods' subnets come from: the command line, a file, or the API server.

use std::io::Read;
use std::path::{Path, PathBuf};

use node::{Context, Error, Kind, Result};
use serde::Deserialize;
use serde_json::Value;

use super::Install;

/// What a source says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// One for each family.
    pub subnets: Vec<String>,
    /// All pods' of the cluster, where the source knows (flannel).
    pub cluster: Vec<String>,
    /// The pods' MTU, where the source knows (flannel).
    pub mtu: Option<u32>,
}

/// A source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// `--pod-cidr`, or its environment variable.
    Words(Vec<String>),
    /// `--pod-cidr-file`.
    File(PathBuf),
    /// `--kube-api`: the socket of a proxy.
    Api(PathBuf),
    /// What one of them said before.
    Known(Given),
}

impl Source {
    /// The one that was asked for; `None` where no network is to be made. Arguments go before the environment.
    pub fn of(wish: &Install, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let words = (!wish.pod_cidr.is_empty()).then(|| Self::Words(wish.pod_cidr.clone()));
        let file = wish.pod_cidr_file.clone().map(Self::File);
        let api = wish.kube_api.clone().map(Self::Api);
        let mut asked = [words, file, api].into_iter().flatten();
        let first = asked.next();
        if asked.next().is_some() {
            return Err(Error::new(Kind::Usage, "take the pods' subnets from several sources")
                .hint("one of --pod-cidr, --pod-cidr-file and --kube-api"));
        }
        let from_environment = || {
            let words = env("NODEPLUG_POD_CIDRS")?;
            let words: Vec<String> = listed(&words).collect();
            (!words.is_empty()).then_some(Self::Words(words))
        };
        Ok(first.or_else(from_environment))
    }

    /// Whether it may say something else later.
    pub fn may_change(&self) -> bool {
        matches!(self, Self::File(_) | Self::Api(_)) && *self != Self::File(PathBuf::from("-"))
    }
}

/// The file's text, or stdin's.
pub(super) fn text_of(file: &Path) -> Result<String> {
    let doing = || format!("read the pods' subnets from `{}`", file.display());
    if file != Path::new("-") {
        return std::fs::read_to_string(file).doing(Kind::Io, doing);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).doing(Kind::Io, doing)?;
    Ok(text)
}

/// The environment variable's value: CIDRs between commas or spaces.
fn listed(text: &str) -> impl Iterator<Item = String> {
    text.split([',', ' ', '\t', '\n']).map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Object {
    kind: String,
    metadata: Metadata,
    spec: Spec,
    items: Vec<Object>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
}

/// What a file says: a Node or a list of them in JSON or YAML, flannel's subnet.env, or CIDRs. `node` is the node's
/// name where somebody said it, `host` what the host calls itself.
pub(super) fn parse(text: &str, node: Option<&str>, host: &str) -> Result<Given> {
    let doing = || "read the pods' subnets".to_owned();
    if text.trim_start().starts_with('{') {
        return of_object(serde_json::from_str(text).doing(Kind::Decode, doing)?, node, host);
    }
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    if lines().any(|line| line.starts_with("FLANNEL_")) {
        return of_flannel(lines());
    }
    if lines().any(|line| line.starts_with("kind:") || line.starts_with("apiVersion:")) {
        let value: Value = serde_saphyr::from_str(text).doing(Kind::Decode, doing)?;
        return of_object(serde_json::from_value(value).doing(Kind::Decode, doing)?, node, host);
    }
    let subnets: Vec<String> = lines().flat_map(listed).collect();
    if subnets.is_empty() {
        return Err(Error::caused(Kind::Config, doing(), "there are none")
            .hint("a Node object, flannel's subnet.env, or CIDRs by lines"));
    }
    Ok(Given { subnets, ..Given::default() })
}

/// The answer of the API server. `None` where the node has no subnets yet.
pub(super) fn of_answer(body: &[u8], node: &str) -> Result<Option<Given>> {
    let object: Object = serde_json::from_slice(body)
        .doing(Kind::Decode, || format!("read the API server's answer for the node `{node}`"))?;
    Ok(subnets(object).map(|subnets| Given { subnets, ..Given::default() }))
}

fn of_object(object: Object, node: Option<&str>, host: &str) -> Result<Given> {
    let doing = "read the pods' subnets of a Node object";
    let object = match object.kind.as_str() {
        "Node" => match node {
            Some(node) if node != object.metadata.name => {
                let why = format!("it is `{}`, and --node-name is `{node}`", object.metadata.name);
                return Err(Error::caused(Kind::Config, doing, why).hint("give this node's own object"));
            }
            _ => object,
        },
        "NodeList" | "List" => one_of(object.items, node.unwrap_or(host))?,
        other => {
            return Err(Error::caused(Kind::Config, doing, format!("its kind is `{other}`"))
                .hint("a Node or a NodeList: `kubectl get node NAME -o json`"));
        }
    };
    let name = object.metadata.name.clone();
    let subnets = subnets(object).ok_or_else(|| {
        Error::caused(Kind::Config, doing, format!("`{name}` has no spec.podCIDRs"))
            .hint("kube-controller-manager gives them with --allocate-node-cidrs; without it say --pod-cidr")
    })?;
    Ok(Given { subnets, ..Given::default() })
}

fn one_of(items: Vec<Object>, wanted: &str) -> Result<Object> {
    let names: Vec<String> = items.iter().take(5).map(|item| format!("`{}`", item.metadata.name)).collect();
    let found = items.into_iter().find(|item| item.metadata.name == wanted);
    found.ok_or_else(|| {
        let why = format!("it has no node `{wanted}` (it begins with {})", names.join(", "));
        Error::caused(Kind::Config, "find this node in a list of nodes", why).hint("say --node-name NAME")
    })
}

fn subnets(object: Object) -> Option<Vec<String>> {
    let Spec { pod_cidrs, pod_cidr } = object.spec;
    let old = Some(pod_cidr).filter(|cidr| !cidr.is_empty());
    if pod_cidrs.is_empty() { old.map(|cidr| vec![cidr]) } else { Some(pod_cidrs) }
}

/// flannel's subnet.env names its own address in the node's subnet, and that of the cluster.
fn of_flannel<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Given> {
    let mut given = Given::default();
    for (key, value) in lines.filter_map(|line| line.split_once('=')) {
        match key {
            "FLANNEL_SUBNET" | "FLANNEL_IPV6_SUBNET" => {
                let net: ipnet::IpNet =
                    value.parse().doing(Kind::Config, || format!("read `{value}` of `{key}` as a subnet"))?;
                given.subnets.push(net.trunc().to_string());
            }
            "FLANNEL_NETWORK" | "FLANNEL_IPV6_NETWORK" => given.cluster.extend(listed(value)),
            "FLANNEL_MTU" => given.mtu = value.parse().ok(),
            _ => {}
        }
    }
    if given.subnets.is_empty() {
        return Err(Error::caused(
            Kind::Config,
            "read the pods' subnets of flannel",
            "there is no FLANNEL_SUBNET",
        ));
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = r#"{"kind": "Node", "metadata": {"name": "n1"},
        "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:1::/64"]}, "status": {"x": [1]}}"#;

    #[test]
    fn each_form_of_a_file_says_the_same() {
        let yaml = "apiVersion: v1\nkind: Node\nmetadata:\n  name: n1\nspec:\n  podCIDR: 10.244.1.0/24\n  podCIDRs:\n  - 10.244.1.0/24\n  - fd00:1::/64\n";
        let list = format!(r#"{{"kind": "NodeList", "items": [{{"metadata": {{"name": "n0"}}}}, {NODE}]}}"#);
        let lines = "# node 1\n10.244.1.0/24\nfd00:1::/64\n";
        let flannel = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_SUBNET=fd00:1::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        for text in [NODE, yaml, &list, lines, "10.244.1.0/24, fd00:1::/64", flannel] {
            let given = parse(text, Some("n1"), "other").unwrap();
            assert_eq!(given.subnets, ["10.244.1.0/24", "fd00:1::/64"], "{text}");
        }
        let given = parse(flannel, None, "").unwrap();
        assert_eq!((given.cluster, given.mtu), (vec!["10.244.0.0/16".to_owned()], Some(1450)));
        let old = r#"{"kind": "Node", "metadata": {"name": "n1"}, "spec": {"podCIDR": "10.1.0.0/24"}}"#;
        assert_eq!(parse(old, None, "x").unwrap().subnets, ["10.1.0.0/24"]);
        assert_eq!(parse(&list, None, "n1").unwrap().subnets.len(), 2, "the host's own name");
    }

    #[test]
    fn what_is_no_answer_says_what_is_missing() {
        let table = [
            (NODE, Some("n2"), "`n1`"),
            (r#"{"kind": "NodeList", "items": []}"#, Some("n1"), "no node `n1`"),
            (r#"{"kind": "Node", "metadata": {"name": "n1"}, "spec": {}}"#, None, "podCIDRs"),
            (r#"{"kind": "Pod"}"#, None, "Pod"),
            ("", None, "none"),
            ("FLANNEL_NETWORK=10.0.0.0/8", None, "FLANNEL_SUBNET"),
            ("FLANNEL_SUBNET=x", None, "`x`"),
            ("{", None, "EOF"),
        ];
        for (text, node, part) in table {
            let error = parse(text, node, "h").unwrap_err();
            assert!(error.chain().contains(part), "{text}: {}", error.chain());
        }
        assert_eq!(of_answer(br#"{"kind": "Node", "spec": {}}"#, "n").unwrap(), None);
    }
}
