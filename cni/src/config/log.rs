//! Where the network's log goes: `logFile` and `logMaxSize`, under every name of the program.

use node::log::{LEAST, Log, Place};
use node::quantity::Quantity;
use serde_json::Value;

use crate::config::reader::{Problem, Reader};

/// The file in the folder of this project's logs, where the configuration names none.
pub const FILE: &str = "cni.log";

/// The network's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetLog {
    /// Where lines go.
    pub log: Log,
    /// Whether the configuration says so: then calls that are no news are logged, too.
    pub is_named: bool,
}

impl Default for NetLog {
    fn default() -> Self {
        Self { log: Log::usual(FILE), is_named: false }
    }
}

impl NetLog {
    /// What a configuration that is refused says about it: why it is refused is news.
    pub fn salvaged(stdin: &[u8]) -> Self {
        let value: Option<Value> = serde_json::from_slice(stdin).ok();
        let mut problems = Vec::new();
        value
            .map(|value| read(&mut Reader::new(&value, "", &mut problems), &mut Vec::new()))
            .unwrap_or_default()
    }
}

pub(super) fn read(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> NetLog {
    let mut read = NetLog::default();
    if let Some(text) = reader.string("logFile", problems) {
        match text.parse::<Place>() {
            Ok(place) => (read.log.place, read.is_named) = (place, true),
            Err(why) => problems.push(
                Problem::wrong(&reader.place("logFile"), format!("is `{text}`, {why}"))
                    .hint("write a path from `/` on, `journal`, or `none`"),
            ),
        }
    }
    let Some(value) = reader.value("logMaxSize") else { return read };
    let size = match value {
        Value::Number(number) => number.as_u64().ok_or_else(|| "is no number of bytes".to_owned()),
        Value::String(text) => text.parse::<Quantity>().map(Quantity::bytes),
        _ => Err("is not a size, such as 8Mi".to_owned()),
    };
    match size {
        Ok(bytes) if bytes >= LEAST => read.log.most = bytes,
        Ok(bytes) => {
            let what = format!("is {bytes} bytes, and {} are the least", Quantity::of(LEAST));
            let hint = "write a size such as 8Mi; `\"logFile\": \"none\"` keeps no log";
            problems.push(Problem::wrong(&reader.place("logMaxSize"), what).hint(hint));
        }
        Err(why) => problems.push(Problem::wrong(&reader.place("logMaxSize"), format!("{value} {why}"))),
    }
    read
}
