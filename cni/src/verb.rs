//! The protocol's verbs: each takes a typed request through observe, plan and apply to its answer.

pub mod add;
pub mod addresses;
pub mod chained;
pub mod check;
pub mod del;
pub mod gc;
pub mod ipam;
pub mod loopback;
pub mod repair;
pub mod seen;
pub mod status;
pub mod strays;

use node::{Error, Kind, Result};
use serde_json::Value;

use crate::config::Attach;
use crate::request::{Del, Request};
use crate::role::Role;

/// Serves a call. The answer is what goes to stdout; most verbs have none.
pub fn run(request: &Request) -> Result<Option<Value>> {
    let version = request.version();
    match request {
        Request::Add { call, previous } => {
            let result = match (&call.config.attach, previous) {
                (Attach::Loopback, previous) => loopback::add(call, previous.as_ref()),
                (Attach::Addresses, _) => ipam::add(call),
                (Attach::Chained, Some(previous)) => chained::add(call, previous),
                (Attach::Chained, None) => Err(alone(call.config.role)),
                (Attach::Routed | Attach::Bridge(_), _) => add::add(call),
            };
            let made = call.config.leaves_something();
            result
                .and_then(|r| r.to_json(version).map_err(|e| if made { add::undone(call, e) } else { e }))
                .map(Some)
        }
        Request::Check { call, previous } => match call.config.attach {
            Attach::Loopback => loopback::check(call),
            Attach::Addresses => ipam::check(call),
            Attach::Chained => chained::check(call, previous),
            Attach::Routed | Attach::Bridge(_) => check::check(call, previous),
        }
        .map(|()| None),
        Request::Del(call) => match call.config.as_ref().map(|c| &c.attach) {
            Some(Attach::Loopback) => loopback::del(call),
            Some(Attach::Addresses) => ipam::del(call),
            Some(Attach::Chained) => chained::del(call),
            Some(Attach::Routed | Attach::Bridge(_)) => del::del(call),
            None => unread(call),
        }
        .map(|()| None),
        Request::Gc(call) => match call.config.attach {
            Attach::Loopback => Ok(()),
            Attach::Addresses => ipam::gc(call),
            Attach::Chained => chained::gc(call),
            Attach::Routed | Attach::Bridge(_) => gc::gc(call),
        }
        .map(|()| None),
        Request::Status(call) => status::status(call).map(|()| None),
        Request::Version(version) => Ok(Some(version.answer())),
        Request::Person => Err(Error::new(Kind::Internal, "serve a person as a runtime")),
    }
}

/// A DEL whose configuration does not read: the name of the program says what it may have made.
fn unread(call: &Del) -> Result<()> {
    match call.role {
        Role::Loopback => loopback::del(call),
        role if role.is_ipam() => ipam::del(call),
        role if role.is_chained() => chained::del(call),
        // Nothing says where in the list the entry stood.
        Role::Main => del::del(call).and(chained::del(call)),
        _ => del::del(call),
    }
}

fn alone(role: Role) -> Box<Error> {
    let what = format!(
        "run `{}` without `prevResult`: it adds to an interface that another plugin makes",
        role.name()
    );
    Error::new(Kind::Config, what).hint("put it behind that plugin in the network's list of `plugins`")
}
