//! DEL: detach a pod (CNI spec 1.1.0, section 2, "DEL"). It needs the owner alone: no namespace, no
//! configuration, no previous result, no memory of the ADD. Its only errors are those where trying
//! again helps.

use std::path::{Path, PathBuf};

use node::namespace::Namespace;
use node::{Kind, Result, store, times};
use serde_json::{Value, json};

use crate::apply::Hands;
use crate::attachment::Attachment;
use crate::config::Attach;
use crate::config::tuning::{self, Tuning};
use crate::ipam::{COOLDOWN, DATA_DIR, Ipam};
use crate::kernel::link::{self, Link};
use crate::kernel::nft::{Forward, Found, Trace};
use crate::observe;
use crate::owner::Owner;
use crate::plan::step::{Place, Step};
use crate::plan::{shape, tune, unmake};
use crate::request::Del;
use crate::role::Role;
use crate::state::State;
use crate::verb::chained;
use crate::version::Version;

/// Detaches the pod.
pub fn del(call: &Del) -> Result<()> {
    let state = State::open()?;
    let record = state.attachments.find(&call.owner)?;
    let stdin = for_delegates(call, record.as_ref());
    let mut hands = Hands::new(&state, Namespace::current()?, None);
    hands.delegates(&call.path, &stdin);
    times::lap("open");
    match record {
        Some(record) => remembered(&record, &mut hands),
        None => forgotten(call, &mut hands),
    }
}

/// The configuration for a delegate's DEL. What the record knows of the ADD goes before a configuration
/// that does not read or names another IPAM by now.
fn for_delegates(call: &Del, record: Option<&Attachment>) -> Value {
    let mut stdin = call.stdin.clone().filter(Value::is_object).unwrap_or_else(|| {
        let version = record.map_or(Version::NEWEST.as_str(), |r| &r.version);
        let network = record.map_or("unknown", |r| &r.network);
        json!({"cniVersion": version, "name": network, "type": "nodeplug-cni"})
    });
    if let Some(Attachment { delegate: Some(plugin), delegate_ipam: Some(ipam), .. }) = record
        && stdin.pointer("/ipam/type").and_then(Value::as_str) != Some(plugin)
        && let Some(object) = stdin.as_object_mut()
    {
        object.insert("ipam".into(), ipam.clone());
    }
    stdin
}

/// Takes back what the record names. Also serves GC and `ipam check --fix`.
pub fn remembered(record: &Attachment, hands: &mut Hands) -> Result<()> {
    hands.visit(pod_of(record))?;
    hands.run_all(unmake(record))
}

/// The namespace of the ADD, where something in it has to be taken back and it is still there.
pub fn pod_of(record: &Attachment) -> Option<Namespace> {
    let inside = record.restore.is_some() || record.source_routing.is_some();
    let pod =
        Some(&record.netns).filter(|_| inside).and_then(|path| Namespace::open(Path::new(path)).ok())?;
    // A process's path may lead to another process by now, and so to another pod or to the node itself.
    let home = Namespace::current().ok()?;
    let same = record.netns_identity.is_none_or(|identity| identity == pod.identity());
    (same && !pod.is(&home)).then_some(pod)
}

/// The namespace that the call names, where it is a pod's.
pub fn namespace_of(call: &Del) -> Result<Option<Namespace>> {
    let home = Namespace::current()?;
    let pod = call.netns.as_ref().and_then(|path| Namespace::open(Path::new(path)).ok());
    Ok(pod.filter(|pod| !pod.is(&home)))
}

