//! The conflist that an install writes.

use std::fmt::Write;

use ipnet::IpNet;
use node::{Error, Kind, Result};
use serde_json::{Map, Value, json};

use super::Mode;
use crate::command::validate;
use crate::role::OWN;
use crate::version::Version;

/// The network that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Network {
    pub name: String,
    pub version: Version,
    pub mode: Mode,
    pub mtu: Option<u32>,
    pub subnets: Vec<IpNet>,
    /// Destinations that see the pods' own addresses.
    pub cluster: Vec<IpNet>,
}

impl Network {
    /// The file's text, checked as the plugin will read it.
    pub fn text(&self) -> Result<String> {
        // The kernel takes IPv6 from a link that is narrower, and a pod would say so only then.
        let least = if self.subnets.iter().any(|net| net.addr().is_ipv6()) { 1280 } else { 68 };
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu < least) {
            let why = format!("pods of these subnets need {least}");
            return Err(Error::caused(Kind::Config, format!("make a network of mtu {mtu}"), why)
                .hint("leave --mtu out, and it is that of the node's default route"));
        }
        let list = json!({
            "cniVersion": self.version.as_str(),
            "name": self.name,
            "plugins": [self.entry()],
        });
        let mut text = format!("{list:#}");
        text.push('\n');
        check(&text)?;
        Ok(text)
    }

    fn entry(&self) -> Value {
        let mut entry = Map::new();
        entry.insert("type".into(), OWN.into());
        if self.mode == Mode::Bridge {
            entry.insert("mode".into(), "bridge".into());
            entry.insert("isDefaultGateway".into(), true.into());
        }
        entry.extend(self.mtu.map(|mtu| ("mtu".to_owned(), mtu.into())));
        entry.insert("ipMasq".into(), true.into());
        if !self.cluster.is_empty() {
            entry.insert("nonMasqueradeCIDRs".into(), self.cluster.iter().map(ToString::to_string).collect());
        }
        entry.insert("capabilities".into(), json!({"portMappings": true, "bandwidth": true}));
        let ranges: Value = self.subnets.iter().map(|net| json!([{"subnet": net.to_string()}])).collect();
        entry.insert("ipam".into(), json!({"type": "host-local", "ranges": ranges}));
        entry.into()
    }
}

/// Refuses a text in which `validate` finds a problem.
pub(super) fn check(text: &str) -> Result<()> {
    let report = validate::validate(text);
    if report.is_fine() {
        return Ok(());
    }
    let mut why = String::new();
    for problem in &report.problems {
        let separator = if why.is_empty() { "" } else { "; " };
        // Writing to a string does not go wrong.
        let _ = write!(why, "{separator}{} {}", problem.at, problem.what);
    }
    let hint = report.problems.iter().find_map(|problem| problem.hint.clone()).unwrap_or_default();
    Err(Error::caused(Kind::Config, "make the network's configuration", why).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(subnets: &[&str], mode: Mode) -> Network {
        Network {
            name: "pods".to_owned(),
            version: Version::V1_0_0,
            mode,
            mtu: None,
            subnets: subnets.iter().map(|s| s.parse().unwrap()).collect(),
            cluster: Vec::new(),
        }
    }

    #[test]
    fn what_is_made_is_right_in_every_combination() {
        for subnets in [&["10.244.1.0/24"][..], &["fd00:1::/64"], &["10.244.1.0/24", "fd00:1::/64"]] {
            for mode in [Mode::Routed, Mode::Bridge] {
                for version in Version::ALL {
                    let network = Network {
                        version,
                        mtu: Some(1400),
                        cluster: vec!["10.244.0.0/16".parse().unwrap()],
                        ..network(subnets, mode)
                    };
                    let text = network.text().unwrap();
                    assert_eq!(validate::validate(&text).warnings, [], "{text}");
                }
            }
        }
        let text = network(&["10.244.1.0/24"], Mode::Routed).text().unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "nodeplug-cni", "ipMasq": true,
                "capabilities": {"portMappings": true, "bandwidth": true},
                "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.1.0/24"}]]}}]})
        );
    }

    #[test]
    fn what_the_plugin_would_refuse_is_not_made() {
        let wrong = Network { name: "a/b".to_owned(), ..network(&["10.244.1.0/24"], Mode::Routed) };
        assert!(wrong.text().unwrap_err().chain().contains("name"));
        let wrong = Network { mtu: Some(1000), ..network(&["fd00::/64"], Mode::Routed) };
        assert!(wrong.text().unwrap_err().chain().contains("mtu"));
    }
}
