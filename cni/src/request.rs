//! The call as the runtime made it, typed: environment and stdin in, a [`Request`] out. Whoever holds
//! one needs to check nothing of it again (CNI spec 1.1.0, section 2, "Execution Protocol").

mod args;
mod environment;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use node::{Context, Error, Kind, Result};
use serde_json::Value;

use crate::config::reader::Problem;
use crate::config::wanted::Asked;
use crate::config::{NetConf, Position, problems};
use crate::name;
use crate::owner::Owner;
pub use crate::request::args::Args;
use crate::request::environment::Environment;
use crate::result::CniResult;
use crate::role::Role;
use crate::version::Version;

/// Where variables are looked up; the process's own are `&|name| std::env::var_os(name)`.
pub type Lookup<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Attach the container.
    Add {
        /// The call.
        call: Box<Call>,
        /// What the plugins before this one in the chain made.
        previous: Option<CniResult>,
    },
    /// Detach it.
    Del(Box<Del>),
    /// Look whether everything is as ADD made it.
    Check {
        /// The call.
        call: Box<Call>,
        /// What the whole chain made.
        previous: CniResult,
    },
    /// Remove what belongs to no attachment.
    Gc(Box<Gc>),
    /// Tell whether an ADD could work.
    Status(Box<Status>),
    /// Tell the versions; holds the caller's.
    Version(Version),
    /// No `CNI_COMMAND`: a person runs the program.
    Person,
}

/// An ADD or a CHECK.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Whose attachment.
    pub owner: Owner,
    /// `CNI_NETNS`, not looked at yet.
    pub netns: String,
    /// `CNI_NETNS_OVERRIDE`: the host's own namespace may be given.
    pub netns_override: bool,
    /// `CNI_ARGS`.
    pub args: Args,
    /// `CNI_PATH`: where delegates are.
    pub path: Vec<PathBuf>,
    /// The configuration, without a mistake.
    pub config: NetConf,
    /// stdin as it came, for delegates.
    pub stdin: Value,
}

/// A DEL. Everything but the owner is what could be saved of it: whatever is wrong with the rest, the
/// pod has to go.
#[derive(Debug, Clone, PartialEq)]
pub struct Del {
    /// The name under which the program was called.
    pub role: Role,
    /// Whose attachment.
    pub owner: Owner,
    /// The version to answer an error in.
    pub version: Version,
    /// `CNI_NETNS`; empty counts as absent.
    pub netns: Option<String>,
    /// `CNI_ARGS`, without what does not read.
    pub args: Args,
    /// `CNI_PATH`.
    pub path: Vec<PathBuf>,
    /// The network's name.
    pub network: Option<String>,
    /// The configuration; wrong values stand at their defaults.
    pub config: Option<NetConf>,
    /// The ADD's result.
    pub previous: Option<CniResult>,
    /// stdin as it came, where it is JSON.
    pub stdin: Option<Value>,
    /// What was passed over, for the log.
    pub notes: Vec<String>,
}

/// A GC.
#[derive(Debug, Clone, PartialEq)]
pub struct Gc {
    /// The attachments that live; everything else of the network is stale.
    pub valid: BTreeSet<Owner>,
    /// `CNI_PATH`.
    pub path: Vec<PathBuf>,
    /// The configuration; its name is right, other wrong values stand at their defaults.
    pub config: NetConf,
    /// stdin as it came, for delegates.
    pub stdin: Value,
    /// What was passed over, for the log.
    pub notes: Vec<String>,
}

/// A STATUS.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// `CNI_PATH`.
    pub path: Vec<PathBuf>,
    /// The configuration, without a mistake.
    pub config: NetConf,
    /// stdin as it came, for delegates.
    pub stdin: Value,
}

/// A call that cannot be served, and the version to say so in.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub error: Box<Error>,
    /// The caller's version where it is known, or else the newest.
    pub version: Version,
}

