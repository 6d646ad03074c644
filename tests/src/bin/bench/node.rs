//! A whole node: pods by Debian's containerd as the kubelet asks for them, what an image of the programs weighs, and how
//! long they take to install.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use harness::call::tool;
use harness::container_node::ContainerNode;
use harness::containerd::{Containerd, Cri, Pod, at_once};
use harness::device_node::our_daemon;
use harness::measure::{Row, percentile};
use harness::node::our_binary;
use harness::volume_node::our_driver;
use nix::sys::wait::{WaitPidFlag, waitpid};
use serde_json::{Value, json};

use crate::Group;
use crate::cni_chain::{four, whole};

/// What is measured.
pub const GROUPS: [Group; 3] = [
    ("sandboxes", |rounds| sandboxes((rounds / 20).max(5))),
    ("install", |rounds| vec![install((rounds / 10).max(5))]),
    ("image", |_| vec![image()]),
];

/// How many pods the kubelet starts at the same time, and how many in a round.
const AT_ONCE: usize = 8;
const CROWD: u16 = 16;
/// How often a pod that is refused is tried.
const TRIES: u32 = 100;
/// How many pods of a round are started one after the other.
const ALONE: u16 = 4;
/// The kernel takes a namespace apart after its end, and holds the lock of all links meanwhile.
const REST: Duration = Duration::from_millis(300);

/// What containerd itself says that CNI takes, in seconds.
const NETWORK: &str =
    "containerd_cri_network_plugin_operations_duration_seconds_seconds_sum{operation_type=\"set_up_pod\"";

/// Whose plugins a node has.
#[derive(Debug, Clone, Copy)]
enum Form {
    Reference,
    Ours,
}

/// What a round was like.
#[derive(Debug, Clone, Copy)]
struct Round {
    /// Pods a second, started several at a time, and how often one was refused. Such a pod is tried until it starts.
    rate: f64,
    refused: u32,
    /// Seconds that a pod's start takes, and those of it that are CNI's, when it is the only one.
    start: f64,
    network: f64,
}

/// A node with its containerd on a thread of its own.
struct Worker {
    go: Option<mpsc::Sender<()>>,
    done: mpsc::Receiver<Round>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(form: Form) -> Self {
        let (go, told) = mpsc::channel::<()>();
        let (tell, done) = mpsc::channel();
        let thread = thread::spawn(move || {
            let node = ContainerNode::bare();
            node.network("10-pods", &conflist(&node, form));
            let containerd = Containerd::start(&node);
            let kubelet = containerd.kubelet();
            kubelet.wait_for_network();
            while told.recv().is_ok() && tell.send(round(&containerd, &kubelet)).is_ok() {}
        });
        Self { go: Some(go), done, thread: Some(thread) }
    }

    fn turn(&self) -> Round {
        self.go.as_ref().expect("a worker that goes on").send(()).expect("a living worker");
        self.done.recv_timeout(Duration::from_mins(5)).expect("a round that ends")
    }
}

impl Drop for Worker {
    /// A runtime and its containers outlive a process that does not end them.
    fn drop(&mut self) {
        self.go = None;
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// The same features on both sides.
fn conflist(node: &ContainerNode, form: Form) -> Value {
    let plugins = match form {
        Form::Reference => {
            node.install_reference();
            four("bridge")
        }
        Form::Ours => {
            node.install(&["--as-reference", "--only", "loopback"]);
            json!([whole("bridge")])
        }
    };
    json!({"cniVersion": "1.0.0", "name": "pods", "plugins": plugins})
}

/// Pods with a host port and rates each.
fn pods(first: u16, count: u16) -> Vec<Pod> {
    let numbers = first..first + count;
    numbers.map(|n| Pod::named(&format!("web{n}")).host_port(10_000 + n, 80).rates("100M", "100M")).collect()
}

fn round(containerd: &Containerd, kubelet: &Cri) -> Round {
    let start = Instant::now();
    // The reference's plugins get in each other's way.
    let refusals = at_once(AT_ONCE, &pods(0, CROWD), |pod| {
        (0..TRIES).find(|_| kubelet.run(pod).is_ok()).unwrap_or_else(|| panic!("{pod:?} never starts"))
    });
    let took = start.elapsed().as_secs_f64();
    let refused = refusals.iter().sum();
    kubelet.end_all();
    thread::sleep(REST);
    let before = containerd.metric(NETWORK);
    let mut start = Duration::ZERO;
    for pod in pods(0, ALONE) {
        let now = Instant::now();
        let id = kubelet.run(&pod).unwrap_or_else(|e| panic!("{pod:?}: {e}"));
        start += now.elapsed();
        drop(kubelet.end(&id));
        thread::sleep(REST);
    }
    let network = containerd.metric(NETWORK) - before;
    assert!(network > 0.0, "containerd has measured nothing");
    let alone = f64::from(ALONE);
    Round {
        rate: f64::from(CROWD) / took,
        refused,
        start: start.as_secs_f64() / alone,
        network: network / alone,
    }
}

fn sandboxes(rounds: usize) -> Vec<Row> {
    let workers = [Form::Reference, Form::Ours].map(Worker::start);
    let mut all: [Vec<Round>; 2] = Default::default();
    for round in 0..=rounds {
        for n in (0..2).map(|n| (n + round) % 2) {
            let one = workers[n].turn();
            reap();
            // The first round fills the caches.
            if round > 0 {
                all[n].push(one);
            }
        }
    }
    let [theirs, ours] = all;
    let refused = |rounds: &[Round]| rounds.iter().map(|r| r.refused).sum::<u32>();
    let of = format!("of {}; reference: {}", rounds * usize::from(CROWD), refused(&theirs));
    let share = |round: &Round| round.network / round.start;
    vec![
        share_of_start(
            "the network's share of a pod's start / reference's chain of four",
            0.25,
            &ours,
            &theirs,
            share,
        ),
        faster("pods a second by containerd, 8 at a time / reference's chain of four", &ours, &theirs),
        Row::most("pods refused, and tried again".to_owned(), 0.0, f64::from(refused(&ours)), of),
    ]
}

/// Shims whose containers are gone are orphans of this process, which goes on while its runtimes run.
fn reap() {
    while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|end| end.pid().is_some()) {}
}

/// The ratio of the medians, with the spread of the pairs.
fn share_of_start(what: &str, bar: f64, ours: &[Round], theirs: &[Round], of: impl Fn(&Round) -> f64) -> Row {
    let (value, low, high) = ratio(ours, theirs, &of);
    let middle = |rounds: &[Round], of: &dyn Fn(&Round) -> f64| {
        percentile(&rounds.iter().map(of).collect::<Vec<_>>(), 0.5)
    };
    let say = |rounds: &[Round]| {
        let milliseconds = |of: &dyn Fn(&Round) -> f64| middle(rounds, of) * 1000.0;
        let (network, start) = (milliseconds(&|r| r.network), milliseconds(&|r| r.start));
        format!("{network:.1} of {start:.1} ms")
    };
    let detail = format!("{} / {}; pairs {low:.3} to {high:.3}", say(ours), say(theirs));
    Row::most(what.to_owned(), bar, value, detail)
}

fn faster(what: &str, ours: &[Round], theirs: &[Round]) -> Row {
    let (value, low, high) = ratio(ours, theirs, &|r: &Round| r.rate);
    let middle = |rounds: &[Round]| percentile(&rounds.iter().map(|r| r.rate).collect::<Vec<_>>(), 0.5);
    let detail = format!("{:.1} / {:.1}; pairs {low:.3} to {high:.3}", middle(ours), middle(theirs));
    Row::least(what.to_owned(), 1.0, value, detail)
}

fn ratio(ours: &[Round], theirs: &[Round], of: &impl Fn(&Round) -> f64) -> (f64, f64, f64) {
    let values = |rounds: &[Round]| rounds.iter().map(of).collect::<Vec<f64>>();
    let (ours, theirs) = (values(ours), values(theirs));
    let pairs: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b.max(1e-9)).collect();
    let value = percentile(&ours, 0.5) / percentile(&theirs, 0.5).max(1e-9);
    (value, percentile(&pairs, 0.1), percentile(&pairs, 0.9))
}

