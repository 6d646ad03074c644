//! What the daemon, the session and the kubelet's calls share of one resource.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use node::{Context, Error, Kind, Result};
use proto::EncodedList;
use proto::deviceplugin::{
    ContainerAllocateResponse, ContainerPreferredAllocationRequest, DevicePluginOptions,
};
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;

use crate::allocate::{self, Answer, Hand};
use crate::config::{Host, Resource, ResourceName};
use crate::health;
use crate::inventory::{Chosen, Found, Holding, Inventory};
use crate::metrics::Metrics;

/// The kubelet's stream of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// It was never asked for since the last registration.
    Never,
    /// It is open.
    Open,
    /// It was open.
    Ended,
}

/// How many of the kubelet's calls of a kind may wait for the node's files and programs at a time, over all resources:
/// what hangs there takes no thread from anything else.
#[derive(Debug, Clone)]
pub struct Turns {
    allocate: Arc<Semaphore>,
    start: Arc<Semaphore>,
}

/// Of each kind.
const EACH: usize = 8;

impl Default for Turns {
    fn default() -> Self {
        Self { allocate: Arc::new(Semaphore::new(EACH)), start: Arc::new(Semaphore::new(EACH)) }
    }
}

/// A resource that is offered.
#[derive(Debug)]
pub struct Offer {
    name: ResourceName,
    host: Host,
    metrics: Arc<Metrics>,
    turns: Turns,
    core: Mutex<Core>,
    lists: watch::Sender<Option<EncodedList>>,
    /// Allocations under way: nothing leaves the list meanwhile.
    allocating: AtomicUsize,
    streams: watch::Sender<Streams>,
}

#[derive(Debug)]
struct Core {
    resource: Arc<Resource>,
    inventory: Inventory,
    /// Nothing is told before the first look: an empty list would take devices from pods that run.
    looked_at: bool,
}

/// The streams since the last registration. The kubelet has one, and asks for the next one before it lets go of the
/// last; whoever else may open the socket has others, whose ends are not the kubelet's.
#[derive(Debug)]
struct Streams {
    opened: u64,
    /// Those that are open, by their numbers, and whether a list was handed out on each.
    open: Vec<(u64, bool)>,
    state: Stream,
    /// Tells the open ones to end: its value is dropped.
    end: watch::Sender<()>,
}

impl Offer {
    /// An offer of nothing yet.
    pub fn new(resource: Arc<Resource>, host: Host, metrics: Arc<Metrics>, turns: Turns) -> Self {
        let (open, end) = (Vec::new(), watch::Sender::new(()));
        let streams = Streams { opened: 0, open, state: Stream::Never, end };
        Self {
            name: resource.name.clone(),
            host,
            metrics,
            turns,
            core: Mutex::new(Core { resource, inventory: Inventory::default(), looked_at: false }),
            lists: watch::Sender::new(None),
            allocating: AtomicUsize::new(0),
            streams: watch::Sender::new(streams),
        }
    }

    /// The resource's name.
    pub fn name(&self) -> &ResourceName {
        &self.name
    }

    /// The resource as it is configured now.
    pub fn resource(&self) -> Arc<Resource> {
        self.core().resource.clone()
    }

    /// Where counts go.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Which optional calls the kubelet is to make.
    pub fn options(&self) -> DevicePluginOptions {
        let resource = self.resource();
        DevicePluginOptions {
            pre_start_required: resource.health.before_start,
            get_preferred_allocation_available: resource.prefer.is_some(),
        }
    }

    // A panic while it was held has left nothing half-done that the next look would not mend.
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the inventory, and tells the kubelet where `change` says that the list is another one.
    pub fn change(&self, change: impl FnOnce(&Resource, &mut Inventory) -> bool) -> bool {
        let mut core = self.core();
        let Core { resource, inventory, .. } = &mut *core;
        let changed = change(resource, inventory);
        if changed {
            self.publish(&core);
        }
        changed
    }

    /// Takes another configuration of the same resource; its devices keep what they are.
    pub fn reconfigure(&self, resource: Arc<Resource>) {
        let mut core = self.core();
        core.resource = resource;
        self.publish(&core);
    }

    /// A look is done, whatever it found; says whether it was the first one.
    pub fn looked_at(&self) -> bool {
        let mut core = self.core();
        let first = !core.looked_at;
        if first {
            core.looked_at = true;
            self.publish(&core);
        }
        first
    }

    fn publish(&self, core: &Core) {
        if !core.looked_at {
            return;
        }
        let list = core.inventory.list(&core.resource);
        let (healthy, unhealthy) = core.inventory.counts(&core.resource);
        self.metrics.listed(&self.name, healthy, unhealthy, list.bytes());
        self.lists.send_if_modified(|known| {
            let other = known.as_ref() != Some(&list);
            if other {
                *known = Some(list);
            }
            other
        });
    }

    /// Looks at the inventory.
    pub fn with<T>(&self, look: impl FnOnce(&Resource, &Inventory) -> T) -> T {
        let core = self.core();
        look(&core.resource, &core.inventory)
    }

    pub(super) fn lists(&self) -> watch::Receiver<Option<EncodedList>> {
        self.lists.subscribe()
    }

    /// Tells of streams that open and end.
    pub fn streams(&self) -> watch::Receiver<impl Sized + use<>> {
        self.streams.subscribe()
    }

    /// The kubelet's stream.
    pub fn stream(&self) -> Stream {
        self.streams.borrow().state
    }

    pub(super) fn stream_opened(&self) -> (u64, watch::Receiver<()>) {
        let mut opened = (0, self.streams.borrow().end.subscribe());
        self.streams.send_modify(|streams| {
            streams.opened += 1;
            streams.open.push((streams.opened, false));
            streams.state = Stream::Open;
            opened = (streams.opened, streams.end.subscribe());
        });
        self.metrics.streaming(&self.name, true);
        opened
    }

