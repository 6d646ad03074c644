//! Turns a function over a node into a trial: a thread and namespaces of its own, a time-out, and a
//! skip that says why (and fails under CI).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};

use crate::call::try_tool;
use crate::container_node::ContainerNode;
use crate::device_node::{DeviceNode, our_daemon};
use crate::node::{Node, REFERENCE, our_binary};
use crate::runtime::{Flavour, flavour};
use crate::volume_node::{VolumeNode, our_driver};

/// No test takes longer.
const LIMIT: Duration = Duration::from_mins(5);

/// A test that any CNI plugin passes.
pub fn any(name: &'static str, body: fn(&Node)) -> Trial {
    Trial::ignorable_test(name, move || run(name, body))
}

/// A test of what only our plugin promises.
pub fn ours(name: &'static str, body: fn(&Node)) -> Trial {
    Trial::ignorable_test(name, move || match flavour() {
        Flavour::Ours => run(name, body),
        Flavour::Reference => Ok(Completion::ignored_with("the reference does not promise this")),
    })
}

/// [`ours`] that needs further programs: names on PATH, or paths.
pub fn ours_with(name: &'static str, tools: &'static [&'static str], body: fn(&Node)) -> Trial {
    Trial::ignorable_test(name, move || match (flavour(), tools.iter().find(|tool| !on_path(tool))) {
        (Flavour::Ours, Some(lacking)) => skip(format!("needs `{lacking}`")),
        (Flavour::Ours, None) => run(name, body),
        (Flavour::Reference, _) => Ok(Completion::ignored_with("the reference does not promise this")),
    })
}

/// A test of our FlexVolume driver on a node where no mount is shared. `tools` are the programs that it
/// needs beyond those that every test needs.
pub fn volume(name: &'static str, tools: &'static [&'static str], body: fn(&VolumeNode)) -> Trial {
    Trial::ignorable_test(name, move || drive(name, tools, VolumeNode::enter, body))
}

/// [`volume`] on a node that shares its mounts, as real ones do.
pub fn volume_shared(name: &'static str, tools: &'static [&'static str], body: fn(&VolumeNode)) -> Trial {
    Trial::ignorable_test(name, move || drive(name, tools, VolumeNode::enter_shared, body))
}

/// A test that brings a driver of its own.
pub fn scripted(name: &'static str, tools: &'static [&'static str], body: fn(&VolumeNode)) -> Trial {
    Trial::ignorable_test(name, move || on_volume_node(name, tools, VolumeNode::bare, body))
}

/// [`scripted`] on a node that shares its mounts.
pub fn scripted_shared(name: &'static str, tools: &'static [&'static str], body: fn(&VolumeNode)) -> Trial {
    Trial::ignorable_test(name, move || on_volume_node(name, tools, VolumeNode::bare_shared, body))
}

/// A test of the device plugin's daemon on a node of its own. `tools` are the programs that it needs beyond `ip`.
pub fn device(name: &'static str, tools: &'static [&'static str], body: fn(&DeviceNode)) -> Trial {
    Trial::ignorable_test(name, move || {
        built(&our_daemon(), "nodeplug-device-plugin", "NODEPLUG_DEVICE_PLUGIN")?;
        if !nix::unistd::geteuid().is_root() {
            return skip("needs root, for namespaces".to_owned());
        }
        if let Some(lacking) = ["ip"].iter().chain(tools).find(|tool| !on_path(tool)) {
            return skip(format!("needs `{lacking}`"));
        }
        bounded(name, move || body(&DeviceNode::enter()))
    })
}

/// A test of our CNI plugin under a real runtime. `tools` are the programs of that runtime.
pub fn pods(name: &'static str, tools: &'static [&'static str], body: fn(&ContainerNode)) -> Trial {
    Trial::ignorable_test(name, move || {
        built(&our_binary(), "nodeplug-cni", "NODEPLUG_CNI")?;
        if let Some(why) = missing().or_else(|| lacking(tools)) {
            return skip(why);
        }
        bounded(name, move || body(&ContainerNode::enter()))
    })
}

/// A test that needs no node.
pub fn plain(name: &'static str, body: fn()) -> Trial {
    Trial::ignorable_test(name, move || bounded(name, body))
}

/// [`plain`] for what needs these programs.
pub fn with_tools(name: &'static str, tools: &'static [&'static str], body: fn()) -> Trial {
    Trial::ignorable_test(name, move || match tools.iter().find(|tool| !on_path(tool)) {
        Some(lacking) => skip(format!("needs `{lacking}`")),
        None => bounded(name, body),
    })
}

fn run(name: &str, body: fn(&Node)) -> Result<Completion, Failed> {
    if let Some(why) = missing() {
        return skip(why);
    }
    if flavour() == Flavour::Ours {
        built(&our_binary(), "nodeplug-cni", "NODEPLUG_CNI")?;
    }
    bounded(name, move || body(&Node::enter()))
}

fn drive(
    name: &str,
    tools: &[&str],
    enter: fn() -> VolumeNode,
    body: fn(&VolumeNode),
) -> Result<Completion, Failed> {
    built(&our_driver(), "nodeplug-flexvolume", "NODEPLUG_FLEXVOLUME")?;
    on_volume_node(name, tools, enter, body)
}

fn on_volume_node(
    name: &str,
    tools: &[&str],
    enter: fn() -> VolumeNode,
    body: fn(&VolumeNode),
) -> Result<Completion, Failed> {
    if let Some(why) = missing_for_volumes(tools) {
        return skip(why);
    }
    bounded(name, move || body(&enter()))
}

fn built(program: &Path, name: &str, variable: &str) -> Result<(), Failed> {
    if program.is_file() {
        return Ok(());
    }
    let hint = format!("build it with `cargo build -p {name}`, or name it in {variable}");
    Err(format!("no program at `{}`: {hint}", program.display()).into())
}

fn bounded(name: &str, work: impl FnOnce() + Send + 'static) -> Result<Completion, Failed> {
    let (send, receive) = mpsc::channel();
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(work));
        drop(send.send(result.map_err(|panic| message(panic.as_ref()))));
    });
    thread.map_err(|e| format!("start a thread: {e}"))?;
    match receive.recv_timeout(LIMIT) {
        Ok(Ok(())) => Ok(Completion::Completed),
        Ok(Err(why)) => Err(why.into()),
        Err(_) => Err(format!("takes longer than {LIMIT:?}").into()),
    }
}

/// A skipped test must not look like a passed one where a machine decides.
fn skip(why: String) -> Result<Completion, Failed> {
    if std::env::var("CI").as_deref() == Ok("true") {
        return Err(format!("may not be skipped under CI: {why}").into());
    }
    Ok(Completion::ignored_with(why))
}

/// What this machine lacks to run a test over a kernel.
fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root, for namespaces".to_owned());
    }
    for tool in [["ip", "-V"], ["nft", "--version"], ["nsenter", "--version"]] {
        let found = catch_unwind(|| try_tool(&tool).ok()).unwrap_or(false);
        if !found {
            return Some(format!("needs `{}`", tool[0]));
        }
    }
    let reference = Path::new(REFERENCE).join("bridge").is_file();
    (!reference).then(|| format!("needs the reference plugins in `{REFERENCE}`"))
}

/// What this machine lacks to run a test over volumes.
fn missing_for_volumes(tools: &[&str]) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root, for mounts".to_owned());
    }
    lacking(&["ip", "losetup", "mount", "nsenter", "setpriv", "umount"]).or_else(|| lacking(tools))
}

fn lacking(tools: &[&str]) -> Option<String> {
    let lacking = tools.iter().find(|tool| !on_path(tool))?;
    Some(format!("needs `{lacking}`"))
}

fn on_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where some shells of users do not look.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|f| f.join(tool)).any(|p| p.is_file())
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
    text.unwrap_or_else(|| "a panic without words".to_owned())
}
