//! What an entry makes: an interface, and of which mode, or nothing of its own.

use serde_json::Value;

use crate::config::bridge::{self, Bridge};
use crate::config::reader::{Problem, Reader};
use crate::config::{Attach, Position};
use crate::role::Role;

/// Keys that say how to make an interface, and tell by their presence that this plugin makes one.
const MAKING: [&str; 2] = ["mode", "ipam"];

/// Keys that mean something only where this plugin makes the interface.
const SHAPING: [&str; 4] = ["encapOverhead", "ipMasq", "ipMasqBackend", "nonMasqueradeCIDRs"];

/// What the plugin makes, by the name that it was called by, its place in the list and its keys.
pub(super) fn read(
    reader: &mut Reader<'_>,
    value: &Value,
    (role, plugin): (Role, &str),
    position: Position,
    problems: &mut Vec<Problem>,
) -> Attach {
    match role {
        Role::Loopback => return Attach::Loopback,
        Role::Main if plugin == Role::Loopback.name() => return Attach::Loopback,
        Role::Bridge => return Attach::Bridge(Bridge::read(reader, role, problems)),
        Role::PointToPoint => return Attach::Routed,
        Role::HostLocal | Role::Static => return Attach::Addresses,
        role if role.is_chained() => return Attach::Chained,
        _ => {}
    }
    let makes = MAKING.iter().chain(&bridge::KEYS).any(|k| value.get(k).is_some_and(|v| !v.is_null()));
    if position == Position::First || (position == Position::Either && makes) {
        return read_mode(reader, problems);
    }
    for key in MAKING.iter().chain(&SHAPING).chain(&bridge::KEYS) {
        // Switches that are off ask for nothing.
        if reader.value(key).is_some_and(|v| v != &Value::Bool(false)) {
            let what = "stands in a chained entry, and a chained nodeplug-cni makes no interface";
            let hint = "move nodeplug-cni to the front of `plugins`, or take the key out of this entry";
            problems.push(Problem::wrong(&reader.place(key), what).hint(hint));
        }
    }
    Attach::Chained
}

fn read_mode(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> Attach {
    match reader.string("mode", problems) {
        Some("bridge") => return Attach::Bridge(Bridge::read(reader, Role::Main, problems)),
        None | Some("routed") => {}
        Some(other) => {
            let what = format!("is `{other}`, and only `routed` and `bridge` are known");
            problems.push(Problem::wrong(&reader.place("mode"), what));
            // The bridge's keys may well be right: the mode is what has to be mended first.
            reader.allow(&bridge::KEYS);
            return Attach::Routed;
        }
    }
    for key in bridge::KEYS {
        if reader.value(key).is_some() {
            let what = "means something only with `\"mode\": \"bridge\"`, and the mode here is `routed`";
            let hint = "add `\"mode\": \"bridge\"`, or take the key out";
            problems.push(Problem::wrong(&reader.place(key), what).hint(hint));
        }
    }
    Attach::Routed
}
