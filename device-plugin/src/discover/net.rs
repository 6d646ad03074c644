//! Network interfaces. They have no node: a container gets the name.

use crate::config::NetSelector;
use crate::inventory::{Found, Looked};

use super::anchor;
use super::links::Told;
use super::parents::{Parents, attributes, driver};
use super::rejected::{Match, Rejections};
use super::tree::Device;
use super::view::View;
use super::watching::Watching;

/// The kernel sends no event for a carrier that comes or goes.
const CARRIER_EVERY: u64 = 5;

/// The interfaces that match.
pub fn look(wanted: &NetSelector, view: &View) -> Looked {
    let mut rejected = Rejections::default();
    let mut found = Vec::new();
    let parents = Parents::new(&wanted.parents);
    for device in rejected.or_note("net", view.sys.subsystem("net")) {
        let behind = behind(&device, view);
        let mut matching = Match::default();
        matching.glob("name", wanted.name.as_ref(), || Ok(device.name()));
        matching.check(|| match behind {
            None if !wanted.r#virtual => Err("it is virtual, and `virtual` is not set".to_owned()),
            _ => Ok(()),
        });
        matching.glob("driver", wanted.driver.as_ref(), || {
            behind.as_ref().map_or_else(|| Err("is not bound".to_owned()), driver)
        });
        attributes(&mut matching, &wanted.attributes, &device, &view.sys);
        matching.check(|| parents.above(&device, &view.sys));
        if matching.decide(|| device.name(), &mut rejected) {
            found.push(take(wanted, &device, behind.as_ref(), view));
        }
    }
    Looked { found, rejected: rejected.finish(), ..Looked::default() }
}

/// What to watch.
pub fn watch(wanted: &NetSelector, watching: &mut Watching) {
    watching.subsystem("net");
    watching.parents(&wanted.parents);
    if wanted.needs_carrier {
        watching.every(crate::config::Span::seconds(CARRIER_EVERY));
    }
}

/// The device that the interface is the network side of.
fn behind(device: &Device, view: &View) -> Option<Device> {
    view.sys.behind(device, "device")
}

/// By what it hangs on and its port there. The address is second best: the kernel calls it permanent until somebody
/// sets one, which a bond does with all its members; and a virtual function's is another one after each boot. It is
/// what tells alike USB adapters apart.
pub fn identity(device: &Device, view: &View) -> (String, Told) {
    if behind(device, view).is_none() {
        return (format!("net:{}", device.name()), Told::Itself);
    }
    let port = device.text("dev_port").filter(|port| port != "0").map(|port| format!("#{port}"));
    let port = port.unwrap_or_default();
    match (anchor::of(device, view), permanent_address(device)) {
        (Some((anchor, Told::Itself, _)), _) => (format!("{anchor}:net{port}"), Told::Itself),
        (_, Some(address)) => (format!("net:{address}"), Told::Itself),
        (Some((anchor, told, _)), None) => (format!("{anchor}:net{port}"), told),
        (None, None) => (format!("net:{}", device.name()), Told::Itself),
    }
}

/// The one that it was made with: `NET_ADDR_PERM` of the kernel's `netdevice.h`.
fn permanent_address(device: &Device) -> Option<String> {
    let permanent = device.text("addr_assign_type").as_deref() == Some("0");
    permanent.then(|| device.text("address")).flatten().map(|address| super::clean(&address))
}

fn take(wanted: &NetSelector, device: &Device, behind: Option<&Device>, view: &View) -> Found {
    let (identity, _) = identity(device, view);
    let mut found = anchor::found(device, identity, view);
    found.attributes.insert("name".to_owned(), device.name());
    for name in ["address", "mtu", "speed"] {
        // The speed of what has none is -1.
        let value = device.text(name).filter(|text| text != "-1");
        found.attributes.extend(value.map(|text| (name.to_owned(), super::clean(&text))));
    }
    found
        .attributes
        .extend(behind.and_then(|one| one.link("driver")).map(|driver| ("driver".to_owned(), driver)));
    if wanted.needs_carrier {
        found.ailing = match device.attribute("carrier").as_deref() {
            Ok("1") => None,
            Ok(_) => Some("it has no carrier".to_owned()),
            // The kernel answers EINVAL for an interface that is down.
            Err(_) => Some("it is down".to_owned()),
        };
    }
    found
}

#[cfg(test)]
#[path = "net_tests.rs"]
mod tests;
