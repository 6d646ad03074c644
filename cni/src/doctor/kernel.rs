//! What the kernel has of what pods need.
//!
//! A kernel that loads modules has them on a list: there nothing is tried, since a try would load them. One that
//! loads none is tried out.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::utsname::uname;
use node::finding::{Finding, unread};

use super::networks::Networks;
use crate::config::Attach;
use crate::config::firewall::{Firewall, IngressPolicy};
use crate::kernel::nft::{Filter, Masquerade};
use crate::kernel::probe::{self, Feature};
use crate::plan::target::Target;
use crate::plan::{firewall, ports};
use crate::role::Role;

const WHAT: &str = "kernel";

/// How a feature is called, the modules that it is made of, and the options that they are built by.
fn about(feature: Feature) -> (&'static str, &'static [&'static str], &'static str) {
    match feature {
        Feature::Veth => ("veth", &["veth"], "CONFIG_VETH"),
        Feature::Bridge => ("bridges", &["bridge"], "CONFIG_BRIDGE"),
        Feature::Rates => (
            "rates",
            &["ifb", "sch_tbf", "sch_ingress", "cls_u32", "act_mirred"],
            "CONFIG_IFB, CONFIG_NET_SCH_TBF, CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_U32, CONFIG_NET_ACT_MIRRED",
        ),
        Feature::Masquerade => (
            "masquerade",
            &["nf_tables", "nft_chain_nat", "nft_masq"],
            "CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT, CONFIG_NFT_MASQ",
        ),
        Feature::Ports => (
            "host ports",
            &["nf_tables", "nft_chain_nat", "nft_nat", "nft_masq", "nft_ct", "nft_fib_inet"],
            "CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT, CONFIG_NFT_MASQ, CONFIG_NFT_CT, CONFIG_NFT_FIB_INET",
        ),
        Feature::Firewall => ("firewall", &["nf_tables", "nft_ct"], "CONFIG_NF_TABLES_INET, CONFIG_NFT_CT"),
        Feature::MacCheck => ("MAC check", &["nf_tables"], "CONFIG_NF_TABLES_BRIDGE"),
        // Built in or not at all.
        Feature::Rules => {
            ("routing by source", &[], "CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES")
        }
    }
}

/// Whether a module is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Module {
    /// In the kernel, or loaded.
    There,
    /// Loaded when it is first needed.
    Loadable,
    Missing,
}

/// The lists of modules of the running kernel.
#[derive(Debug)]
struct Modules {
    /// `/sys/module`.
    loaded: PathBuf,
    builtin: String,
    loadable: String,
}

impl Modules {
    /// `None` where the lists are not to be seen from here.
    fn read(root: &Path, release: &str) -> Option<Self> {
        let folders = ["lib/modules", "usr/lib/modules"];
        let folder = folders.into_iter().map(|f| root.join(f).join(release)).find(|f| f.is_dir())?;
        let text = |name: &str| fs::read_to_string(folder.join(name)).ok();
        Some(Self {
            loaded: root.join("sys/module"),
            builtin: text("modules.builtin").unwrap_or_default(),
            loadable: text("modules.dep")?,
        })
    }

    fn find(&self, name: &str) -> Module {
        let is = |line: &str| {
            let path = line.split(':').next().unwrap_or_default();
            let file = path.rsplit('/').next().unwrap_or_default();
            // `.ko`, `.ko.xz`, `.ko.zst`; names have dashes or underscores.
            file.split('.').next().unwrap_or_default().replace('-', "_") == name
        };
        if self.loaded.join(name).exists() || self.builtin.lines().any(is) {
            return Module::There;
        }
        if self.loadable.lines().any(is) { Module::Loadable } else { Module::Missing }
    }
}

/// Whether this kernel loads modules at all.
fn loads_modules() -> bool {
    let forbidden = super::number("kernel/modules_disabled") == Some(1);
    Path::new("/proc/modules").exists() && !forbidden
}

/// Whether nf_tables may be asked without loading it. Where it is not loaded it holds nothing.
pub(super) fn has_nf_tables() -> bool {
    if !loads_modules() || Path::new("/sys/module/nf_tables").exists() {
        return true;
    }
    let release = uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    Modules::read(Path::new("/"), &release).is_some_and(|m| m.find("nf_tables") == Module::There)
}

/// One line when all is there; else one for each thing that is missing.
pub(super) fn features(networks: &Networks) -> Vec<Finding> {
    if !loads_modules() {
        return match probe::every(&example) {
            Ok(tried) => {
                let missing = tried.into_iter().filter_map(|(f, tried)| Some((f, tried.err()?.chain())));
                told(missing.collect(), networks, "in the kernel")
            }
            Err(error) => vec![unread(WHAT, &error)],
        };
    }
    let release = uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    let Some(modules) = Modules::read(Path::new("/"), &release) else {
        let why =
            format!("/lib/modules/{release} is not to be seen from here: what the kernel has is not known");
        let remedy = "mount the node's /lib/modules, or name its root by --root";
        return vec![Finding::warning(WHAT, why, remedy)];
    };
    told(listed(&modules), networks, "in the kernel, or loaded when it is needed")
}

