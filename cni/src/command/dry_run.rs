//! The plan of an ADD, shown and not done.

use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::io::Read;

use node::{Context, Error, Kind, Result};
use serde_json::{Value, json};

use crate::plan::step::Step;
use crate::request::Request;
use crate::role::Role;
use crate::verb::add;

/// The steps of an ADD.
#[derive(Debug)]
pub struct Plan {
    steps: Vec<Step>,
}

impl Plan {
    /// `{steps: ["…"]}`.
    pub fn to_json(&self) -> Value {
        let steps: Vec<String> = self.steps.iter().map(ToString::to_string).collect();
        json!({ "steps": steps })
    }

    /// One numbered line a step.
    pub fn to_table(&self) -> String {
        let lines = self.steps.iter().enumerate().map(|(i, step)| format!("{:>3}  {step}\n", i + 1));
        lines.collect()
    }
}

/// The plan of the call that CNI_* and stdin describe, as a runtime would make it.
pub fn from_environment() -> Result<Plan> {
    let mut stdin = Vec::new();
    std::io::stdin()
        .read_to_end(&mut stdin)
        .doing(Kind::Io, || "read the configuration on stdin".to_owned())?;
    let ask = |name: &str| match name {
        "CNI_COMMAND" => Some(OsString::from("ADD")),
        name => env::var_os(name),
    };
    plan(Role::Main, &ask, &stdin)
}

/// The plan for a pod of a conflist.
pub fn from_file(text: &str, container_id: &str, ifname: &str) -> Result<Plan> {
    let list: Value = serde_json::from_str(text)
        .doing(Kind::Decode, || "read the conflist".to_owned())
        .map_err(|e| e.hint("`nodeplug-cni validate` shows where it is wrong"))?;
    let (role, stdin) = as_runtime_sends(&list).ok_or_else(|| {
        Error::new(Kind::Config, "find an entry of type `nodeplug-cni`, `bridge` or `ptp` in the conflist")
    })?;
    let given = HashMap::from([
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", container_id),
        ("CNI_IFNAME", ifname),
        ("CNI_NETNS", "/var/run/netns/the-pods"),
        ("CNI_PATH", "/opt/cni/bin"),
    ]);
    plan(role, &|name| given.get(name).map(OsString::from), stdin.to_string().as_bytes())
}

/// The entry of the plugin, or of the reference's that it stands for, with the list's name and version, as a runtime hands it over
/// (CNI spec 1.1.0, section 3, "Deriving request configuration from plugin configuration").
fn as_runtime_sends(list: &Value) -> Option<(Role, Value)> {
    let entries =
        list.get("plugins").and_then(Value::as_array).map_or_else(|| vec![list], |p| p.iter().collect());
    let roles = [Role::Main, Role::Bridge, Role::PointToPoint];
    let is = |entry: &Value, role: Role| entry.get("type").and_then(Value::as_str) == Some(role.name());
    let found = roles.iter().find_map(|r| entries.iter().find(|e| is(e, *r)).map(|e| (*r, (*e).clone())));
    let (role, mut entry) = found?;
    let object = entry.as_object_mut()?;
    for key in ["cniVersion", "name"] {
        if let Some(value) = list.get(key) {
            object.insert(key.to_owned(), value.clone());
        }
    }
    Some((role, entry))
}

fn plan(role: Role, ask: &dyn Fn(&str) -> Option<OsString>, stdin: &[u8]) -> Result<Plan> {
    match Request::read(role, ask, stdin).map_err(|refused| refused.error)? {
        Request::Add { call, previous: None } => add::dry_run(&call).map(|steps| Plan { steps }),
        _ => Err(Error::new(Kind::Usage, "plan a chained ADD, which makes nothing")),
    }
}