/// What lies beside the programs in an archive of a release.
const KIT: [(&str, &str); 3] = [
    ("scripts/install", include_str!("../../../../scripts/install")),
    ("scripts/needs", include_str!("../../../../scripts/needs")),
    (
        "device-plugin/deploy/nodeplug-device-plugin.service",
        include_str!("../../../../device-plugin/deploy/nodeplug-device-plugin.service"),
    ),
];

/// An archive of a release, unpacked: the path of its script.
fn kit(folder: &Path) -> String {
    for (name, text) in KIT {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder of the kit");
        fs::write(path, text).expect("write a file of the kit");
    }
    let programs = [our_binary(), our_driver(), our_daemon()];
    for (program, name) in programs.iter().zip(["cni", "flexvolume", "device-plugin"]) {
        let to = folder.join(format!("nodeplug-{name}"));
        tool(&["install", "-m", "755", &program.display().to_string(), &to.display().to_string()]);
    }
    folder.join("scripts/install").display().to_string()
}

/// From nothing to all programs, names, drivers, the network and the daemon's files, by the script of a release.
fn install(rounds: usize) -> Row {
    let base =
        PathBuf::from(format!("{}/nodeplug-staging-{}", std::env::temp_dir().display(), std::process::id()));
    let (script, root) = (kit(&base.join("kit")), base.join("root"));
    let below = root.display().to_string();
    let mut took = Vec::new();
    for _ in 0..rounds {
        fs::create_dir_all(&root).expect("make a staging root");
        let start = Instant::now();
        tool(&["bash", &script, "--root", &below, "--", "--as-reference", "--pod-cidr", "10.66.0.0/24"]);
        took.push(start.elapsed().as_secs_f64());
        fs::remove_dir_all(&root).expect("remove the staging root");
    }
    let kind = tool(&["stat", "--file-system", "--format", "%T", &base.display().to_string()]);
    fs::remove_dir_all(&base).expect("remove the kit");
    let (low, high) = (percentile(&took, 0.1), percentile(&took, 0.9));
    let detail =
        format!("{rounds} times: {low:.3} to {high:.3}; `scripts/install` of all, on {}", kind.trim());
    Row::most("install of everything: seconds".to_owned(), 1.0, percentile(&took, 0.5), detail)
}

/// The image's archive where `NODEPLUG_IMAGE` names it, else what would be in it.
fn image() -> Row {
    let size = |path: &Path| {
        let bytes = fs::metadata(path).unwrap_or_else(|e| panic!("look at `{}`: {e}", path.display())).len();
        f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / f64::from(1 << 20)
    };
    if let Some(archive) = std::env::var_os("NODEPLUG_IMAGE") {
        return Row::most("image: MiB".to_owned(), 12.0, size(Path::new(&archive)), "the archive".to_owned());
    }
    let programs = [our_binary(), our_driver(), our_daemon()].map(|path| size(&path));
    let [cni, flexvolume, device_plugin] = programs;
    let detail = format!("{cni:.1} + {flexvolume:.1} + {device_plugin:.1}, not compressed");
    Row::most("the image's programs: MiB".to_owned(), 12.0, programs.iter().sum(), detail)
}
