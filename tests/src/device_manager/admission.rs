//! Which devices a container gets, in the manager's order: those that its pod has already, those of an init
//! container that has ended, those near the right NUMA node, those that the plugin prefers, and any.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::deviceplugin::{
    AllocateRequest, ContainerAllocateRequest, ContainerPreferredAllocationRequest, Device,
    PreferredAllocationRequest,
};

use super::core::Core;
use super::journal::What;
use super::memory::{Endpoint, Held, Memory, Place};
use super::plugins::in_go;
use super::pods::{Pod, Role};
use crate::kubelet::hold;

/// A container's wish for one resource.
struct Wish<'a> {
    place: Place,
    resource: &'a str,
    required: usize,
    reusable: BTreeSet<String>,
    numa: Option<&'a BTreeSet<i64>>,
}

/// Admits a pod: its containers one after another, each resource with one call of Allocate. A pod that can't
/// have everything gets nothing.
pub(super) async fn admit(core: &Arc<Core>, pod: &Pod) -> Result<(), String> {
    hold(&core.pods).insert(pod.uid.clone(), pod.clone());
    let admitted = all_containers(core, pod).await;
    if admitted.is_err() {
        forget(core, &pod.uid);
    }
    admitted.map_err(|why| format!("Allocate failed due to {why}, which is unexpected"))
}

/// A pod has ended; what it held is free from the next allocation on.
pub(super) fn forget(core: &Core, uid: &str) {
    hold(&core.pods).remove(uid);
    hold(&core.memory).held.retain(|place, _| place.0 != uid);
}

async fn all_containers(core: &Arc<Core>, pod: &Pod) -> Result<(), String> {
    let mut reusable: BTreeSet<(String, String)> = BTreeSet::new();
    let (init, main): (Vec<_>, Vec<_>) = pod.containers.iter().partition(|c| c.role != Role::Main);
    for container in init.into_iter().chain(main) {
        let place = (pod.uid.clone(), container.name.clone());
        for (resource, required) in &container.limits {
            let offered = reusable.iter().filter(|(r, _)| r == resource).map(|(_, id)| id.clone()).collect();
            let numa = pod.numa.as_ref();
            let wish = Wish { place: place.clone(), resource, required: *required, reusable: offered, numa };
            one_resource(core, &wish).await?;
        }
        let memory = hold(&core.memory);
        for (resource, held) in memory.held.get(&place).into_iter().flatten() {
            for id in held.ids() {
                match container.role {
                    Role::Init => reusable.insert((resource.clone(), id)),
                    Role::Sidecar | Role::Main => reusable.remove(&(resource.clone(), id)),
                };
            }
        }
    }
    Ok(())
}

async fn one_resource(core: &Arc<Core>, wish: &Wish<'_>) -> Result<(), String> {
    forget_ended(core);
    if !hold(&core.memory).endpoints.contains_key(wish.resource) {
        // Nobody ever registered it: the container starts without, in silence.
        return Ok(());
    }
    let chosen = devices_to_allocate(core, wish).await?;
    if chosen.is_empty() {
        return Ok(());
    }
    let endpoint = hold(&core.memory).endpoints.get(wish.resource).cloned();
    let answer = allocate(core, wish, endpoint, &chosen).await;
    if answer.is_err() {
        hold(&core.memory).count_taken();
    }
    let answer = answer?;
    let mut memory = hold(&core.memory);
    let mut held = Held { answer, ..Held::default() };
    for id in chosen {
        let Some(device) = memory.offers.get(wish.resource).and_then(|o| o.devices.get(&id)) else {
            drop(memory);
            let why = format!("`{id}` of {} left the list while its Allocate was under way", wish.resource);
            core.crash(&why);
            return Err(format!("the kubelet has crashed: {why}"));
        };
        for node in numa_of(device) {
            held.devices.entry(node).or_default().insert(id.clone());
        }
    }
    memory.held.entry(wish.place.clone()).or_default().insert(wish.resource.to_owned(), held);
    core.save(&memory);
    Ok(())
}

