//! What keeps a node's pods from their network: looks at everything that the plugin needs and meets, says what to do
//! about it, and changes nothing. No lock is taken, no file written, no module loaded; what the kernel can do is
//! tried in a network namespace of this process alone.

mod addresses;
mod attachments;
mod firewall;
mod forwarding;
mod kernel;
mod networks;
mod plugins;
mod routes;
mod runtime;
mod storage;

use std::path::Path;

use node::Result;
use node::finding::{Finding, Report, unread};
use node::namespace::{self, Namespace};

use crate::apply::Hands;
use crate::attachment::Attachment;
use crate::kernel::sysctl;
use crate::state::State;

/// Looks at this node; `root` is where its `/` is mounted, where that is not here.
pub fn examine(root: Option<&Path>) -> Result<Report> {
    let mut report = Report::default();
    let (runtime, found) = runtime::find(root.unwrap_or(Path::new("/")));
    if let Some(root) = root {
        node::root::enter(root)?;
    }
    report.add(found);
    report.add(plugins::folder(&runtime));
    report.add(plugins::programs(&runtime));
    let networks = networks::read(&runtime);
    report.add(networks.findings.iter().cloned());
    report.add(storage::state());
    report.add(storage::logs(&networks.configurations));
    if !Path::new("/proc/self/ns/net").exists() {
        report.add([Finding::warning(
            "kernel",
            "there is no /proc below this root: only files were looked at",
            "boot the node, or mount its /proc there, and ask again",
        )]);
        return Ok(report);
    }
    if root.is_some() && is_another_network() {
        report.add([Finding::warning(
            "kernel",
            "this is not the node's network: only files were looked at",
            "give the container the node's network (`hostNetwork: true`), and ask again",
        )]);
        return Ok(report);
    }
    match State::open() {
        Ok(state) => report.add(of_kernel(&state, &networks)),
        Err(error) => report.add([unread("attachments", &error)]),
    }
    Ok(report)
}

/// Whether the node's first process has another network than this one: then nothing that the kernel says here is of
/// the node.
fn is_another_network() -> bool {
    namespace::is_shared_with(Path::new("/proc/1")) == Some(false)
}

/// What the running kernel is asked.
fn of_kernel(state: &State, networks: &networks::Networks) -> Vec<Finding> {
    let mut found = kernel::features(networks);
    let home = match Namespace::current() {
        Ok(home) => home,
        Err(error) => return [found, vec![unread("kernel", &error)]].concat(),
    };
    let mut hands = Hands::new(state, home, None);
    let records = all_records(state);
    found.extend(forwarding::settings(&mut hands, networks, &records));
    found.extend(forwarding::reverse_path(&mut hands));
    found.extend(forwarding::bridges(&mut hands, networks));
    found.extend(firewall::chains(&mut hands, networks, &records));
    found.extend(firewall::connections());
    found.extend(attachments::all(state, &mut hands));
    found.extend(addresses::left(networks));
    found.extend(routes::overlaps(&mut hands, networks));
    found.extend(routes::mtu(&mut hands, networks, &records));
    found
}

fn all_records(state: &State) -> Vec<Attachment> {
    let folders = state.everywhere().unwrap_or_default();
    let all = folders.iter().flat_map(|folder| folder.all().unwrap_or_default());
    all.filter(|record| record.boot == state.boot).collect()
}

/// A setting of the kernel as a number.
fn number(name: &str) -> Option<i64> {
    sysctl::get(name).ok().flatten()?.split_whitespace().next()?.parse().ok()
}

/// A setting's name as sysctl(8) has it. That of a link with a dot in its name is with slashes there, too.
fn dotted(name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { name.replace('/', ".") }
}

/// What sets it now and after the next boot.
fn set(name: &str, value: &str) -> String {
    let line = format!("{}={value}", dotted(name));
    format!("sysctl -w {line}; echo '{line}' >> /etc/sysctl.d/99-pods.conf")
}
