//! Debian's containerd and runc on a throw-away node, and the kubelet's side of their socket.
//!
//! Everything of theirs (root, state, socket, configuration, log) is the node's own. A containerd that is killed leaves
//! its shims and containers running, as on a real node; the next one finds them.

mod configuration;
mod cri;
mod pod;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::call::{tool, try_tool};
use crate::container_node::{CONFIGURATION as NETWORKS, ContainerNode, archive};
use crate::kubelet::hold;
use crate::node::PLUGINS;

pub use cri::{Cri, Refusal, v1};
pub use pod::{Pod, Sandbox};

/// Where it listens.
pub const SOCKET: &str = "/run/containerd/containerd.sock";
/// Where its metrics are, on the node's loopback.
pub const METRICS: &str = "127.0.0.1:1338";

const CONFIGURATION: &str = "/var/lib/harness/containerd.toml";
const LOG: &str = "/var/lib/harness/containerd.log";
/// How long a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lines of every start.
const NOISE: [&str; 3] = ["loading plugin", "with config", "skip loading plugin"];
/// How much of the log a failed test shows.
const SHOWN: usize = 60;

/// A containerd with one image. Dropped, it is killed; its containers end with the node.
#[derive(Debug)]
pub struct Containerd<'n> {
    node: &'n ContainerNode,
    child: Mutex<Child>,
}

impl<'n> Containerd<'n> {
    /// Starts it, and waits until it answers the kubelet.
    pub fn start(node: &'n ContainerNode) -> Self {
        Self::with_folders(node, PLUGINS, NETWORKS)
    }

    /// The same where it looks for plugins and networks in these folders.
    pub fn with_folders(node: &'n ContainerNode, plugins: &str, networks: &str) -> Self {
        fs::write(CONFIGURATION, configuration::text(plugins, networks))
            .expect("write containerd's configuration");
        let containerd = Self { node, child: Mutex::new(spawn(node)) };
        containerd.answers();
        let image = archive();
        let image = image.to_str().expect("ASCII");
        tool(&["ctr", "--namespace", "k8s.io", "images", "import", "--snapshotter", "overlayfs", image]);
        containerd
    }

    /// What the kubelet has: a connection of its own.
    pub fn kubelet(&self) -> Cri {
        Cri::dial(&self.node.cgroups().parent())
    }

    /// kill -9. Shims and containers run on.
    pub fn kill(&self) {
        let mut child = hold(&self.child);
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
        let _ = kill(pid, Signal::SIGKILL);
        drop(child.wait());
    }

    /// Starts it once more after [`Containerd::kill`], and waits until it answers the kubelet.
    pub fn start_again(&self) {
        *hold(&self.child) = spawn(self.node);
        self.answers();
    }

    /// The sum of a metric's values whose line begins like this, labels included: `NAME_sum{KEY="VALUE"`.
    pub fn metric(&self, start: &str) -> f64 {
        let mut stream = TcpStream::connect(METRICS).expect("connect to containerd's metrics");
        let asked = format!("GET /v1/metrics HTTP/1.0\r\nHost: {METRICS}\r\n\r\n");
        stream.write_all(asked.as_bytes()).expect("ask for metrics");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("read metrics");
        let lines = text.lines().filter(|line| line.starts_with(start));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// What all starts have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(LOG).unwrap_or_default()
    }

    fn answers(&self) {
        let start = Instant::now();
        loop {
            if Path::new(SOCKET).exists() && self.kubelet().version().is_ok() {
                return;
            }
            assert!(hold(&self.child).try_wait().is_ok_and(|end| end.is_none()), "it ends:\n{}", self.log());
            assert!(start.elapsed() < PATIENCE, "it does not answer:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            tell(&self.log());
        }
    }
}

fn spawn(node: &ContainerNode) -> Child {
    let log = File::options().create(true).append(true).open(LOG).expect("open containerd's log");
    let mut command = node.service("containerd", "containerd");
    command.args(["--config", CONFIGURATION, "--log-level", "info"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("start containerd")
}

/// The end of the log, without what every start says.
#[expect(clippy::print_stderr, reason = "the report of a failed test is on its standard error")]
fn tell(log: &str) {
    let lines: Vec<&str> = log.lines().filter(|l| !NOISE.iter().any(|n| l.contains(n))).collect();
    let first = lines.len().saturating_sub(SHOWN);
    eprintln!("containerd's log, the last {} lines:", lines.len() - first);
    lines.iter().skip(first).for_each(|line| eprintln!("{line}"));
}

/// Whether this containerd asks plugins for STATUS, which came with CNI 1.1.0.
pub fn asks_for_status() -> bool {
    // `containerd github.com/containerd/containerd 1.6.20~ds1 …`
    let said = try_tool(&["containerd", "--version"]).stdout;
    let version = said.split(' ').nth(2).unwrap_or_default().trim_start_matches('v');
    version.split('.').next().and_then(|major| major.parse().ok()).is_some_and(|major: u32| major >= 2)
}

/// Does the work and, on another thread, `again` over and over until the work has ended, be it by a panic: what came of
/// the work, and how often `again` says that it did something.
pub fn meanwhile<T>(mut again: impl FnMut() -> bool + Send, work: impl FnOnce() -> T) -> (T, usize) {
    let done = &AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(move || {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                count += usize::from(again());
            }
            count
        });
        let end = End(done);
        let result = work();
        drop(end);
        (result, other.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
    })
}

/// Says so when it goes, whatever the reason.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does something for each item, so many at a time, and gives the results in the items' order.
pub fn at_once<T: Sync, R: Send>(count: usize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let turns = |_| {
        let mut done = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(n) else { return done };
            done.push((n, work(item)));
        }
    };
    let mut all: Vec<(usize, R)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|n| scope.spawn(move || turns(n))).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
    });
    all.sort_by_key(|(n, _)| *n);
    all.into_iter().map(|(_, result)| result).collect()
}
