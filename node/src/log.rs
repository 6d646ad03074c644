//! One JSON line per operation, appended to a file when the operator asked for it; nothing otherwise.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

/// Appends `fields` with the time, in milliseconds since the epoch, to `path`. A log that cannot be written never fails the operation:
/// the pod's network is worth more than its log line.
pub fn append(path: &Path, fields: Map<String, Value>) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    let mut line = Map::new();
    line.insert("time".into(), Value::from(now));
    line.extend(fields);
    let mut bytes = Value::Object(line).to_string().into_bytes();
    bytes.push(b'\n');
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path);
    if let Ok(mut file) = file {
        // One write call keeps lines of concurrent calls whole (O_APPEND).
        let _ = file.write_all(&bytes);
    }
}
