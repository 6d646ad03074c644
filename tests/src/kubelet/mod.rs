//! A kubelet, as far as FlexVolume drivers can tell: the calls, the order, the rules and the faults of
//! Kubernetes 1.36.
//!
//! It is a real caller and not a mock: drivers are found by inotify and exec'd, mounts are looked for in the
//! kernel, folders are made and removed. What it is not: an API server. Pods and volumes are whatever the
//! test says, secrets are part of their volume, and time-outs of the kubelet pass without waiting.

mod container;
mod device;
mod disk;
pub mod exec;
mod expand;
mod go_json;
mod journal;
mod mount;
mod operations;
mod plugin;
mod pod;
mod probe;
pub mod reply;
mod restart;
mod sub_path;
mod unmount;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::statvfs;

pub use container::Container;
pub use device::Attacher;
pub use exec::{Doom, Fate, Finished};
pub use journal::Recorded;
pub use operations::Tries;
pub use pod::{Pod, ROOT, Volume};
pub use reply::Capabilities;
pub use restart::Restart;
pub(crate) use restart::volumes;

use crate::kernel::cgroup::Cgroup;
use exec::DriverCall;
use journal::Journal;
pub(crate) use journal::hold;
use operations::Turns;
use plugin::{Caller, Plugin};
use probe::{NotFound, Plugins};

/// Where drivers are installed by default.
pub const PLUGINS: &str = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec";

/// How an operation on a volume ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// `mount` succeeded.
    Mounted,
    /// Something was mounted there, so that the driver was not called.
    AlreadyMounted,
    /// `unmount` succeeded and the folder is gone.
    Unmounted,
    /// There was no folder, so that the driver was not called.
    NotThere,
    /// The volume has its new size.
    Expanded,
    /// It failed, for this reason; it will be tried again.
    Refused(String),
    /// The kubelet died.
    Crashed(String),
}

impl Outcome {
    /// Stops the test unless the volume was mounted by a call.
    #[track_caller]
    pub fn mounted(&self) {
        assert_eq!(*self, Self::Mounted);
    }

    /// Stops the test unless the volume was unmounted by a call.
    #[track_caller]
    pub fn unmounted(&self) {
        assert_eq!(*self, Self::Unmounted);
    }

    /// Stops the test unless the operation was refused; the reason.
    #[track_caller]
    pub fn refused(&self) -> &str {
        match self {
            Self::Refused(why) => why,
            other => panic!("not refused: {other:?}"),
        }
    }
}

/// A kubelet and the controller manager of its cluster. Its operations may be called from several threads,
/// all of which must have been started on the node's own.
#[derive(Debug)]
pub struct Kubelet {
    folder: PathBuf,
    journal: Arc<Journal>,
    cgroup: Option<Cgroup>,
    attacher: Attacher,
    plugins: Mutex<Plugins>,
    controller: Mutex<Option<Plugins>>,
    /// What the pods of this node want, by its path.
    wanted: Mutex<BTreeMap<PathBuf, Volume>>,
    /// The devices of attached volumes, by the path at which they are mounted.
    devices: Mutex<BTreeMap<PathBuf, String>>,
    turns: Turns,
}

impl Kubelet {
    /// A kubelet that looks for drivers in `folder`, and whose calls are born in `cgroup`.
    pub fn new(folder: &Path, cgroup: Option<Cgroup>) -> Self {
        let journal = Arc::new(Journal::default());
        let plugins = plugins(folder, &journal, cgroup.as_ref());
        Self {
            folder: folder.to_owned(),
            journal,
            cgroup,
            attacher: Attacher::Controller,
            plugins: Mutex::new(plugins),
            controller: Mutex::new(None),
            wanted: Mutex::default(),
            devices: Mutex::default(),
            turns: Turns::default(),
        }
    }

    /// Says who attaches volumes of drivers that attach.
    #[must_use]
    pub fn attacher(mut self, attacher: Attacher) -> Self {
        self.attacher = attacher;
        self
    }

    /// A new pod on this node.
    pub fn pod(&self, namespace: &str, name: &str) -> Pod {
        Pod::new(namespace, name)
    }

    /// Looks the driver up, which loads what has to be loaded; what it can do. `None` where there is none.
    pub fn look_up(&self, driver: &str) -> Option<Capabilities> {
        self.find(driver).ok().map(|plugin| plugin.capabilities)
    }

