//! `CNI_ARGS`: `KEY=VALUE` pairs with `;` between them, in any order.

use std::fmt::Display;
use std::str::FromStr;

use crate::config::wanted::{Asked, IP_SHAPE, MAC_SHAPE};
use crate::name::shown;

/// What `CNI_ARGS` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args {
    /// `K8S_POD_NAMESPACE`.
    pub pod_namespace: Option<String>,
    /// `K8S_POD_NAME`.
    pub pod_name: Option<String>,
    /// `K8S_POD_UID`.
    pub pod_uid: Option<String>,
    /// `K8S_POD_INFRA_CONTAINER_ID`.
    pub infra_container_id: Option<String>,
    /// `IP` (one or several, with commas between them) and `MAC`.
    pub asked: Asked,
}

impl Args {
    /// The pod as `namespace/name`, where both are known.
    pub fn pod(&self) -> Option<String> {
        Some(format!("{}/{}", self.pod_namespace.as_ref()?, self.pod_name.as_ref()?))
    }

    /// Reads `text`; what does not read is left out and told. An unknown key is a complaint unless
    /// `IgnoreUnknown` is on, wherever it stands.
    pub(crate) fn read(text: &str) -> (Self, Vec<String>) {
        let mut args = Self::default();
        let mut complaints = Vec::new();
        let mut unknown = Vec::new();
        let mut ignore = false;
        // An empty stretch, as after a last `;`, says nothing.
        for pair in text.split(';').filter(|p| !p.is_empty()) {
            let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                complaints.push(format!("holds {}, which is not `KEY=VALUE`", shown(pair)));
                continue;
            };
            match key {
                "IgnoreUnknown" => match value.to_ascii_lowercase().as_str() {
                    "1" | "t" | "true" => ignore = true,
                    "0" | "f" | "false" => ignore = false,
                    _ => complaints.push(format!("holds IgnoreUnknown={}, not true or false", shown(value))),
                },
                _ if !args.take(key, value, &mut complaints) => unknown.push(shown(key)),
                _ => {}
            }
        }
        if !ignore && !unknown.is_empty() {
            complaints.push(format!("holds keys that are not known here: {}", unknown.join(", ")));
        }
        (args, complaints)
    }

    /// Takes a known key; `false` for another.
    fn take(&mut self, key: &str, value: &str, complaints: &mut Vec<String>) -> bool {
        let text = Some(value.to_owned()).filter(|v| !v.is_empty());
        match key {
            "K8S_POD_NAMESPACE" => self.pod_namespace = text,
            "K8S_POD_NAME" => self.pod_name = text,
            "K8S_POD_UID" => self.pod_uid = text,
            "K8S_POD_INFRA_CONTAINER_ID" => self.infra_container_id = text,
            "IP" => {
                let each = value.split(',').filter(|v| !v.is_empty());
                self.asked.ips = each.filter_map(|v| parsed(key, v, IP_SHAPE, complaints)).collect();
            }
            "MAC" => self.asked.mac = text.and_then(|v| parsed(key, &v, MAC_SHAPE, complaints)),
            _ => return false,
        }
        true
    }
}

fn parsed<T: FromStr<Err: Display>>(
    key: &str,
    value: &str,
    shape: &str,
    complaints: &mut Vec<String>,
) -> Option<T> {
    let result = value.parse::<T>();
    result.map_err(|why| complaints.push(format!("holds {key}={}, not {shape} ({why})", shown(value)))).ok()
}