fn listed(modules: &Modules) -> Vec<(Feature, String)> {
    let missing = |feature: Feature| {
        let gone: Vec<&str> =
            about(feature).1.iter().copied().filter(|name| modules.find(name) == Module::Missing).collect();
        (!gone.is_empty()).then(|| (feature, format!("no module {}", gone.join(", "))))
    };
    Feature::ALL.into_iter().filter_map(missing).collect()
}

fn told(missing: Vec<(Feature, String)>, networks: &Networks, how: &str) -> Vec<Finding> {
    if missing.is_empty() {
        let all: Vec<&str> = Feature::ALL.into_iter().map(|feature| about(feature).0).collect();
        return vec![Finding::fine(WHAT, format!("{}: {how}", all.join(", ")))];
    }
    let of = |(feature, why): (Feature, String)| {
        let (name, _, options) = about(feature);
        let remedy =
            format!("use a kernel with {options}; on a distribution's: install its package of modules");
        if is_needed(feature, networks) {
            return Finding::problem(WHAT, format!("{name} can't be had: {why}"), remedy);
        }
        let why = format!("{name} can't be had, and the configuration does not ask for it: {why}");
        Finding::warning(WHAT, why, remedy)
    };
    missing.into_iter().map(of).collect()
}

fn is_needed(feature: Feature, networks: &Networks) -> bool {
    let any = |is: fn(&crate::config::NetConf) -> bool| networks.configurations.iter().any(is);
    match feature {
        Feature::Veth => true,
        Feature::Bridge => any(|c| matches!(c.attach, Attach::Bridge(_))),
        Feature::Rates => any(|c| c.features.bandwidth.is_some() || c.role == Role::Bandwidth),
        Feature::Masquerade => any(|c| c.masquerade),
        Feature::Ports => any(crate::config::NetConf::maps_ports),
        Feature::Firewall => any(|c| c.features.firewall.is_some()),
        Feature::MacCheck => any(|c| matches!(&c.attach, Attach::Bridge(b) if b.mac_spoof_check)),
        Feature::Rules => any(|c| c.features.source_routing.is_some()),
    }
}

/// What a feature needs of nf_tables.
fn example(feature: Feature) -> Vec<Filter> {
    match feature {
        Feature::Masquerade => {
            vec![Filter::Masquerade(Masquerade { network: "doctor".into(), keep: Vec::new() }, Vec::new())]
        }
        Feature::Ports => vec![ports::probe(None)],
        Feature::Firewall => {
            let open = Firewall { admin_chain: "CNI-ADMIN".into(), ingress: IngressPolicy::Open };
            vec![firewall::filter(&open, &Target::default())]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use node::finding::State;

    use super::*;

    fn modules(builtin: &str, loadable: &str) -> Modules {
        let own = |text: &str| text.to_owned();
        Modules { loaded: "/nonexistent".into(), builtin: own(builtin), loadable: own(loadable) }
    }

    #[test]
    fn a_module_is_found_by_its_name_in_either_list() {
        let all = modules(
            "kernel/drivers/net/veth.ko\n",
            "kernel/net/sched/sch_tbf.ko.zst: x.ko\nkernel/net/act-mirred.ko:\n",
        );
        for (name, expect) in [
            ("veth", Module::There),
            ("sch_tbf", Module::Loadable),
            ("act_mirred", Module::Loadable),
            ("tbf", Module::Missing),
            ("x", Module::Missing),
        ] {
            assert_eq!(all.find(name), expect, "{name}");
        }
    }

    #[test]
    fn what_is_missing_is_a_problem_where_the_configuration_asks_for_it() {
        let missing = listed(&modules(
            "kernel/veth.ko\nkernel/bridge.ko\nkernel/nf_tables.ko\n",
            "kernel/nft_ct.ko:\n",
        ));
        let found = told(missing, &Networks::default(), "there");
        let states: Vec<(State, bool)> =
            found.iter().map(|f| (f.state, f.why.contains("does not ask"))).collect();
        assert_eq!(states, [(State::Warning, true); 3], "{found:?}");
        assert!(found[0].remedy.as_ref().is_some_and(|r| r.contains("CONFIG_NET_SCH_TBF")), "{found:?}");
        let found = told(listed(&modules("", "")), &Networks::default(), "there");
        assert_eq!((found[0].state, found[0].why.contains("veth")), (State::Problem, true), "{found:?}");
    }
}
