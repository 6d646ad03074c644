//! The kubelet's device manager as a plugin meets it: the calls, the order, the rules and the faults of
//! Kubernetes 1.36.
//!
//! It serves kubelet.sock, dials back, takes lists, keeps its checkpoint and admits pods as the real one does,
//! and it is as unforgiving: a stream that ends is never asked for again, a list beyond gRPC's limit ends it,
//! the end of an old stream takes the new plugin of that name away, and a device that leaves the list while it
//! is being allocated is a crash. What it is not: a whole kubelet. Pods are what the test says, and no container
//! runs.
//!
//! Its process is a thread with a runtime of its own, started from the test's thread and so in its namespaces.

mod admission;
mod checkpoint;
mod core;
mod dial;
mod faults;
mod journal;
mod load;
mod memory;
mod names;
mod plugins;
mod pod_resources;
mod pods;
mod process;
mod registration;
mod start;
mod watcher;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proto::deviceplugin::ContainerAllocateResponse;
use proto::podresources::ListPodResourcesResponse;

pub use checkpoint::NAME as CHECKPOINT;
pub use core::Folders;
pub use journal::{Event, What};
pub use memory::{Held, Offer};
pub use names::is_extended_resource;
pub use pods::{Container, Pod, Role};

use crate::call::LIMIT;
use crate::kubelet::hold;
use core::Around;
use faults::Faults;
use journal::Journal;
use process::Process;

/// Whatever a test waits for comes within this, on a busy machine, too.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A kubelet's device manager, running or not.
#[derive(Debug)]
pub struct DeviceManager {
    around: Around,
    process: Mutex<Option<Process>>,
    may_crash: bool,
}

impl DeviceManager {
    /// A kubelet that is not started yet; its folders are made.
    pub fn new(folders: Folders) -> Self {
        for folder in [&folders.device_plugins, &folders.plugins_registry, &folders.pod_resources] {
            std::fs::create_dir_all(folder).unwrap_or_else(|e| panic!("make `{}`: {e}", folder.display()));
        }
        let (journal, faults) = (Arc::<Journal>::default(), Arc::<Faults>::default());
        let around = Around { folders, journal, faults, pods: Arc::default() };
        Self { around, process: Mutex::default(), may_crash: false }
    }

    /// A kubelet that runs, with its folders below `root`.
    pub fn started(root: &Path) -> Self {
        let kubelet = Self::new(Folders::below(root));
        kubelet.start();
        kubelet
    }

    /// This kubelet may crash: the test is about that.
    #[must_use]
    pub fn that_may_crash(mut self) -> Self {
        self.may_crash = true;
        self
    }

    /// Its folders.
    pub fn folders(&self) -> &Folders {
        &self.around.folders
    }

    // --- its process ------------------------------------------------------------------------------------

    /// Starts its process: sockets go, the checkpoint is read, and kubelet.sock is served when this returns.
    pub fn start(&self) {
        assert!(hold(&self.process).is_none(), "the kubelet runs already");
        let process = Process::start(&self.around);
        *hold(&self.process) = Some(process);
    }

    /// Ends its process, as SIGTERM and SIGKILL do: connections close, sockets stay behind.
    pub fn stop(&self) {
        let process = hold(&self.process).take();
        drop(process.expect("a kubelet that runs"));
    }

    /// Ends the process and starts another one, which knows what is on disk.
    pub fn restart(&self) {
        self.stop();
        self.start();
    }

    /// Why the real kubelet would have crashed, where it would have. Asked, it is forgiven.
    pub fn crash(&self) -> Option<String> {
        self.around.journal.forget_crash()
    }

    // --- what it knows ----------------------------------------------------------------------------------

    /// What it has of a resource now.
    pub fn offer(&self, resource: &str) -> Option<Offer> {
        let process = hold(&self.process);
        let core = process.as_ref()?.core();
        let mut memory = hold(&core.memory);
        memory.forget_stopped();
        memory.offers.get(resource).cloned()
    }

    /// The resources with their capacity and what of it can be had, as the node's status shows them.
    pub fn node_status(&self) -> BTreeMap<String, (usize, usize)> {
        let process = hold(&self.process);
        let Some(process) = process.as_ref() else { return BTreeMap::new() };
        let mut memory = hold(&process.core().memory);
        memory.forget_stopped();
        memory.offers.iter().map(|(name, o)| (name.clone(), (o.capacity(), o.allocatable()))).collect()
    }

