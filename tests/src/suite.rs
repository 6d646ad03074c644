//! Turns a function over a node into a trial: a thread and namespaces of its own, a time-out, and a
//! skip that says why (and fails under CI).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};

use crate::call::try_tool;
use crate::node::{Node, REFERENCE, our_binary};
use crate::runtime::{Flavour, flavour};

/// No test takes longer.
const LIMIT: Duration = Duration::from_secs(300);

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

fn run(name: &str, body: fn(&Node)) -> Result<Completion, Failed> {
    if let Some(why) = missing() {
        return skip(why);
    }
    if flavour() == Flavour::Ours && !our_binary().is_file() {
        let hint = "build it with `cargo build -p nodeplug-cni`, or name it in NODEPLUG_CNI";
        return Err(format!("no plugin at `{}`: {hint}", our_binary().display()).into());
    }
    let (send, receive) = mpsc::channel();
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| body(&Node::enter())));
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

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
    text.unwrap_or_else(|| "a panic without words".to_owned())
}
