//! Reads a JSON object key by key and remembers what it was asked for, so that every mistake has its
//! place and every unknown key a suggestion.

use std::fmt::Display;
use std::str::FromStr;

use serde_json::{Map, Value};

/// One mistake in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `ipam.ranges[0][0].subnet`; empty for the whole document.
    pub at: String,
    /// What is wrong, one line.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
    /// Whether the key itself is not supported (CNI code 2) rather than its value wrong (code 7).
    pub unsupported: bool,
}

/// An object being read. Dropping it without [`Reader::finish`] leaves unknown keys unreported.
#[derive(Debug)]
pub struct Reader<'a> {
    at: String,
    object: Option<&'a Map<String, Value>>,
    known: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    /// Starts on `value`, which stands at `at`; anything but an object is a problem and reads as empty.
    pub fn new(value: &'a Value, at: &str, problems: &mut Vec<Problem>) -> Self {
        let object = value.as_object();
        if object.is_none() {
            problems.push(Problem::wrong(at, format!("is {}, not an object", kind_of(value))));
        }
        Self { at: at.to_owned(), object, known: Vec::new() }
    }

    /// The place of `key`.
    pub fn place(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }

    /// Names keys that may stand here and are read elsewhere or not at all.
    pub fn allow(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
    }

    /// The raw value of `key`; JSON null counts as absent, as it does for the reference.
    pub fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.object.and_then(|o| o.get(key)).filter(|v| !v.is_null())
    }

    /// A boolean.
    pub fn bool(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Option<bool> {
        self.typed(key, "true or false", problems, Value::as_bool)
    }

    /// A whole number from 0 to `most`.
    pub fn number(&mut self, key: &'static str, most: u32, problems: &mut Vec<Problem>) -> Option<u32> {
        let what = format!("a whole number from 0 to {most}");
        self.typed(key, &what, problems, |v| {
            v.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= most)
        })
    }

    /// A string; an empty one counts as absent, as it does for the reference.
    pub fn string(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Option<&'a str> {
        self.typed(key, "a string", problems, Value::as_str).filter(|s| !s.is_empty())
    }

    /// A string that parses as `T`; `shape` is what to write instead ("an address such as 10.1.0.1").
    pub fn parsed<T>(&mut self, key: &'static str, shape: &str, problems: &mut Vec<Problem>) -> Option<T>
    where
        T: FromStr<Err: Display>,
    {
        let text = self.string(key, problems)?;
        parse_at(text, &self.place(key), shape, problems)
    }

    /// A list, each element with its place.
    pub fn list(
        &mut self,
        key: &'static str,
        problems: &mut Vec<Problem>,
    ) -> Option<Vec<(String, &'a Value)>> {
        let place = self.place(key);
        let items = self.typed(key, "a list", problems, Value::as_array)?;
        Some(items.iter().enumerate().map(|(i, v)| (format!("{place}[{i}]"), v)).collect())
    }

    /// A list of strings.
    pub fn strings(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Vec<String> {
        let mut out = Vec::new();
        for (place, value) in self.list(key, problems).unwrap_or_default() {
            match value.as_str() {
                Some(text) => out.push(text.to_owned()),
                None => problems.push(Problem::wrong(&place, format!("is {}, not a string", kind_of(value)))),
            }
        }
        out
    }

    /// A list of strings that each parse as `T`.
    pub fn parsed_list<T>(&mut self, key: &'static str, shape: &str, problems: &mut Vec<Problem>) -> Vec<T>
    where
        T: FromStr<Err: Display>,
    {
        let place = self.place(key);
        let texts = self.strings(key, problems);
        let each = texts.iter().enumerate();
        each.filter_map(|(i, text)| parse_at(text, &format!("{place}[{i}]"), shape, problems)).collect()
    }

    /// Reports every key that nobody asked for, with the nearest known one as the suggestion.
    pub fn finish(self, problems: &mut Vec<Problem>) {
        let keys = self.object.into_iter().flat_map(Map::iter);
        for (key, value) in keys.filter(|(k, _)| !self.known.contains(&k.as_str())) {
            problems.push(Problem {
                at: self.place(key),
                what: format!("is not a key that nodeplug-cni knows (its value is {})", shortened(value)),
                hint: Some(suggestion(key, &self.known)),
                unsupported: true,
            });
        }
    }

    fn typed<T>(
        &mut self,
        key: &'static str,
        what: &str,
        problems: &mut Vec<Problem>,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let found = read(value);
        if found.is_none() {
            problems.push(Problem::wrong(&self.place(key), format!("is {}, not {what}", shortened(value))));
        }
        found
    }
}

impl Problem {
    /// A wrong value at `at`.
    pub fn wrong(at: &str, what: impl Into<String>) -> Self {
        Self { at: at.to_owned(), what: what.into(), hint: None, unsupported: false }
    }

    /// A key that the reference has and this program refuses.
    pub fn unsupported(at: &str, what: impl Into<String>) -> Self {
        Self { at: at.to_owned(), what: what.into(), hint: None, unsupported: true }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

fn parse_at<T>(text: &str, place: &str, shape: &str, problems: &mut Vec<Problem>) -> Option<T>
where
    T: FromStr<Err: Display>,
{
    match text.parse() {
        Ok(value) => Some(value),
        Err(why) => {
            problems.push(Problem::wrong(place, format!("`{text}` is not {shape} ({why})")));
            None
        }
    }
}

fn suggestion(key: &str, known: &[&'static str]) -> String {
    // The same word in another case, or one within a third of its length, is a slip of the pen.
    let near = known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(&k.to_lowercase(), &key.to_lowercase()), k))
        .filter(|(distance, k)| *distance <= k.len().max(key.len()) / 3)
        .min();
    if let Some((_, name)) = near {
        return format!("did you mean `{name}`?");
    }
    let mut names = known.to_vec();
    names.sort_unstable();
    names.dedup();
    format!("known here: {}", names.join(", "))
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value as it stands, cut so that an error line stays a line.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    let mut cut: String = text.chars().take(60).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    format!("`{cut}`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_mistake_has_its_place_and_a_suggestion() {
        let value = json!({"subnet": 7, "rangestart": "10.0.0.1", "mtu": 70000, "list": ["a", 1]});
        let mut problems = Vec::new();
        let mut reader = Reader::new(&value, "ipam", &mut problems);
        assert_eq!(reader.string("subnet", &mut problems), None);
        assert_eq!(reader.number("mtu", 65535, &mut problems), None);
        assert_eq!(reader.strings("list", &mut problems), ["a"]);
        reader.allow(&["rangeStart"]);
        reader.finish(&mut problems);
        let lines: Vec<_> = problems.iter().map(|p| format!("{}: {}", p.at, p.what)).collect();
        assert_eq!(
            lines,
            [
                "ipam.subnet: is `7`, not a string",
                "ipam.mtu: is `70000`, not a whole number from 0 to 65535",
                "ipam.list[1]: is a number, not a string",
                "ipam.rangestart: is not a key that nodeplug-cni knows (its value is `\"10.0.0.1\"`)",
            ]
        );
        assert_eq!(problems.last().unwrap().hint.as_deref(), Some("did you mean `rangeStart`?"));
    }
}