    /// Calls the driver as it stands on the disk, with any arguments; nothing is recorded or remembered.
    #[track_caller]
    pub fn call(&self, driver: &str, arguments: &[&str]) -> Finished {
        exec::run(&self.driver_call(driver, arguments))
    }

    /// [`Kubelet::call`], not yet made: for [`crate::kernel::trace`].
    pub fn driver_call(&self, driver: &str, arguments: &[&str]) -> DriverCall {
        let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        let program = plugin::executable(&self.folder.join(driver.replace('/', "~")));
        DriverCall { program, arguments, cgroup: self.cgroup.clone() }
    }

    /// Total and free bytes, where the driver says that it may be asked.
    pub fn metrics(&self, volume: &Volume) -> Option<(u64, u64)> {
        let plugin = self.find(&volume.driver).ok().filter(|p| p.capabilities.supports_metrics);
        let found = plugin.and_then(|_| statvfs(volume.path()).ok())?;
        Some((found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize))
    }

    /// What is done to the next call of `verb`.
    pub fn doom_next(&self, verb: &str, doom: Doom) {
        self.journal.doom(verb, doom);
    }

    /// What became of it; `None` while it was not made.
    pub fn fate(&self) -> Option<Fate> {
        self.journal.fate()
    }

    /// The log's lines: `E` and `W` in front.
    pub fn log(&self) -> Vec<String> {
        self.journal.lines()
    }

    /// The events of pods.
    pub fn events(&self) -> Vec<String> {
        self.journal.events()
    }

    /// All calls that were made, the controller manager's too.
    pub fn calls(&self) -> Vec<Recorded> {
        self.journal.calls()
    }

    /// The verbs of the kubelet's own calls of one driver.
    pub fn verbs(&self, driver: &str) -> Vec<String> {
        let calls = self.calls().into_iter();
        let own = calls.filter(|c| c.driver == driver && c.caller == KUBELET);
        own.filter_map(|c| c.arguments.into_iter().next()).collect()
    }

    /// Stops the test where `secret` (or its base64) is in the log or in an event.
    #[track_caller]
    pub fn assert_not_told(&self, secret: &[u8]) {
        use base64::Engine;
        let plain = String::from_utf8_lossy(secret).into_owned();
        let encoded = base64::engine::general_purpose::STANDARD.encode(secret);
        for line in self.log().iter().chain(&self.events()) {
            assert!(!line.contains(&plain) && !line.contains(&encoded), "a secret is told: {line}");
        }
    }

    fn find(&self, driver: &str) -> Result<Arc<Plugin>, NotFound> {
        hold(&self.plugins).find(driver)
    }

    /// The controller manager's own instance of the driver.
    fn find_for_controller(&self, driver: &str) -> Result<Arc<Plugin>, NotFound> {
        let mut controller = hold(&self.controller);
        let plugins = controller.get_or_insert_with(|| {
            let caller = Caller { name: CONTROLLER, journal: Arc::clone(&self.journal), cgroup: None };
            Plugins::new(&self.folder, caller)
        });
        plugins.find(driver)
    }

    /// The pod's event, and the log's line, of an operation that failed.
    fn refuse(&self, operation: &str, volume: &str, why: &str) -> Outcome {
        let text = format!("{operation} failed for volume {volume:?} : {why}");
        self.journal.log(format!("E nestedpendingoperations: {text}"));
        self.journal.event(text);
        Outcome::Refused(why.to_owned())
    }

    /// A driver that nobody has found: in the log alone.
    fn not_found(&self, driver: &str, why: NotFound) -> Outcome {
        match why {
            NotFound::Crash(why) => Outcome::Crashed(why),
            NotFound::Unmatched => {
                self.journal.log(format!("E no volume plugin matched name: flexvolume-{driver}"));
                Outcome::Refused("no volume plugin matched".to_owned())
            }
        }
    }
}

const KUBELET: &str = "kubelet";
const CONTROLLER: &str = "kube-controller-manager";

fn plugins(folder: &Path, journal: &Arc<Journal>, cgroup: Option<&Cgroup>) -> Plugins {
    let caller = Caller { name: KUBELET, journal: Arc::clone(journal), cgroup: cgroup.cloned() };
    Plugins::new(folder, caller)
}
