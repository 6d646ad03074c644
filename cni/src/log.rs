//! One line for each call, where the configuration names a `logFile`: who, what, how it ended, how long.

use std::env;
use std::path::Path;
use std::time::Duration;

use node::Error;
use serde_json::{Map, Value};

use crate::config::NetConf;
use crate::owner::Owner;
use crate::request::Request;
use crate::role::Role;

/// Appends the line of a call that is over.
pub fn append(request: &Request, outcome: Result<&Option<Value>, &Error>, elapsed: Duration) {
    // Runtimes ask for STATUS every few seconds: only a bad one is news.
    let routine = outcome.is_ok() && matches!(request, Request::Status(_));
    if let Some(file) = conf(request).and_then(|c| c.log_file.as_deref()).filter(|_| !routine) {
        write(file, request, outcome, elapsed);
    }
}

fn write(file: &Path, request: &Request, outcome: Result<&Option<Value>, &Error>, elapsed: Duration) {
    let mut line = Map::new();
    let mut put = |key: &str, value: Option<Value>| drop(value.map(|v| line.insert(key.to_owned(), v)));
    put("verb", Some(request.verb().into()));
    let role = conf(request).map_or(Role::Main, |c| c.role);
    put("plugin", Some(role.name().into()).filter(|_| role != Role::Main));
    put("network", conf(request).map(|c| c.name.as_str().into()));
    put("pod", pod(request).map(Value::from));
    put("containerID", owner(request).map(|o| o.container_id.as_str().into()));
    put("ifname", owner(request).map(|o| o.ifname.as_str().into()));
    put("link", owner(request).map(|o| o.host_ifname().into()));
    put("microseconds", Some(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).into()));
    match outcome {
        Ok(answer) => put("ips", answer.as_ref().and_then(|a| a.get("ips")).cloned()),
        Err(error) => {
            put("error", Some(error.chain().into()));
            put("hint", error.advice().map(Value::from));
        }
    }
    let notes = notes(request);
    put("notes", Some(notes.into()).filter(|_| !notes.is_empty()));
    // What a runtime with tracing hands down joins this line to its span (W3C Trace Context).
    put("traceparent", env::var("TRACEPARENT").ok().map(Value::from));
    node::log::append(file, line);
}

fn conf(request: &Request) -> Option<&NetConf> {
    match request {
        Request::Add { call, .. } | Request::Check { call, .. } => Some(&call.config),
        Request::Del(call) => call.config.as_ref(),
        Request::Gc(call) => Some(&call.config),
        Request::Status(call) => Some(&call.config),
        Request::Version(_) | Request::Person => None,
    }
}

fn owner(request: &Request) -> Option<&Owner> {
    match request {
        Request::Add { call, .. } | Request::Check { call, .. } => Some(&call.owner),
        Request::Del(call) => Some(&call.owner),
        Request::Gc(_) | Request::Status(_) | Request::Version(_) | Request::Person => None,
    }
}

fn pod(request: &Request) -> Option<String> {
    match request {
        Request::Add { call, .. } | Request::Check { call, .. } => call.args.pod(),
        Request::Del(call) => call.args.pod(),
        Request::Gc(_) | Request::Status(_) | Request::Version(_) | Request::Person => None,
    }
}

fn notes(request: &Request) -> &[String] {
    match request {
        Request::Del(call) => &call.notes,
        Request::Gc(call) => &call.notes,
        _ => &[],
    }
}
