//! One line for each call: who, what, how it ended, how long it took and where the time went. Good STATUS calls
//! and VERSION are no news, and neither is a loopback that came up, unless the configuration names the log.

use std::env;
use std::time::Duration;

use node::Error;
use node::log::{Context, Line, Log};
use node::times::{self, Lap};
use serde_json::Value;

use crate::config::NetConf;
use crate::config::log::NetLog;
use crate::owner::Owner;
use crate::request::{Args, Refused, Request};
use crate::role::{OWN, Role};

/// The longest container id, interface or network's name of a call that is refused, as a line has it.
const LONGEST_NAME: usize = 200;

/// Whether a line of the call may be written, so that its time is worth taking.
pub fn is_kept(request: &Request) -> bool {
    !matches!(request, Request::Version(_) | Request::Person) && log_of(request).log.is_on()
}

/// Writes the line of a call that is over. The clock stops (see [`times`]).
pub fn append(request: &Request, outcome: Result<&Option<Value>, &Error>, elapsed: Duration) {
    let laps = times::stop();
    let NetLog { log, is_named } = log_of(request);
    let no_news = match request {
        // Runtimes ask for STATUS every few seconds.
        Request::Status(_) => true,
        Request::Version(_) | Request::Person => return,
        _ => role_of(request) == Role::Loopback && !is_named,
    };
    if log.is_on() && !(no_news && outcome.is_ok()) {
        log.append(OWN, &line(request, outcome, elapsed, &laps));
    }
}

/// Writes the line of a call that was refused before it was a request. It names what can be told of the caller's
/// words, and goes where the configuration says, as far as that can be read.
pub fn append_refused(refused: &Refused, role: Role, stdin: &[u8], elapsed: Duration) {
    let log: Log = NetLog::salvaged(stdin).log;
    let given = |name: &str| env::var_os(name).map(|v| v.to_string_lossy().into_owned());
    let verb = given("CNI_COMMAND").unwrap_or_default();
    if !log.is_on() || verb == "VERSION" {
        return;
    }
    let (args, _) = Args::read(&given("CNI_ARGS").unwrap_or_default());
    let mut line = Line::new(&verb);
    line.maybe("plugin", Some(role.name()).filter(|_| role != Role::Main));
    line.maybe("pod", args.pod().as_deref());
    line.maybe("podUID", args.pod_uid.as_deref());
    line.text_of("containerID", &given("CNI_CONTAINERID").unwrap_or_default(), LONGEST_NAME);
    line.text_of("ifname", &given("CNI_IFNAME").unwrap_or_default(), LONGEST_NAME);
    line.put("microseconds", microseconds(elapsed));
    line.error(&refused.error);
    line.context(Context::of_process());
    log.append(OWN, &line);
}

fn line(request: &Request, outcome: Result<&Option<Value>, &Error>, elapsed: Duration, laps: &[Lap]) -> Line {
    let mut line = Line::new(request.verb());
    let role = role_of(request);
    line.maybe("plugin", Some(role.name()).filter(|_| role != Role::Main));
    line.maybe("network", network(request));
    if let Some(args) = args(request) {
        line.maybe("pod", args.pod().as_deref());
        line.maybe("podUID", args.pod_uid.as_deref());
    }
    if let Some(owner) = owner(request) {
        line.put("containerID", owner.container_id.as_str());
        line.put("ifname", owner.ifname.as_str());
        // Other names make no link of this one's.
        let makes_a_link = !(role.is_chained() || role.is_ipam() || role == Role::Loopback);
        line.maybe("link", makes_a_link.then(|| owner.host_ifname()).as_deref());
    }
    line.put("microseconds", microseconds(elapsed));
    match outcome {
        Ok(answer) => line.list("ips", addresses(answer.as_ref())),
        Err(error) => line.error(error),
    }
    line.list("notes", notes(request));
    line.steps(laps);
    // What a runtime with tracing hands down joins this line to its span.
    line.context(Context::of_process());
    line
}

fn microseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// The addresses of a result of any version.
fn addresses(answer: Option<&Value>) -> Vec<String> {
    let Some(answer) = answer else { return Vec::new() };
    let list = answer.get("ips").and_then(Value::as_array).into_iter().flatten();
    let new = list.filter_map(|ip| ip.get("address"));
    let old = ["/ip4/ip", "/ip6/ip"].into_iter().filter_map(|at| answer.pointer(at));
    new.chain(old).filter_map(Value::as_str).map(str::to_owned).collect()
}

fn log_of(request: &Request) -> NetLog {
    conf(request).map(|c| c.log.clone()).unwrap_or_default()
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

fn role_of(request: &Request) -> Role {
    match request {
        Request::Del(call) => call.role,
        _ => conf(request).map_or(Role::Main, |c| c.role),
    }
}

fn network(request: &Request) -> Option<&str> {
    match request {
        Request::Del(call) => call.network.as_deref(),
        _ => conf(request).map(|c| c.name.as_str()),
    }
}

fn owner(request: &Request) -> Option<&Owner> {
    match request {
        Request::Add { call, .. } | Request::Check { call, .. } => Some(&call.owner),
        Request::Del(call) => Some(&call.owner),
        Request::Gc(_) | Request::Status(_) | Request::Version(_) | Request::Person => None,
    }
}

fn args(request: &Request) -> Option<&Args> {
    match request {
        Request::Add { call, .. } | Request::Check { call, .. } => Some(&call.args),
        Request::Del(call) => Some(&call.args),
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