    pub(super) fn stream_heard(&self, number: u64) {
        // Nobody waits for this: who asks, looks.
        self.streams.send_if_modified(|streams| {
            streams.open.iter_mut().filter(|(open, _)| *open == number).for_each(|(_, heard)| *heard = true);
            false
        });
    }

    /// Whether the kubelet knows what there is: it has a list, made after the first look and the first checks.
    pub fn is_known(&self) -> bool {
        let heard = self.streams.borrow().open.last().is_some_and(|(_, heard)| *heard);
        heard && self.with(|_, inventory| !inventory.entries().any(|(_, entry)| entry.is_unchecked()))
    }

    pub(super) fn stream_ended(&self, number: u64) {
        let was_last = self.streams.send_if_modified(|streams| {
            streams.open.retain(|(open, _)| *open != number);
            let was_last = streams.open.is_empty() && streams.state == Stream::Open;
            if was_last {
                streams.state = Stream::Ended;
            }
            was_last
        });
        if was_last {
            self.metrics.streaming(&self.name, false);
        }
    }

    /// Ends the open streams, without a call to come again: the kubelet is about to.
    pub fn end_streams(&self) {
        self.streams.send_modify(|streams| {
            streams.open.clear();
            streams.state = Stream::Never;
            streams.end = watch::Sender::new(());
        });
        self.metrics.streaming(&self.name, false);
    }

    /// What a container with these devices gets. What may be on a server that does not answer is looked at on a thread
    /// of its own: every pod of the node waits for this call.
    pub(super) async fn allocate(&self, ids: &[String]) -> Result<ContainerAllocateResponse> {
        let _under_way = UnderWay::of(&self.allocating);
        let answer = self.answer(ids)?;
        self.core().inventory.give(ids);
        if answer.files.values().all(|given| matches!(given.hand, Hand::Node(..))) {
            return answer.check(&self.host);
        }
        let turn = self.turns.allocate.clone().acquire_owned().await;
        let host = self.host.clone();
        let checked = spawn_blocking(move || {
            let checked = answer.check(&host);
            drop(turn);
            checked
        });
        checked.await.doing(Kind::Internal, || "look at what a container gets".to_owned())?
    }

    fn answer(&self, ids: &[String]) -> Result<Answer> {
        self.with(|resource, inventory| {
            let mut chosen = Vec::with_capacity(ids.len());
            for id in ids {
                let (device, entry) = inventory.choose(id).ok_or_else(|| unknown(&self.name, id))?;
                if device.replica >= resource.replicas {
                    let why = "there are to be fewer replicas by now";
                    return Err(Error::caused(Kind::Mismatch, format!("allocate `{id}`"), why));
                }
                if let Some(why) = entry.why() {
                    return Err(Error::caused(Kind::Mismatch, format!("allocate `{id}`"), why.to_owned()));
                }
                chosen.push(device);
            }
            allocate::answer(resource, &chosen)
        })
    }

    /// Which devices suit best; empty where nothing is to be said.
    pub(super) fn prefer(&self, wanted: &ContainerPreferredAllocationRequest) -> Vec<String> {
        let Ok(size) = usize::try_from(wanted.allocation_size) else { return Vec::new() };
        self.with(|resource, inventory| {
            let Some(preference) = resource.prefer else { return Vec::new() };
            let available: Vec<Chosen<'_>> = wanted
                .available_device_i_ds
                .iter()
                .filter_map(|id| inventory.choose(id).map(|(chosen, _)| chosen))
                .collect();
            let mut free: BTreeMap<&str, u32> = BTreeMap::new();
            for chosen in &available {
                *free.entry(&chosen.found.identity).or_default() += 1;
            }
            let busy =
                |identity: &str| resource.replicas.saturating_sub(free.get(identity).copied().unwrap_or(0));
            let must: Vec<&str> = wanted.must_include_device_i_ds.iter().map(String::as_str).collect();
            allocate::prefer(preference, &available, &must, size, &busy)
        })
    }

    /// Makes the checks of these devices now.
    pub(super) async fn check(self: &Arc<Self>, ids: Vec<String>) -> Result<()> {
        let (resource, devices) = self.with(|resource, inventory| {
            let devices: Result<Vec<Found>> = ids
                .iter()
                .map(|id| {
                    let (chosen, _) = inventory.choose(id).ok_or_else(|| unknown(&self.name, id))?;
                    Ok(chosen.found.clone())
                })
                .collect();
            (resource.clone(), devices)
        });
        let (devices, host) = (devices?, self.host.clone());
        let turn = self.turns.start.clone().acquire_owned().await;
        let checked = spawn_blocking(move || {
            let _turn = turn;
            let mut round = health::Round::new(&host);
            devices.iter().try_for_each(|found| {
                round
                    .check(&resource, found)
                    .map_err(|why| Error::caused(Kind::Mismatch, format!("check `{}`", found.name), why))
            })
        });
        checked.await.doing(Kind::Internal, || "check devices".to_owned())?
    }

    /// Lets go what is gone; see [`Inventory::part`].
    pub fn part(&self, then: Instant, held: &Holding<'_>) -> bool {
        self.change(|resource, inventory| {
            self.allocating.load(Ordering::Relaxed) == 0 && inventory.part(resource, then, held)
        })
    }
}

/// Counts for as long as it lives; a call that takes too long is dropped where it stands.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn unknown(resource: &ResourceName, id: &str) -> Box<Error> {
    Error::caused(
        Kind::UnknownContainer,
        format!("find the device `{id}`"),
        format!("`{resource}` has no such device"),
    )
    .hint("delete the pod: its device was renamed or taken off the node")
}