impl Request {
    /// Reads a call of a program that was started as `role`.
    pub fn read(role: Role, env: &Lookup<'_>, stdin: &[u8]) -> Result<Self, Refused> {
        let mut env = Environment::new(env);
        let Some(command) = env.may("CNI_COMMAND") else {
            return env
                .verdict()
                .map(|()| Self::Person)
                .map_err(|error| Refused { error, version: Version::NEWEST });
        };
        let stdin = parse(stdin);
        let version = stdin.as_ref().map_or(Version::NEWEST, Version::of_answer);
        let request = match command.as_str() {
            "ADD" => add(role, env, stdin),
            "DEL" => del(role, env, stdin),
            "CHECK" => check(role, env, stdin),
            "GC" => gc(role, env, stdin),
            "STATUS" => status(role, env, stdin),
            "VERSION" => Ok(Self::Version(probe(stdin))),
            _ => {
                env.complain("CNI_COMMAND", &format!("{} is not a verb", name::shown(&command)));
                env.verdict().map(|()| Self::Person)
            }
        };
        request.map_err(|error| Refused { error, version })
    }

    /// `CNI_COMMAND`.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Add { .. } => "ADD",
            Self::Del(_) => "DEL",
            Self::Check { .. } => "CHECK",
            Self::Gc(_) => "GC",
            Self::Status(_) => "STATUS",
            Self::Version(_) => "VERSION",
            Self::Person => "",
        }
    }

    /// The version to answer in.
    pub fn version(&self) -> Version {
        match self {
            Self::Add { call, .. } | Self::Check { call, .. } => call.config.version,
            Self::Del(del) => del.version,
            Self::Gc(gc) => gc.config.version,
            Self::Status(status) => status.config.version,
            Self::Version(version) => *version,
            Self::Person => Version::NEWEST,
        }
    }
}

fn add(role: Role, env: Environment<'_>, stdin: Result<Value>) -> Result<Request> {
    let (call, previous) = call(role, env, stdin, |previous| match previous {
        Some(_) => Position::Chained,
        None => Position::First,
    })?;
    Ok(Request::Add { call: Box::new(call), previous })
}

fn check(role: Role, env: Environment<'_>, stdin: Result<Value>) -> Result<Request> {
    let (call, previous) = call(role, env, stdin, |_| Position::Either)?;
    let previous = previous.ok_or_else(|| {
        Error::new(
            Kind::Config,
            "read the configuration: `prevResult` is missing, and CHECK compares with it",
        )
        .hint("the runtime hands the ADD's result to CHECK")
    })?;
    Ok(Request::Check { call: Box::new(call), previous })
}

fn call(
    role: Role,
    mut env: Environment<'_>,
    stdin: Result<Value>,
    position: impl FnOnce(Option<&CniResult>) -> Position,
) -> Result<(Call, Option<CniResult>)> {
    let owner = env.owner();
    let netns = env.need("CNI_NETNS");
    let args = env.args();
    let path = env.path();
    let netns_override = env.switch("CNI_NETNS_OVERRIDE");
    env.verdict()?;
    let stdin = stdin?;
    let version = spoken(&stdin)?;
    let previous = previous(&stdin, version)?;
    let config = strict(role, &stdin, position(previous.as_ref()), &args.asked)?;
    Ok((Call { owner, netns, netns_override, args, path, config, stdin }, previous))
}

fn del(role: Role, mut env: Environment<'_>, stdin: Result<Value>) -> Result<Request> {
    let owner = env.owner();
    env.verdict()?;
    // From here on, what does not read is noted and passed over.
    let netns = env.may("CNI_NETNS");
    let args = env.args();
    let path = env.path();
    let mut notes = env.complaints();
    let mut del = Del {
        role,
        owner,
        netns,
        args,
        path,
        version: Version::NEWEST,
        network: None,
        config: None,
        previous: None,
        stdin: None,
        notes: Vec::new(),
    };
    match stdin {
        Err(error) => notes.push(error.chain()),
        Ok(value) => del.take(value, &mut notes),
    }
    del.notes = notes;
    Ok(Request::Del(Box::new(del)))
}

impl Del {
    fn take(&mut self, stdin: Value, notes: &mut Vec<String>) {
        self.version = spoken(&stdin).unwrap_or_else(|error| {
            notes.push(error.chain());
            Version::NEWEST
        });
        self.previous = previous(&stdin, self.version).unwrap_or_else(|error| {
            notes.push(error.chain());
            None
        });
        let mut found = Vec::new();
        let config = NetConf::read(self.role, &stdin, "", Position::Either, &self.args.asked, &mut found);
        notes.extend(found.iter().map(problems::line));
        if !config.name.is_empty() {
            self.network = Some(config.name.clone());
            self.config = Some(config);
        }
        self.stdin = Some(stdin);
    }
}

