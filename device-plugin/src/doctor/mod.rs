//! What keeps a node's devices from its pods: looks at everything that the daemon needs and changes nothing.

mod checkpoint;
mod configuration;
mod daemon;
mod dial;
mod host;
mod kernel;
mod kubelet;
mod process;
mod runtime;
mod sockets;

use std::path::Path;

use node::finding::{Finding, Report};

use process::Process;

/// Looks at the node for the configuration at `path`. Without a good one, the usual places are looked at.
pub fn examine(path: &Path) -> Report {
    let process = Process::new();
    let (config, first) = configuration::read(path);
    let mut report = Report::default();
    report.add(first);
    report.add([process::user(&process)]);
    report.add([kubelet::folder(&config.kubelet, &process)]);
    report.add(kubelet::socket(&config.kubelet));
    report.add(checkpoint::checkpoint(&config));
    report.add(sockets::sockets(&config.kubelet));
    report.add([kubelet::pod_resources(&config.kubelet)]);
    report.add([host::dev(&config.host, &process), host::sys(&config.host), host::links(&config.host)]);
    report.add(host::sensors(&config));
    report.add(kernel::inotify(&config, path, &process));
    report.add([kernel::uevents(&process)]);
    report.add(runtime::cdi(&config, &process));
    report.add(runtime::ownership(Path::new(runtime::CONTAINERD)));
    report.add(daemon::daemon(&config));
    report
}
