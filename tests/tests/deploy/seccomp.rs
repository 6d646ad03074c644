//! `RuntimeDefault`: the profile that runtimes share, as Debian has it, for a process without capabilities.

use std::fs;

use serde_json::{Value, json};

/// From golang-github-containers-common, which buildah and podman bring.
pub const PROFILE: &str = "/usr/share/containers/seccomp.json";

/// The profile as runc takes it.
pub fn runtime_default() -> Value {
    let text = fs::read_to_string(PROFILE).unwrap_or_else(|e| panic!("{PROFILE}: {e}"));
    let profile: Value = serde_json::from_str(&text).expect("a profile");
    let (processor, own) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", "SCMP_ARCH_X86_64"),
        "aarch64" => ("arm64", "SCMP_ARCH_AARCH64"),
        other => panic!("no profile for {other} yet"),
    };
    let map = profile["archMap"].as_array().expect("architectures");
    let entry = map.iter().find(|entry| entry["architecture"] == own).expect("this one");
    let mut architectures = vec![entry["architecture"].clone()];
    architectures.extend(entry["subArchitectures"].as_array().into_iter().flatten().cloned());
    let rules = profile["syscalls"].as_array().expect("rules");
    let rules: Vec<Value> = rules.iter().filter(|rule| applies(rule, processor)).map(rule).collect();
    assert!(rules.len() > 3, "{} rules", rules.len());
    json!({
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": architectures,
        "syscalls": rules,
    })
}

/// Without a capability, what is allowed for one is not.
fn applies(rule: &Value, processor: &str) -> bool {
    let list = |side: &str, key: &str| rule[side][key].as_array().cloned().unwrap_or_default();
    let (wanted, excluded) = (list("includes", "arches"), list("excludes", "arches"));
    let here = |list: &[Value]| list.iter().any(|name| name == processor);
    list("includes", "caps").is_empty() && (wanted.is_empty() || here(&wanted)) && !here(&excluded)
}

fn rule(rule: &Value) -> Value {
    let mut own = json!({"names": rule["names"], "action": rule["action"]});
    for key in ["args", "errnoRet"] {
        if !rule[key].is_null() && rule[key] != json!([]) {
            own[key] = rule[key].clone();
        }
    }
    own
}