/// The checkpoint may know pods that have ended since.
fn forget_ended(core: &Core) {
    let running: BTreeSet<String> = hold(&core.pods).keys().cloned().collect();
    let mut memory = hold(&core.memory);
    memory.held.retain(|place, _| running.contains(&place.0));
    memory.count_taken();
}

async fn allocate(
    core: &Core,
    wish: &Wish<'_>,
    endpoint: Option<Endpoint>,
    chosen: &BTreeSet<String>,
) -> Result<proto::deviceplugin::ContainerAllocateResponse, String> {
    let endpoint = endpoint.ok_or_else(|| format!("unknown Device Plugin {}", wish.resource))?;
    let client = endpoint.client.filter(|_| endpoint.stopped.is_none());
    let api = client.and_then(|client| client.api());
    let mut api = api.ok_or_else(|| format!("endpoint {} has been stopped", wish.resource))?;
    let devices_ids = chosen.iter().cloned().collect();
    let request = AllocateRequest { container_requests: vec![ContainerAllocateRequest { devices_ids }] };
    core.journal.note(wish.resource, What::Called("Allocate"));
    let answer = api.allocate(request).await;
    core.faults.released().await;
    let answer = answer.map_err(|s| in_go(&s))?.into_inner();
    let mut all = answer.container_responses.into_iter();
    all.next().ok_or_else(|| "no containers return in allocation response".to_owned())
}

async fn devices_to_allocate(core: &Core, wish: &Wish<'_>) -> Result<BTreeSet<String>, String> {
    let Some(mut choice) = Choice::begin(&hold(&core.memory), wish)? else { return Ok(BTreeSet::new()) };
    if choice.take(&mut hold(&core.memory), &wish.reusable) {
        return Ok(choice.allocated);
    }
    let available = choice.available(&hold(&core.memory))?;
    let (aligned, unaligned, anywhere) = by_affinity(&hold(&core.memory), wish, &available);
    // The plugin is asked about the near ones where it can choose among them, and else about the remainder.
    let (among, fallbacks) = if choice.needed < aligned.len() {
        (aligned.clone(), vec![aligned])
    } else {
        if choice.take(&mut hold(&core.memory), &aligned) {
            return Ok(choice.allocated);
        }
        (available, vec![unaligned, anywhere])
    };
    let asked: BTreeSet<String> = among.union(&choice.allocated).cloned().collect();
    let preferred = preferred(core, wish, &asked, &choice.allocated).await?;
    let preferred: BTreeSet<String> = preferred.intersection(&among).cloned().collect();
    let mut memory = hold(&core.memory);
    if std::iter::once(&preferred).chain(&fallbacks).any(|set| choice.take(&mut memory, set)) {
        return Ok(choice.allocated);
    }
    let got = wish.required - choice.needed;
    Err(format!(
        "unexpectedly allocated less resources than required. Requested: {}, Got: {got}",
        wish.required
    ))
}

/// What was chosen so far for a wish.
struct Choice<'a> {
    resource: &'a str,
    needed: usize,
    allocated: BTreeSet<String>,
}

impl<'a> Choice<'a> {
    /// Looks whether anything has to be chosen: not where the container has its devices already.
    fn begin(memory: &Memory, wish: &Wish<'a>) -> Result<Option<Self>, String> {
        let resource = wish.resource;
        let before = memory.held.get(&wish.place).and_then(|all| all.get(resource)).map(Held::ids);
        if let Some(before) = before.as_ref().filter(|b| b.len() != wish.required) {
            let (uid, name) = &wish.place;
            let (from, to) = (before.len(), wish.required);
            return Err(format!(
                "pod {uid:?} container {name:?} changed request for resource {resource:?} from {from} to {to}"
            ));
        }
        let Some(offer) = memory.offers.get(resource) else {
            return Err(format!("cannot allocate unregistered device {resource}"));
        };
        if offer.healthy.is_empty() {
            return Err(format!("no healthy devices present; cannot allocate unhealthy devices {resource}"));
        }
        if !before.as_ref().is_none_or(|before| offer.healthy.is_superset(before)) {
            return Err(format!(
                "previously allocated devices are no longer healthy; cannot allocate unhealthy devices {resource}"
            ));
        }
        if before.is_some() || wish.required == 0 {
            return Ok(None);
        }
        Ok(Some(Self { resource, needed: wish.required, allocated: BTreeSet::new() }))
    }

