//! The host's firewall: the keys of the reference's firewall plugin.

use serde::{Deserialize, Serialize};

use crate::config::feature::Source;
use crate::config::reader::{Problem, Reader};
use crate::role::Role;

/// How the pod's traffic passes the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// `iptablesAdminChainName`: the operator's own chain, asked before any of our rules.
    pub admin_chain: String,
    /// `ingressPolicy`: who may open a connection to the pod.
    pub ingress: IngressPolicy,
}

/// Who may open a connection to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IngressPolicy {
    /// Everybody.
    Open,
    /// Pods of the same bridge, and nobody of another bridge.
    SameBridge,
    /// No other pod.
    Isolated,
}

/// The reference's name for the operator's chain.
const ADMIN_CHAIN: &str = "CNI-ADMIN";

/// The longest name of a chain that iptables takes (`XT_EXTENSION_MAXNAMELEN`, with its NUL).
const CHAIN_MAX: usize = 28;

/// Names that mean something else to iptables, or that the rules around the operator's chain have.
const TAKEN: [&str; 9] = [
    "ACCEPT",
    "DROP",
    "QUEUE",
    "RETURN",
    "INPUT",
    "FORWARD",
    "OUTPUT",
    "CNI-FORWARD",
    // Ours: see `kernel/nft/firewall`.
    "firewall",
];

/// What to do about everything that only firewalld can be asked for.
const FIREWALLD: &str = "take the key out; where firewalld runs, put the pods' subnets into its zone `trusted` \
                         (`firewall-cmd --permanent --zone=trusted --add-source=SUBNET`)";

impl Firewall {
    /// `None` where it is not asked for.
    pub(super) fn read(source: &mut Source<'_, '_>, problems: &mut Vec<Problem>) -> Option<Self> {
        let main = source.role == Role::Main;
        let reader = &mut *source.reader;
        let switch = if main { reader.bool("firewall", problems) } else { Some(true) };
        let admin_chain = admin_chain(reader, problems);
        let ingress = ingress(reader, problems);
        let firewalld = firewalld(reader, problems);
        let keys = [
            ("ingressPolicy", ingress.is_some()),
            ("iptablesAdminChainName", admin_chain.is_some()),
            ("firewalldZone", firewalld),
        ];
        let present = keys.iter().find(|(_, there)| *there).map(|(key, _)| *key);
        if let (Some(false), Some(key)) = (switch, present) {
            let what = format!("is false beside `{key}`, which asks for it");
            problems
                .push(Problem::wrong(&reader.place("firewall"), what).hint("leave one of the two keys out"));
            return None;
        }
        (switch == Some(true) || present.is_some()).then(|| Self {
            admin_chain: admin_chain.unwrap_or_else(|| ADMIN_CHAIN.to_owned()),
            ingress: ingress.unwrap_or(IngressPolicy::Open),
        })
    }
}

