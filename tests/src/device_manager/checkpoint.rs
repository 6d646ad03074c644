//! `kubelet_internal_checkpoint`: what the kubelet knows of devices after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use proto::deviceplugin::{ContainerAllocateResponse, DevicePluginOptions};
use serde_json::{Value, json};

use super::memory::{Endpoint, Held, Memory, Offer};

/// Its name, beside kubelet.sock.
pub const NAME: &str = "kubelet_internal_checkpoint";

/// Written anew at each list and each allocation, and put in place by a rename.
pub(super) fn write(folder: &Path, memory: &Memory) {
    let entries: Vec<Value> = memory.held.iter().flat_map(|(place, all)| entries(place, all)).collect();
    let registered: BTreeMap<&String, &BTreeSet<String>> =
        memory.offers.iter().map(|(name, offer)| (name, &offer.healthy)).collect();
    let data = json!({"PodDeviceEntries": entries, "RegisteredDevices": registered});
    let checksum = checksum(&data.to_string());
    let text = json!({"Data": data, "Checksum": checksum}).to_string();
    // A folder that is gone is a kubelet that could not write: it logs and goes on.
    let hidden = folder.join(format!(".{NAME}"));
    drop(fs::write(&hidden, text).and_then(|()| fs::rename(&hidden, folder.join(NAME))));
}

fn entries(place: &(String, String), all: &BTreeMap<String, Held>) -> Vec<Value> {
    let entry = |(resource, held): (&String, &Held)| {
        let numa: BTreeMap<String, &BTreeSet<String>> =
            held.devices.iter().map(|(node, ids)| (node.to_string(), ids)).collect();
        json!({
            "PodUID": place.0, "ContainerName": place.1, "ResourceName": resource,
            "DeviceIDs": numa, "AllocResp": STANDARD.encode(held.answer.encode_to_vec()),
        })
    };
    all.iter().map(entry).collect()
}

/// Who holds what comes back; resources come back by name alone, without a device and with a stopped endpoint.
pub(super) fn read(folder: &Path) -> Option<Memory> {
    let text = fs::read_to_string(folder.join(NAME)).ok()?;
    let all: Value = serde_json::from_str(&text).expect("a checkpoint that was written whole");
    assert_eq!(all["Checksum"], checksum(&all["Data"].to_string()), "the checkpoint is corrupt");
    let mut memory = Memory::default();
    for (resource, _) in all["Data"]["RegisteredDevices"].as_object()? {
        memory.offers.insert(resource.clone(), Offer::default());
        let (options, stopped) = (DevicePluginOptions::default(), Some(Instant::now()));
        memory.endpoints.insert(resource.clone(), Endpoint { client: None, options, stopped });
    }
    for entry in all["Data"]["PodDeviceEntries"].as_array()? {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let answer = STANDARD.decode(text("AllocResp")).expect("base64");
        let answer = ContainerAllocateResponse::decode(answer.as_slice()).expect("an answer of Allocate");
        let held = Held { devices: numa(&entry["DeviceIDs"]), answer };
        let place = (text("PodUID"), text("ContainerName"));
        memory.held.entry(place).or_default().insert(text("ResourceName"), held);
    }
    memory.count_taken();
    Some(memory)
}

fn numa(nodes: &Value) -> BTreeMap<i64, BTreeSet<String>> {
    let ids = |ids: &Value| {
        let ids = ids.as_array().into_iter().flatten();
        ids.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let nodes = nodes.as_object().into_iter().flatten();
    nodes.map(|(node, all)| (node.parse().expect("a node's number"), ids(all))).collect()
}

/// FNV-1a of the data: the kubelet's own is of Go's print of it, and nobody else's to compare.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
