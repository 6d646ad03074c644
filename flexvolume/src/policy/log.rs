//! Where the driver's log goes, as the policy says it.

use std::borrow::Cow;
use std::fmt;

use node::log::{LEAST, Log, Place};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Policy;
use crate::options::{Quantity, quoted};

/// The file in the folder of this project's logs.
pub const FILE: &str = "flexvolume.log";

/// A log's place in YAML and in the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile(Place);

impl Default for LogFile {
    fn default() -> Self {
        Self(Log::usual(FILE).place)
    }
}

impl fmt::Display for LogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for LogFile {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LogFile {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let place =
            text.parse().map_err(|why| D::Error::custom(format_args!("{} is {why}", quoted(&text))))?;
        Ok(Self(place))
    }
}

impl JsonSchema for LogFile {
    fn schema_name() -> Cow<'static, str> {
        "LogFile".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(/.*[^/]|journal|none)$",
            "description": "an absolute path, journal or none",
        })
    }
}

impl Policy {
    /// The driver's log.
    pub fn log(&self) -> Log {
        Log { place: self.log_file.0.clone(), most: self.log_max_size.bytes() }
    }

    /// What is wrong with `logMaxSize`.
    pub(super) fn log_problem(&self) -> Option<String> {
        let small = self.log_max_size.bytes() < LEAST;
        small.then(|| format!("({}) is less than {}", self.log_max_size, Quantity::of(LEAST)))
    }

    /// The log for a person.
    pub(super) fn log_explained(&self) -> String {
        match self.log().place {
            Place::File(path) => format!("{}, twice {} at most", path.display(), self.log_max_size),
            Place::Journal => "systemd's journal".to_owned(),
            Place::Nowhere => "none is kept".to_owned(),
        }
    }
}
