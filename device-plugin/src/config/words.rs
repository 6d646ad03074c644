//! The small types of the configuration: each is checked when it is read.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Reads and shows a checked text by its `FromStr` and `Display`.
macro_rules! word {
    ($name:ident, $title:literal, $pattern:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(D::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "title": $title, "pattern": $pattern})
            }
        }
    };
}

pub(super) use word;

/// A shell pattern: `*`, `?`, `[a-z]`; `**` is any number of folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(glob::Pattern);

word!(Glob, "a shell pattern", "^.+$");

impl Glob {
    /// Whether the whole text matches; `*` matches everything but `/` where `text` is a path.
    pub fn matches(&self, text: &str) -> bool {
        self.0.matches(text)
    }

    /// Whether the whole path matches, component by component.
    pub fn matches_path(&self, path: &str) -> bool {
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        self.0.matches_with(path, options)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl FromStr for Glob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a shell pattern is empty; write `*` for anything".to_owned());
        }
        glob::Pattern::new(text).map(Self).map_err(|e| format!("`{text}` is no shell pattern: {e}"))
    }
}

/// A regular expression for a whole text.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    compiled: regex_lite::Regex,
}

word!(Pattern, "a regular expression", "^.+$");

impl Pattern {
    /// Whether the whole text matches.
    pub fn matches(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same pattern for any part of a text.
    #[must_use]
    pub fn anywhere(&self) -> Self {
        let compiled = regex_lite::Regex::new(&self.text).unwrap_or_else(|_| self.compiled.clone());
        Self { text: self.text.clone(), compiled }
    }

    /// What each match begins with, where that is known and is no `/`: then no whole path matches. Only plain patterns
    /// are understood, without groups and classes; of several alternatives, the first such one is told.
    pub fn relative(&self) -> Option<&str> {
        if self.text.contains(['(', '[']) {
            return None;
        }
        self.text.split('|').find(|text| {
            let mut rest = text.strip_prefix('^').unwrap_or(text).chars();
            let first = rest.next().filter(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
            // It may be there no time at all.
            first.is_some() && !matches!(rest.next(), Some('?' | '*' | '{'))
        })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a regular expression is empty; write `.*` for anything".to_owned());
        }
        // By itself, too: `a)|(b` would be one only with what is put around it.
        regex_lite::Regex::new(text).map_err(|e| format!("`{text}` is no regular expression: {e}"))?;
        let compiled = regex_lite::Regex::new(&format!("^(?:{text})$"))
            .map_err(|e| format!("`{text}` is no regular expression: {e}"))?;
        Ok(Self { text: text.to_owned(), compiled })
    }
}

/// A length of time: `500ms`, `30s`, `5m`, `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

word!(Span, "a length of time: 500ms, 30s, 5m, 1h", "^[0-9]+(ms|s|m|h)$");

impl Span {
    /// So many seconds.
    pub const fn seconds(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }

    /// So many milliseconds.
    pub const fn millis(count: u64) -> Self {
        Self(Duration::from_millis(count))
    }

    /// As the standard library has it.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        for (unit, long) in [("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
            if millis.is_multiple_of(long) && (millis > 0 || unit == "s") {
                return write!(f, "{}{unit}", millis / long);
            }
        }
        write!(f, "{millis}ms")
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no length of time: write `500ms`, `30s`, `5m` or `1h`");
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (count, unit) = text.split_at(digits);
        let long = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let count: u64 = count.parse().map_err(|_| wrong())?;
        count.checked_mul(long).map(|millis| Self(Duration::from_millis(millis))).ok_or_else(wrong)
    }
}

/// A size as Kubernetes writes it: `512`, `64Ki`, `1Gi`, `2G`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(u64);

word!(Quantity, "a size: 512, 64Ki, 1Gi, 2G", "^[0-9]+(k|M|G|T|Ki|Mi|Gi|Ti)?$");

impl Quantity {
    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, size) in [("Ti", 1_u64 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)] {
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl FromStr for Quantity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no size: write `512`, `64Ki`, `1Gi` or `2G`");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (count, unit) = text.split_at(digits);
        let size = match unit {
            "" => 1,
            "k" => 1000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            "T" => 1_000_000_000_000,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            "Ti" => 1 << 40,
            _ => return Err(wrong()),
        };
        let count: u64 = count.parse().map_err(|_| wrong())?;
        count.checked_mul(size).map(Self).ok_or_else(wrong)
    }
}

/// `N` hexadecimal digits, as `lsusb` and `lspci` print them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hex<const N: usize>(String);

impl<const N: usize> Hex<N> {
    /// In lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const N: usize> FromStr for Hex<N> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0x").unwrap_or(text).to_ascii_lowercase();
        if digits.len() != N || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("`{text}` is not {N} hexadecimal digits, in quotes"));
        }
        Ok(Self(digits))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<const N: usize> JsonSchema for Hex<N> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Hex{N}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": format!("^(0x)?[0-9a-fA-F]{{{N}}}$")})
    }
}

/// What a container may do with a device node: some of `r`, `w` and `m`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions(String);

word!(Permissions, "some of r, w and m", "^(r|w|m|rw|wr|rm|mr|wm|mw|rwm|rmw|wrm|wmr|mrw|mwr)$");

impl Permissions {
    /// As the kubelet takes them.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a container may write.
    pub fn write(&self) -> bool {
        self.0.contains('w')
    }

    /// What either of them allows.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self("rwm".chars().filter(|c| self.0.contains(*c) || other.0.contains(*c)).collect())
    }
}

impl Default for Permissions {
    fn default() -> Self {
        Self("rw".to_owned())
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Permissions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ordered: String = "rwm".chars().filter(|c| text.contains(*c)).collect();
        if ordered.is_empty() || ordered.len() != text.len() {
            return Err(format!("`{text}` is not some of `r`, `w` and `m`"));
        }
        Ok(Self(ordered))
    }
}

/// The permission bits of a file, in octal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(u32);

word!(FileMode, "octal permission bits: 0660", "^0?[0-7]{3}$");

impl FileMode {
    /// As the kernel has them.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl FromStr for FileMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no file mode: write three octal digits in quotes, such as \"0660\"");
        let digits = if text.len() == 4 { text.strip_prefix('0').ok_or_else(wrong)? } else { text };
        if digits.len() != 3 || !digits.bytes().all(|b| (b'0'..=b'7').contains(&b)) {
            return Err(wrong());
        }
        u32::from_str_radix(digits, 8).map(Self).map_err(|_| wrong())
    }
}