fn gc(role: Role, mut env: Environment<'_>, stdin: Result<Value>) -> Result<Request> {
    env.need("CNI_PATH");
    let path = env.path();
    env.verdict()?;
    let stdin = stdin?;
    spoken(&stdin)?;
    let valid = attachments(&stdin)?;
    let mut found = Vec::new();
    let config = NetConf::read(role, &stdin, "", Position::Either, &Asked::default(), &mut found);
    if config.name.is_empty() {
        found.retain(|p| p.at == "name");
        problems::verdict(&found)?;
    }
    let notes = found.iter().map(problems::line).collect();
    Ok(Request::Gc(Box::new(Gc { valid, path, config, stdin, notes })))
}

fn status(role: Role, mut env: Environment<'_>, stdin: Result<Value>) -> Result<Request> {
    let path = env.path();
    env.verdict()?;
    let stdin = stdin?;
    spoken(&stdin)?;
    let config = strict(role, &stdin, Position::Either, &Asked::default())?;
    Ok(Request::Status(Box::new(Status { path, config, stdin })))
}

/// The version that a VERSION call speaks. One that says nothing gets the newest: 0.2.0's callers
/// sent no stdin.
fn probe(stdin: Result<Value>) -> Version {
    let named = stdin.ok().filter(|v| v.get("cniVersion").is_some());
    named.map_or(Version::NEWEST, |v| Version::of_answer(&v))
}

fn parse(stdin: &[u8]) -> Result<Value> {
    const DOING: &str = "read the configuration on stdin";
    let value: Value = serde_json::from_slice(stdin).doing(Kind::Decode, || DOING.to_owned()).map_err(|e| {
        e.hint("the network configuration, one JSON object, goes to stdin; `nodeplug-cni validate` checks a file")
    })?;
    if value.is_object() {
        return Ok(value);
    }
    Err(Error::caused(Kind::Decode, DOING, "it is JSON, but not an object"))
}

fn spoken(stdin: &Value) -> Result<Version> {
    Version::of(stdin)
        .map_err(|unknown| {
            let doing = format!("speak the configuration's cniVersion {}", name::shown(&unknown.0));
            Error::caused(Kind::Version, doing, unknown)
        })
        .map_err(|e| e.hint("set `cniVersion` in the network's list to one of them"))
}

fn previous(stdin: &Value, version: Version) -> Result<Option<CniResult>> {
    let Some(value) = stdin.get("prevResult").filter(|v| !v.is_null()) else { return Ok(None) };
    let result = CniResult::from_json(value, version);
    result.map(Some).doing(Kind::Decode, || "read `prevResult`".to_owned())
}

fn strict(role: Role, stdin: &Value, position: Position, asked: &Asked) -> Result<NetConf> {
    let mut found = Vec::new();
    let config = NetConf::read(role, stdin, "", position, asked, &mut found);
    problems::verdict(&found)?;
    Ok(config)
}

/// The attachments that GC must leave alone. libcni sends the same list under two names; a caller that
/// sends both means the sum of them. A list that is not there is refused, because to take it for an
/// empty one would remove every pod's network; Go writes an empty list as null, so null is an empty one.
fn attachments(stdin: &Value) -> Result<BTreeSet<Owner>> {
    const KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];
    let mut valid = BTreeSet::new();
    let mut found = Vec::new();
    let mut seen = false;
    for key in KEYS {
        let Some(value) = stdin.get(key) else { continue };
        seen = true;
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        if !value.is_array() && !value.is_null() {
            found.push(Problem::wrong(key, "is not a list"));
        }
        for (i, item) in items.iter().enumerate() {
            let owner = attachment(item);
            if owner.is_none() {
                // Passed over, it would make a living pod's attachment a stale one.
                let what = "is not `{\"containerID\": …, \"ifname\": …}`";
                found.push(Problem::wrong(&format!("{key}[{i}]"), what));
            }
            valid.extend(owner);
        }
    }
    if !seen {
        let what = "is missing, and without it every attachment would count as stale";
        found.push(
            Problem::wrong(KEYS.first().unwrap_or(&""), what)
                .hint("the runtime lists the attachments that live"),
        );
    }
    problems::verdict(&found).map(|()| valid)
}

fn attachment(item: &Value) -> Option<Owner> {
    let text = |key| item.get(key).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
    Some(Owner { container_id: text("containerID")?, ifname: text("ifname")? })
}

#[cfg(test)]
mod tests;