/// What takes back, without a record, what was changed inside the pod, by this program or by the
/// reference's plugin of that name.
pub fn inside(call: &Del) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let link = || call.owner.ifname.clone();
    let features = call.config.as_ref().map(|c| &c.features);
    if call.role == Role::Tuning {
        let folder = features.and_then(|f| f.tuning.as_ref()?.folder.as_deref());
        let folder = folder.unwrap_or(Path::new(tuning::DATA_DIR));
        let file = Tuning::file(folder, &call.owner.container_id, &call.owner.ifname);
        if let Some(bytes) = store::read(&file)? {
            let kept = serde_json::from_slice(&bytes).unwrap_or_default();
            let before = Box::new(tune::from_reference(&kept));
            steps.push(Step::Restore { link: link(), before, file: Some(file) });
        }
    }
    if features.is_some_and(|f| f.source_routing.is_some()) {
        steps.push(Step::RemoveRules { link: link(), addresses: Vec::new() });
    }
    Ok(steps)
}

/// Takes back what can be found of an owner whose record does not read. Leases stay with `ipam check`,
/// which then finds them without an attachment.
pub fn unreadable(owner: &Owner, hands: &mut Hands) -> Result<()> {
    filters_of(owner, hands)?;
    hands.run_all(vec![
        Step::DeleteLinks { links: vec![owner.host_ifname()] },
        Step::Forget { owner: owner.clone() },
    ])
}

/// No record: usually the second DEL of a pod that is gone, which must cost next to nothing. Otherwise
/// the pod was made by another plugin, or the memory was lost; then the leftovers tell their owner.
fn forgotten(call: &Del, hands: &mut Hands) -> Result<()> {
    let owner = &call.owner;
    let unreadable = hands.state().attachments.has(owner);
    let lost = unreadable || !hands.state().is_whole()?;
    let mut result = Ok(());
    let mut keep_first = |next: Result<()>| {
        if result.is_ok() {
            result = next;
        }
    };
    let own = hands.socket(Place::Host).and_then(|s| link::find(s, &owner.host_ifname()));
    // A link of ours without a record: this one was lost alone.
    let lost = lost || own.as_ref().is_ok_and(Option::is_some);
    if lost {
        keep_first(filters_of(owner, hands));
    }
    let rules = inside(call)?;
    if !rules.is_empty() {
        hands.visit(namespace_of(call)?)?;
        keep_first(hands.run_all(rules));
    }
    keep_first(own.and_then(|own| links_of(call, own, hands)));
    keep_first(chained::ifb_of(call, hands));
    keep_first(chains_of_reference(call, hands));
    keep_first(chained::accepts_of_reference(call, hands));
    if let Some(Ipam::Delegate { plugin }) = call.config.as_ref().and_then(|c| c.ipam.as_ref()) {
        let asked = hands.run_all(vec![Step::Undelegate { plugin: plugin.clone() }]);
        // A plugin that is not installed holds nothing that is known of.
        keep_first(asked.or_else(|e| if e.kind() == Kind::Config { Ok(()) } else { Err(e) }));
    }
    keep_first(addresses_alone(owner, hands));
    if let Some(folder) = leases_of(call) {
        keep_first(release(&folder, owner, lost, hands));
    }
    if unreadable {
        keep_first(hands.run_all(vec![Step::Forget { owner: owner.clone() }]));
    }
    result
}

/// The chains by which the reference's plugins masqueraded and, where we do their chained ones' work, led ports.
fn chains_of_reference(call: &Del, hands: &mut Hands) -> Result<()> {
    let Some(network) = &call.network else { return Ok(()) };
    let [masquerade, ports] = shape::chains_of_reference(network, &call.owner);
    let chains = match call.role {
        Role::Bridge | Role::PointToPoint => vec![masquerade],
        Role::Main => vec![masquerade, ports],
        _ => return Ok(()),
    };
    hands.nft().map_or(Ok(()), |nft| nft.remove_chains_of_reference(&chains))
}