    /// Waits until what it has of the resource is as `right` says.
    #[track_caller]
    pub fn wait_for(&self, resource: &str, right: impl Fn(&Offer) -> bool) -> Offer {
        self.wait_up_to(resource, PATIENCE, right).unwrap_or_else(|| {
            let now = self.offer(resource).map(|o| {
                let few = |ids: &BTreeSet<String>| ids.iter().take(12).cloned().collect::<Vec<_>>();
                format!("healthy {:?}, unhealthy {:?}", few(&o.healthy), few(&o.unhealthy))
            });
            panic!("{resource} is not as it should be: {now:?}; the last events: {:#?}", self.last_events())
        })
    }

    /// [`DeviceManager::wait_for`] with a limit of its own, and no more than an answer.
    pub fn wait_up_to(
        &self,
        resource: &str,
        limit: Duration,
        right: impl Fn(&Offer) -> bool,
    ) -> Option<Offer> {
        self.around.journal.until(limit, |_| self.offer(resource).filter(&right))
    }

    /// Waits until so many devices of the resource can be had, and no more.
    #[track_caller]
    pub fn wait_for_healthy(&self, resource: &str, count: usize) -> Offer {
        self.wait_for(resource, |offer| offer.healthy.len() == count)
    }

    /// Waits for something that happens after `since`: the first event that `is` says so of.
    #[track_caller]
    pub fn wait_for_event(&self, since: Instant, is: impl Fn(&Event) -> bool) -> Event {
        let found = self
            .around
            .journal
            .until(PATIENCE, |events| events.iter().find(|event| event.at >= since && is(event)).cloned());
        found.unwrap_or_else(|| panic!("it did not happen; the last events: {:#?}", self.last_events()))
    }

    fn last_events(&self) -> Vec<String> {
        let events = self.around.journal.events();
        let last = events.iter().rev().take(30).rev();
        last.map(|e| format!("{} {:.300}", e.resource, format!("{:?}", e.what))).collect()
    }

    /// All that happened, in its order, since the last [`DeviceManager::forget_events`].
    pub fn events(&self) -> Vec<Event> {
        self.around.journal.events()
    }

    /// Forgets what happened: of ten thousand devices each list is a megabyte.
    pub fn forget_events(&self) {
        self.around.journal.clear();
    }

    /// How often it made this call to a plugin, or was called by it (`List`).
    pub fn calls(&self, name: &str) -> usize {
        self.around.journal.calls(name)
    }

    /// Who holds what of the resource: devices by pod and container.
    pub fn held(&self, pod: &Pod, container: &str) -> BTreeMap<String, Held> {
        let process = hold(&self.process);
        let Some(process) = process.as_ref() else { return BTreeMap::new() };
        let memory = hold(&process.core().memory);
        memory.held.get(&(pod.uid.clone(), container.to_owned())).cloned().unwrap_or_default()
    }

    /// What its pod-resources socket says, asked as anybody asks it.
    pub fn pod_resources(&self) -> Result<ListPodResourcesResponse, String> {
        self.run(|core| async move { pod_resources::ask(&core.folders.pod_resources).await })
    }

    // --- pods -------------------------------------------------------------------------------------------

    /// Admits a pod, or asks again for one that is admitted (after a restart of the node, or of a container).
    pub fn admit(&self, pod: &Pod) -> Result<(), String> {
        let pod = pod.clone();
        self.run(move |core| async move { admission::admit(&core, &pod).await })
    }

    /// Begins to admit a pod; the answer comes when it comes.
    pub fn admit_later(&self, pod: &Pod) -> Pending<()> {
        let pod = pod.clone();
        self.begin(move |core| async move { admission::admit(&core, &pod).await })
    }

    /// Starts a container of an admitted pod: what the runtime is to give it.
    pub fn start_container(&self, pod: &Pod, name: &str) -> Result<ContainerAllocateResponse, String> {
        let (pod, name) = (pod.clone(), name.to_owned());
        self.run(move |core| async move { start::start(&core, &pod, &name).await })
    }