    /// Takes of these, in no order, until there are enough.
    fn take(&mut self, memory: &mut Memory, devices: &BTreeSet<String>) -> bool {
        for id in shuffled(devices.difference(&self.allocated).cloned().collect()) {
            if self.needed == 0 {
                break;
            }
            memory.taken.entry(self.resource.to_owned()).or_default().insert(id.clone());
            self.allocated.insert(id);
            self.needed -= 1;
        }
        self.needed == 0
    }

    fn available(&self, memory: &Memory) -> Result<BTreeSet<String>, String> {
        let none = BTreeSet::new();
        let taken = memory.taken.get(self.resource).unwrap_or(&none);
        let healthy = memory.offers.get(self.resource).map_or(&none, |o| &o.healthy);
        let available: BTreeSet<String> = healthy.difference(taken).cloned().collect();
        if available.len() >= self.needed {
            return Ok(available);
        }
        let (resource, needed, there) = (self.resource, self.needed, available.len());
        Err(format!(
            "requested number of devices unavailable for {resource}. Requested: {needed}, Available: {there}"
        ))
    }
}

/// The available devices near the chosen NUMA nodes, near others, and near none; without a choice, all are near
/// none.
fn by_affinity(
    memory: &Memory,
    wish: &Wish<'_>,
    available: &BTreeSet<String>,
) -> (BTreeSet<String>, BTreeSet<String>, BTreeSet<String>) {
    let mut sets = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let devices = memory.offers.get(wish.resource).map(|o| &o.devices);
    for id in available {
        let nodes = devices.and_then(|all| all.get(id)).map_or_else(|| vec![-1], numa_of);
        let set = match wish.numa {
            Some(_) if nodes == [-1] => &mut sets.2,
            Some(chosen) if nodes.iter().any(|node| chosen.contains(node)) => &mut sets.0,
            Some(_) => &mut sets.1,
            None => &mut sets.2,
        };
        set.insert(id.clone());
    }
    sets
}

/// The plugin's advice where it gives any; a refusal ends the allocation.
async fn preferred(
    core: &Core,
    wish: &Wish<'_>,
    among: &BTreeSet<String>,
    must: &BTreeSet<String>,
) -> Result<BTreeSet<String>, String> {
    let endpoint = hold(&core.memory).endpoints.get(wish.resource).cloned();
    let Some(endpoint) = endpoint.filter(|e| e.options.get_preferred_allocation_available) else {
        return Ok(BTreeSet::new());
    };
    let api = endpoint.client.and_then(|client| client.api());
    let mut api = api.ok_or_else(|| format!("endpoint {} has been stopped", wish.resource))?;
    let request = ContainerPreferredAllocationRequest {
        available_device_i_ds: among.iter().cloned().collect(),
        must_include_device_i_ds: must.iter().cloned().collect(),
        allocation_size: i32::try_from(wish.required).expect("a small number"),
    };
    core.journal.note(wish.resource, What::Called("GetPreferredAllocation"));
    let answer =
        api.get_preferred_allocation(PreferredAllocationRequest { container_requests: vec![request] });
    let answer = answer
        .await
        .map_err(|s| format!("device plugin GetPreferredAllocation rpc failed with err: {}", in_go(&s)))?;
    let first = answer.into_inner().container_responses.into_iter().next();
    Ok(first.map(|r| r.device_i_ds.into_iter().collect()).unwrap_or_default())
}

/// The NUMA nodes of a device; -1 where it names none.
pub(super) fn numa_of(device: &Device) -> Vec<i64> {
    let nodes: Vec<i64> = device.topology.iter().flat_map(|t| &t.nodes).map(|n| n.id).collect();
    if nodes.is_empty() { vec![-1] } else { nodes }
}

/// In no order, as Go walks a map.
fn shuffled(mut ids: Vec<String>) -> Vec<String> {
    use std::hash::{BuildHasher, RandomState};
    let state = RandomState::new();
    ids.sort_by_cached_key(|id| state.hash_one(id));
    ids
}