fn admin_chain(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> Option<String> {
    let key = "iptablesAdminChainName";
    let name = reader.string(key, problems)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let why = if !begins || !name.chars().all(plain) || name.len() > CHAIN_MAX {
        format!(
            "which is not a letter followed by letters, digits, `-`, `_` and `.`, {CHAIN_MAX} at the most"
        )
    } else if TAKEN.iter().any(|taken| name.eq_ignore_ascii_case(taken)) || name.starts_with("firewall-") {
        "a name that is taken".to_owned()
    } else {
        return Some(name.to_owned());
    };
    let shown = crate::name::shown(name);
    problems.push(
        Problem::wrong(&reader.place(key), format!("is {shown}, {why}"))
            .hint(format!("leave it out for `{ADMIN_CHAIN}`, or choose another name")),
    );
    Some(ADMIN_CHAIN.to_owned())
}

fn ingress(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> Option<IngressPolicy> {
    Some(match reader.string("ingressPolicy", problems)? {
        "open" => IngressPolicy::Open,
        "same-bridge" => IngressPolicy::SameBridge,
        "isolated" => IngressPolicy::Isolated,
        other => {
            let what = format!(
                "is {}, and only `open`, `same-bridge` and `isolated` are known",
                crate::name::shown(other)
            );
            problems.push(Problem::wrong(&reader.place("ingressPolicy"), what));
            IngressPolicy::Open
        }
    })
}

/// The keys that choose who makes the rules; whether that of firewalld alone is there. `iptables` and
/// `nftables` come to the same here: rules of nf_tables, among them some that iptables shows.
fn firewalld(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> bool {
    let place = reader.place("backend");
    match reader.string("backend", problems) {
        None | Some("iptables" | "nftables") => {}
        Some("firewalld") => problems
            .push(Problem::unsupported(&place, "is `firewalld`, which is not asked here").hint(FIREWALLD)),
        Some(other) => {
            let what =
                format!("is {}, and only `iptables` and `nftables` are known", crate::name::shown(other));
            problems.push(Problem::wrong(&place, what));
        }
    }
    let Some(zone) = reader.string("firewalldZone", problems) else { return false };
    let what = format!("is {}, and firewalld is not asked here", crate::name::shown(zone));
    problems.push(Problem::unsupported(&reader.place("firewalldZone"), what).hint(FIREWALLD));
    true
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::problems::line;
    use crate::config::wanted::Asked;
    use crate::config::{NetConf, Position};

    fn read(role: Role, more: &Value) -> (Option<Firewall>, Vec<String>, bool) {
        let mut value = json!({"cniVersion": "1.0.0", "name": "n", "type": role.name()});
        for (key, value_of) in more.as_object().unwrap() {
            value[key] = value_of.clone();
        }
        let mut found = Vec::new();
        let conf = NetConf::read(role, &value, "", Position::Chained, &Asked::default(), &mut found);
        let unsupported = !found.is_empty() && found.iter().all(|p| p.unsupported);
        (conf.features.firewall, found.iter().map(line).collect(), unsupported)
    }

    fn open(admin: &str) -> Firewall {
        Firewall { admin_chain: admin.to_owned(), ingress: IngressPolicy::Open }
    }

    #[test]
    fn under_the_references_name_it_is_on_and_under_our_own_where_it_is_asked_for() {
        assert_eq!(read(Role::Firewall, &json!({})).0, Some(open("CNI-ADMIN")));
        assert_eq!(read(Role::Main, &json!({})).0, None);
        assert_eq!(read(Role::Main, &json!({"firewall": false})).0, None);
        assert_eq!(read(Role::Main, &json!({"firewall": true})).0, Some(open("CNI-ADMIN")));
        assert_eq!(read(Role::Main, &json!({"iptablesAdminChainName": "MINE"})).0, Some(open("MINE")));
        let closed = read(Role::Main, &json!({"ingressPolicy": "same-bridge", "backend": "nftables"}));
        assert_eq!(closed.0.unwrap().ingress, IngressPolicy::SameBridge);
        assert!(closed.1.is_empty(), "{:?}", closed.1);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_place() {
        let cases = [
            (json!({"ingressPolicy": "closed"}), "`ingressPolicy` is `closed`", false),
            (json!({"backend": "ipset"}), "`backend` is `ipset`", false),
            (json!({"backend": "firewalld"}), "`backend` is `firewalld`", true),
            (json!({"firewalldZone": "trusted"}), "`firewalldZone` is `trusted`", true),
            (json!({"iptablesAdminChainName": "forward"}), "a name that is taken", false),
            (json!({"iptablesAdminChainName": "-x"}), "which is not a letter", false),
            (json!({"iptablesAdminChainName": "A".repeat(29)}), "which is not a letter", false),
            (json!({"firewall": "yes"}), "`firewall` is", false),
            (json!({"firewall": false, "ingressPolicy": "open"}), "`firewall` is false beside", false),
        ];
        for (more, expect, unsupported) in cases {
            let (_, problems, all_unsupported) = read(Role::Main, &more);
            assert_eq!(problems.len(), 1, "{more}: {problems:?}");
            assert!(problems[0].contains(expect), "{more}: {problems:?}");
            assert_eq!(all_unsupported, unsupported, "{more}");
        }
    }

    #[test]
    fn the_key_of_our_own_entry_is_none_of_the_references() {
        let (_, problems, unsupported) = read(Role::Firewall, &json!({"firewall": true}));
        assert!(unsupported && problems.len() == 1, "{problems:?}");
    }
}