    /// Admits a pod with one container that wants so many of a resource: the pod and the answer.
    #[track_caller]
    pub fn allocate(&self, resource: &str, count: usize) -> (Pod, ContainerAllocateResponse) {
        let pod = Pod::wanting(resource, count);
        self.admit(&pod).unwrap_or_else(|why| panic!("{count} of {resource}: {why}"));
        let answer = self.held(&pod, "main").remove(resource).expect("what was allocated").answer;
        (pod, answer)
    }

    /// Calls Allocate `count` times for these devices, so many at a time, without a pod; how long each took.
    #[track_caller]
    pub fn call_allocate(&self, resource: &str, ids: &[&str], count: usize, at_once: usize) -> Vec<Duration> {
        let (name, ids) = (resource.to_owned(), ids.iter().map(|id| (*id).to_owned()).collect());
        let calls =
            self.run(move |core| async move { load::allocate(&core, &name, ids, count, at_once).await });
        calls.unwrap_or_else(|why| panic!("allocate {resource}: {why}"))
    }

    /// The pods that have not ended.
    pub fn pods(&self) -> Vec<Pod> {
        hold(&self.around.pods).values().cloned().collect()
    }

    /// The pod has ended.
    pub fn end(&self, pod: &Pod) {
        let process = hold(&self.process);
        match process.as_ref() {
            Some(process) => admission::forget(process.core(), &pod.uid),
            None => drop(hold(&self.around.pods).remove(&pod.uid)),
        }
    }

    // --- faults -----------------------------------------------------------------------------------------

    /// The next calls of Register are refused with these words.
    pub fn refuse_registrations(&self, count: usize, why: &str) {
        self.around.faults.plan(|planned| planned.register = (count, why.to_owned()));
    }

    /// The next times the plugin's options can't be had.
    pub fn lose_options(&self, count: usize) {
        self.around.faults.plan(|planned| planned.options = count);
    }

    /// The next streams end at their first list.
    pub fn lose_streams(&self, count: usize) {
        self.around.faults.plan(|planned| planned.streams = count);
    }

    /// Each dial takes so much longer.
    pub fn dial_slowly(&self, by: Duration) {
        self.around.faults.plan(|planned| planned.dial = by);
    }

    /// The resource's stream ends, and nothing else does.
    #[track_caller]
    pub fn drop_stream(&self, resource: &str) {
        let process = hold(&self.process);
        let core = process.as_ref().expect("a kubelet that runs").core();
        let client = hold(&core.clients).get(resource).cloned();
        client.unwrap_or_else(|| panic!("{resource} has no stream")).drop_stream();
    }

    /// From now on answers of Allocate wait before they are taken, as they do behind a busy lock.
    pub fn hold_answers(&self, hold: bool) {
        self.around.faults.hold_answers.send_replace(hold);
    }

    // --- its runtime ------------------------------------------------------------------------------------

    fn run<T, F>(&self, work: impl FnOnce(Arc<core::Core>) -> F) -> Result<T, String>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, String>> + Send + 'static,
    {
        self.begin(work).wait()
    }

    fn begin<T, F>(&self, work: impl FnOnce(Arc<core::Core>) -> F) -> Pending<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, String>> + Send + 'static,
    {
        let process = hold(&self.process);
        let process = process.as_ref().expect("a kubelet that runs");
        Pending(process.spawn(work(process.core().clone())))
    }
}

/// Something that the kubelet is doing.
#[derive(Debug)]
pub struct Pending<T>(Receiver<Result<T, String>>);

impl<T> Pending<T> {
    /// Waits for it.
    pub fn wait(self) -> Result<T, String> {
        match self.0.recv_timeout(LIMIT) {
            Ok(done) => done,
            Err(RecvTimeoutError::Disconnected) => Err("the kubelet's process ended meanwhile".to_owned()),
            Err(RecvTimeoutError::Timeout) => panic!("the kubelet takes longer than {LIMIT:?}"),
        }
    }
}

impl Drop for DeviceManager {
    fn drop(&mut self) {
        let crash = self.around.journal.crashed();
        if let Some(why) = crash.filter(|_| !self.may_crash && !std::thread::panicking()) {
            panic!("the kubelet would have crashed: {why}");
        }
    }
}
