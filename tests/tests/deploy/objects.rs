//! Kubernetes' own types over what is written in YAML.
//!
//! The types drop what they do not know. So what was written and is not there after a round trip is misspelt, or in a
//! place where it means nothing.

use k8s_openapi::List;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount,
};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde_json::{Value, json};

/// An object of the kinds that there are in this repository.
#[derive(Debug, Clone)]
pub enum Object {
    ClusterRole(ClusterRole),
    ClusterRoleBinding(ClusterRoleBinding),
    ConfigMap(ConfigMap),
    DaemonSet(Box<DaemonSet>),
    Nodes(List<Node>),
    Pod(Box<Pod>),
    Claim(Box<PersistentVolumeClaim>),
    Volume(Box<PersistentVolume>),
    ServiceAccount(ServiceAccount),
}

impl Object {
    /// The object that is written there, with everything that is written there.
    pub fn read(written: &Value) -> Result<Self, String> {
        let kind = written["kind"].as_str().unwrap_or_default();
        match kind {
            "ClusterRole" => whole(written).map(Self::ClusterRole),
            "ClusterRoleBinding" => whole(written).map(Self::ClusterRoleBinding),
            "ConfigMap" => whole(written).map(Self::ConfigMap),
            "DaemonSet" => whole(written).map(|set| Self::DaemonSet(Box::new(set))),
            "NodeList" => whole(written).map(Self::Nodes),
            "PersistentVolume" => whole(written).map(|volume| Self::Volume(Box::new(volume))),
            "PersistentVolumeClaim" => whole(written).map(|claim| Self::Claim(Box::new(claim))),
            "Pod" => whole(written).map(|pod| Self::Pod(Box::new(pod))),
            "ServiceAccount" => whole(written).map(Self::ServiceAccount),
            _ => Err(format!("the kind `{kind}` is not known here: add its type")),
        }
    }

    /// Its kind, namespace and name.
    pub fn identity(&self) -> (&'static str, Option<String>, String) {
        let (kind, meta) = match self {
            Self::ClusterRole(o) => ("ClusterRole", &o.metadata),
            Self::ClusterRoleBinding(o) => ("ClusterRoleBinding", &o.metadata),
            Self::ConfigMap(o) => ("ConfigMap", &o.metadata),
            Self::DaemonSet(o) => ("DaemonSet", &o.metadata),
            Self::Nodes(_) => return ("NodeList", None, String::new()),
            Self::Pod(o) => ("Pod", &o.metadata),
            Self::Claim(o) => ("PersistentVolumeClaim", &o.metadata),
            Self::Volume(o) => ("PersistentVolume", &o.metadata),
            Self::ServiceAccount(o) => ("ServiceAccount", &o.metadata),
        };
        (kind, meta.namespace.clone(), meta.name.clone().unwrap_or_default())
    }
}

/// The typed object, where nothing is lost.
fn whole<T: serde::Serialize + serde::de::DeserializeOwned>(written: &Value) -> Result<T, String> {
    let typed: T = serde_json::from_value(written.clone()).map_err(|e| e.to_string())?;
    let kept = serde_json::to_value(&typed).map_err(|e| e.to_string())?;
    let mut missing = Vec::new();
    lost(written, &kept, "", &mut missing);
    if missing.is_empty() {
        Ok(typed)
    } else {
        Err(format!("not in Kubernetes' types: {}", missing.join(", ")))
    }
}

/// The pointers of what is in `written` and not in `kept`.
fn lost(written: &Value, kept: &Value, at: &str, missing: &mut Vec<String>) {
    match (written, kept) {
        (Value::Object(of), Value::Object(other)) => {
            for (key, value) in of {
                let at = format!("{at}/{key}");
                match other.get(key) {
                    Some(kept) => lost(value, kept, &at, missing),
                    None => missing.push(at),
                }
            }
        }
        (Value::Array(of), Value::Array(other)) if of.len() == other.len() => {
            for (n, (value, kept)) in of.iter().zip(other).enumerate() {
                lost(value, kept, &format!("{at}/{n}"), missing);
            }
        }
        _ if written == kept => {}
        // A quantity may be written as a number, and is a text.
        (Value::Number(number), Value::String(text)) if number.to_string() == *text => {}
        _ => missing.push(at.to_owned()),
    }
}

/// What the round trip finds is told with its place.
pub fn a_misspelt_key_is_found() {
    let written = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "x"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"spec": {
                "hostNetwrok": true,
                "containers": [{"name": "c", "securityContext": {"readOnlyRootFileSystem": true}}],
            }},
        },
    });
    let error = Object::read(&written).unwrap_err();
    for place in [
        "/spec/template/spec/hostNetwrok",
        "/spec/template/spec/containers/0/securityContext/readOnlyRootFileSystem",
    ] {
        assert!(error.contains(place), "{error}");
    }
    let wrong = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": ["x"]}});
    Object::read(&wrong).unwrap_err();
    let version = json!({"apiVersion": "apps/v2", "kind": "DaemonSet", "metadata": {"name": "x"}});
    Object::read(&version).unwrap_err();
}
