//! A line: what happened to whom, how long it took, what went wrong. One JSON object, bounded, on one line
//! whatever a pod's author wrote.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::Context;
use crate::times::Lap;
use crate::{Error, Kind};

/// The longest error, and the longest of any other text.
const LONGEST_ERROR: usize = 2048;
const LONGEST: usize = 512;

/// The most parts of a list.
const MOST_PARTS: usize = 16;

/// A line in the making. Keys are in the order in which they were put.
#[derive(Debug, Clone)]
pub struct Line {
    fields: Map<String, Value>,
}

impl Line {
    /// The line of a call that ends now.
    pub fn new(verb: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        let mut line = Self { fields: Map::new() };
        line.put("time", now);
        line.text_of("verb", verb, LONGEST);
        line.put("version", env!("CARGO_PKG_VERSION"));
        line
    }

    /// Puts a value that is bounded already.
    pub fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.fields.insert(key.to_owned(), value.into());
    }

    /// The line without its end.
    pub fn text(&self) -> String {
        // A map of strings and numbers always has a JSON form.
        serde_json::to_string(&self.fields).unwrap_or_default()
    }

    /// Puts a text of at most `most` bytes, on one line; nothing where it is empty.
    pub fn text_of(&mut self, key: &str, text: &str, most: usize) {
        if !text.is_empty() {
            self.put(key, cut(text, most));
        }
    }

    /// Puts a text where there is one.
    pub fn maybe(&mut self, key: &str, text: Option<&str>) {
        self.text_of(key, text.unwrap_or_default(), LONGEST);
    }

    /// Puts a list of texts; nothing where it is empty.
    pub fn list<T: AsRef<str>>(&mut self, key: &str, texts: impl IntoIterator<Item = T>) {
        let mut texts = texts.into_iter();
        let mut list: Vec<Value> =
            texts.by_ref().take(MOST_PARTS).map(|t| cut(t.as_ref(), LONGEST / 2).into()).collect();
        let more = texts.count();
        if more > 0 {
            list.push(format!("and {more} more").into());
        }
        if !list.is_empty() {
            self.put(key, list);
        }
    }

    /// Puts what went wrong: `errorKind`, `error`, `hint`.
    pub fn error(&mut self, error: &Error) {
        let kind: Kind = error.kind();
        self.put("errorKind", kind.name());
        self.text_of("error", &error.chain(), LONGEST_ERROR);
        self.text_of("hint", error.advice().unwrap_or_default(), LONGEST_ERROR / 2);
    }

    /// Puts where the time went: `[{"step": …, "us": …}]`.
    pub fn steps(&mut self, laps: &[Lap]) {
        let steps = laps.iter().map(|lap| {
            let took = u64::try_from(lap.took.as_micros()).unwrap_or(u64::MAX);
            json!({"step": lap.what, "us": took})
        });
        let steps: Vec<Value> = steps.collect();
        if !steps.is_empty() {
            self.put("steps", steps);
        }
    }

    /// Puts the caller's trace: `traceID`, `parentSpan`, `tracestate`.
    pub fn context(&mut self, context: Option<Context>) {
        let Some(context) = context else { return };
        self.put("traceID", context.trace);
        self.put("parentSpan", context.parent);
        self.text_of("tracestate", context.state.as_deref().unwrap_or_default(), LONGEST);
    }

    /// Whether it has this key.
    pub fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// The keys whose values are a text or a number.
    pub fn scalars(&self) -> impl Iterator<Item = (&str, String)> {
        self.fields.iter().filter_map(|(key, value)| match value {
            Value::String(text) => Some((key.as_str(), text.clone())),
            Value::Number(number) => Some((key.as_str(), number.to_string())),
            _ => None,
        })
    }

    /// The line with its end, as a file has it.
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = self.text();
        text.push('\n');
        text.into_bytes()
    }

    /// The line as a person reads it in the journal: `ADD default/web: 10.88.0.2/32, 2178 µs`.
    pub fn message(&self) -> String {
        let text = |key: &str| self.fields.get(key).and_then(Value::as_str);
        let whose =
            ["pod", "podUID", "containerID", "network"].into_iter().find_map(text).unwrap_or("the node");
        let mut parts = Vec::new();
        if let Some(error) = text("error") {
            parts.push(error.to_owned());
            parts.extend(text("hint").map(str::to_owned));
        } else {
            let ips = self.fields.get("ips").and_then(Value::as_array).into_iter().flatten();
            parts.extend(ips.filter_map(Value::as_str).map(str::to_owned));
            parts.extend(text("volume").map(|v| format!("volume {v}")));
            let took = self.fields.get("microseconds").and_then(Value::as_u64);
            parts.extend(took.map(|us| format!("{us} µs")));
        }
        let separator = if self.has("error") { "; " } else { ", " };
        format!("{} {whose}: {}", text("verb").unwrap_or_default(), parts.join(separator))
    }
}

/// The two ends of a text that is longer than `most` bytes, on one line.
pub fn cut(text: &str, most: usize) -> String {
    let plain = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    if text.len() <= most {
        return plain(text);
    }
    let half = most.saturating_sub('…'.len_utf8()) / 2;
    let head = text.get(..text.floor_char_boundary(half)).unwrap_or_default();
    let tail = text.get(text.ceil_char_boundary(text.len() - half)..).unwrap_or_default();
    plain(&format!("{head}…{tail}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_is_one_and_bounded_whatever_was_written() {
        let long = "\"\\\n\u{1b}é".repeat(100_000);
        let mut line = Line::new(&long);
        line.maybe("pod", Some(&long));
        line.maybe("nothing", None);
        line.list("notes", vec![long.clone(); 100]);
        line.error(&Error::caused(Kind::Kernel, long.clone(), long.clone()).hint(long.clone()));
        line.steps(&vec![Lap { what: "step".into(), took: Duration::from_micros(7) }; 32]);
        let bytes = line.bytes();
        assert!(bytes.len() < 24 << 10, "{}", bytes.len());
        assert_eq!(String::from_utf8_lossy(&bytes).matches('\n').count(), 1);
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["errorKind"], "kernel");
        assert_eq!(value["notes"][16], "and 84 more");
        assert_eq!(value["steps"][0], json!({"step": "step", "us": 7}));
        assert!(value.get("nothing").is_none());
        assert!(!line.message().contains('\n'));
    }

    #[test]
    fn the_message_says_what_came_of_it() {
        let mut line = Line::new("ADD");
        line.maybe("pod", Some("a/b"));
        line.put("microseconds", 5);
        line.list("ips", ["10.0.0.2/32"]);
        assert_eq!(line.message(), "ADD a/b: 10.0.0.2/32, 5 µs");
        line.error(&Error::new(Kind::Io, "read `x`").hint("write it"));
        assert_eq!(line.message(), "ADD a/b: read `x`; write it");
    }

    #[test]
    fn a_cut_text_keeps_its_ends() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("a\tbcdefghij", 7), "a ij…".replace(" ij…", " …ij"));
        assert!(cut(&"é".repeat(100), 21).len() <= 21);
    }
}
