//! The YAML of the repository, as it is written and as kubectl renders it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::call;
use serde_json::Value;

/// The folders that an operator applies; the root's kustomization has the first three.
pub const FOLDERS: [&str; 4] = ["cni/deploy", "flexvolume/deploy", "device-plugin/deploy", "cni/deploy-file"];
/// Folders that are `cni/deploy` but for what their kustomization replaces, for nodes that differ.
pub const OVERLAYS: [&str; 2] = ["cni/deploy-debian", "cni/deploy-k3s"];
/// What needs definitions that not every cluster has, and is in no kustomization.
pub const BESIDE: [&str; 1] = ["podmonitor.yaml"];
/// The first kubectl whose kustomize takes folders for resources.
const TAKES_FOLDERS: u64 = 21;

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

pub fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The documents of a text.
pub fn documents(what: &str, text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|e| panic!("{what}: {e}"))
}

/// What stands between the fences of `yaml` in a page and is an object.
pub fn of_page(page: &str) -> Vec<Value> {
    let page = text(page);
    let blocks = page.split("\n```yaml\n").skip(1).map(|rest| rest.split("\n```").next().unwrap_or_default());
    blocks.flat_map(|block| documents(block, block)).filter(|document| document["kind"].is_string()).collect()
}

/// The names of a folder's YAML.
pub fn files(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> =
        names.filter(|name| name.rsplit_once('.').is_some_and(|(_, ending)| ending == "yaml")).collect();
    names.sort();
    names
}

pub fn kustomization(folder: &str) -> Value {
    documents(folder, &text(&format!("{folder}/kustomization.yaml"))).remove(0)
}

/// The words of a list.
pub fn words(list: &Value) -> Vec<&str> {
    list.as_array().map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

/// The objects that a folder's kustomization names, as they are written.
pub fn written(folder: &str) -> Vec<Value> {
    let kustomization = kustomization(folder);
    let names = words(&kustomization["resources"]).into_iter().map(str::to_owned);
    names.flat_map(|name| documents(&name, &text(&format!("{folder}/{name}")))).collect()
}

/// The same as `kubectl apply -k` sends them.
pub fn rendered(folder: &str) -> Vec<Value> {
    let answer = kubectl(&["kustomize", root().join(folder).to_str().expect("a path")]);
    documents(folder, &answer)
}

/// What `kubectl apply -k .` sends. A kubectl that is older than folders among resources gets them one by one.
pub fn rendered_root() -> Vec<Value> {
    if takes_folders() {
        return rendered(".");
    }
    words(&kustomization(".")["resources"]).into_iter().flat_map(rendered).collect()
}

pub fn takes_folders() -> bool {
    let version: Value =
        serde_json::from_str(&kubectl(&["version", "--client", "-o", "json"])).expect("a version");
    let digits = |text: &str| text.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap_or(0);
    digits(version["clientVersion"]["minor"].as_str().expect("a minor version")) >= TAKES_FOLDERS
}

/// The objects of an overlay: those of the folder that it lies over, with its patches (RFC 6902, of which `test` and
/// `replace` are used).
pub fn overlaid(overlay: &str) -> Vec<Value> {
    let kustomization = kustomization(overlay);
    let [base] = words(&kustomization["resources"])[..] else { panic!("{overlay} lies over several") };
    let mut objects =
        written(base.strip_prefix("../").map(|name| format!("cni/{name}")).expect("a base").as_str());
    for patch in kustomization["patches"].as_array().expect("patches") {
        let target = &patch["target"];
        let is_meant = |object: &&mut Value| {
            object["kind"] == target["kind"] && object["metadata"]["name"] == target["name"]
        };
        let object = objects.iter_mut().find(is_meant).unwrap_or_else(|| panic!("{overlay}: no {target}"));
        for step in
            documents(overlay, patch["patch"].as_str().expect("a patch")).remove(0).as_array().expect("steps")
        {
            let place = object.pointer_mut(step["path"].as_str().expect("a path")).expect("a place");
            match step["op"].as_str() {
                Some("test") => assert_eq!(*place, step["value"], "{overlay}: {step}"),
                Some("replace") => *place = step["value"].clone(),
                other => panic!("{overlay}: {other:?}"),
            }
        }
    }
    objects
}

fn kubectl(words: &[&str]) -> String {
    let answer = call::run(Command::new("kubectl").args(words), b"");
    assert!(answer.ok(), "kubectl {words:?}: {answer:?}");
    answer.stdout
}