/// Elements by their comment. A node whose kernel has no nf_tables has none.
pub fn filters_of(owner: &Owner, hands: &mut Hands) -> Result<()> {
    let Ok(nft) = hands.nft() else { return Ok(()) };
    let mut traces = nft.isolated_of(owner)?;
    let found = nft.found_of(owner)?;
    let mut ports: Vec<Forward> = found.iter().filter_map(Found::forward).collect();
    if !found.is_empty() {
        traces.push(Trace::Found(found));
    }
    let mut steps = vec![Step::NoSpoofCheck { owner: owner.clone(), mac: None }];
    if !traces.is_empty() {
        steps.push(Step::Unfilter { traces, owner: owner.clone() });
    }
    ports.extend(hands.state().claims().of_owner(owner)?);
    steps.push(Step::ReleasePorts { ports, owner: owner.clone() });
    hands.run_all(steps)
}

fn links_of(call: &Del, own: Option<Link>, hands: &mut Hands) -> Result<()> {
    let host = match own {
        Some(own) => Some(own.name),
        None => another_plugins(call, hands)?,
    };
    let ifb = match &call.network {
        Some(network) => observe::left_ifb(hands.socket(Place::Host)?, network, &call.owner)?,
        None => None,
    };
    let links: Vec<String> = host.into_iter().chain(ifb).collect();
    if links.is_empty() { Ok(()) } else { hands.run_all(vec![Step::DeleteLinks { links }]) }
}

/// The host end of a veth that the plugin before us made in the pod, found from the pod's end: after a
/// swap of the binary its pods are ours to delete. A namespace that is not there took its links along.
fn another_plugins(call: &Del, hands: &mut Hands) -> Result<Option<String>> {
    let ours = call.config.as_ref().is_some_and(|c| matches!(c.attach, Attach::Routed | Attach::Bridge(_)));
    let Some(netns) = call.netns.as_ref().filter(|_| ours) else { return Ok(None) };
    let Ok(pod) = Namespace::open(Path::new(netns)) else { return Ok(None) };
    let home = Namespace::current()?;
    if pod.is(&home) {
        return Ok(None);
    }
    let mut inside = Hands::new(hands.state(), home, Some(pod));
    let found = link::find(inside.socket(Place::Pod)?, &call.owner.ifname)?;
    inside.go(Place::Host)?;
    let Some(end) = found.filter(|l| l.kind.as_deref() == Some("veth")) else { return Ok(None) };
    let Some(peer) = end.peer else { return Ok(None) };
    let host = link::find_index(hands.socket(Place::Host)?, peer)?;
    // Indexes are counted by namespace: the link that bears the number here must be the other end.
    // One of our names is another attachment's, with a record of its own.
    let theirs = |l: &Link| {
        l.kind.as_deref() == Some("veth") && l.peer == Some(end.index) && !Owner::is_host_ifname(&l.name)
    };
    Ok(host.filter(theirs).map(|l| l.name))
}

/// What our `host-local` gave to the plugin that made the pod.
fn addresses_alone(owner: &Owner, hands: &mut Hands) -> Result<()> {
    let others = &hands.state().lessees.others;
    let Some(record) = others.find(owner)? else { return Ok(()) };
    hands.run_all(unmake(&record).into_iter().filter(|s| matches!(s, Step::Release { .. })).collect())?;
    others.remove(owner)
}

/// The folder of leases: the configuration's, or the usual one where its `ipam` does not read.
pub fn leases_of(call: &Del) -> Option<PathBuf> {
    let network = call.network.as_ref()?;
    match call.config.as_ref().map(|c| (&c.ipam, &c.ipam_json)) {
        Some((Some(Ipam::HostLocal(config)), _)) => Some(config.folder(network)),
        Some((None, Some(_))) => Some(Path::new(DATA_DIR).join(network)),
        _ => None,
    }
}

/// Gives back what no record leads to, by reading every lease where there may be any such.
pub fn release(folder: &Path, owner: &Owner, lost: bool, hands: &mut Hands) -> Result<()> {
    let Some(mut leases) = hands.open_existing_leases(folder, COOLDOWN)? else { return Ok(()) };
    if lost || leases.may_hold_foreign() {
        leases.release_by_scan(owner)?;
    }
    Ok(())
}
