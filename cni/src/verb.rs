//! The protocol's verbs: each takes a typed request through observe, plan and apply to its answer.

pub mod add;
pub mod addresses;
pub mod check;
pub mod del;
pub mod gc;
pub mod loopback;
pub mod status;

use node::{Error, Kind, Result};
use serde_json::Value;

use crate::config::Attach;
use crate::request::Request;

/// Serves a call. The answer is what goes to stdout; most verbs have none.
pub fn run(request: &Request) -> Result<Option<Value>> {
    let version = request.version();
    match request {
        Request::Add { call, previous } => {
            let result = match (&call.config.attach, previous) {
                (Attach::Loopback, previous) => loopback::add(call, previous.as_ref()),
                (Attach::Chained, Some(previous)) => Ok(previous.clone()),
                _ => add::add(call),
            };
            let made = call.config.makes_an_interface();
            result
                .and_then(|r| r.to_json(version).map_err(|e| if made { add::undone(call, e) } else { e }))
                .map(Some)
        }
        Request::Check { call, previous } => match call.config.attach {
            Attach::Loopback => loopback::check(call),
            Attach::Chained => Ok(()),
            Attach::Routed | Attach::Bridge(_) => check::check(call, previous),
        }
        .map(|()| None),
        Request::Del(call) => {
            let attach = call.config.as_ref().map(|c| &c.attach);
            if attach == Some(&Attach::Loopback) { loopback::del(call) } else { del::del(call) }
                .map(|()| None)
        }
        Request::Gc(call) => {
            if call.config.attach == Attach::Loopback { Ok(()) } else { gc::gc(call) }.map(|()| None)
        }
        Request::Status(call) => status::status(call).map(|()| None),
        Request::Version(version) => Ok(Some(version.answer())),
        Request::Person => Err(Error::new(Kind::Internal, "serve a person as a runtime")),
    }
}
