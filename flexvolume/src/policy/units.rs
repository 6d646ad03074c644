//! Amounts and times as strings in YAML and in the schema.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::options::{Quantity, Seconds, quoted};

/// The same five lines for both: a string that the type itself reads and writes.
macro_rules! as_text {
    ($type:ident, $pattern:expr, $description:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                // A number without a unit comes as it is written, quoted or not.
                let text = String::deserialize(from)?;
                text.parse().map_err(|why| D::Error::custom(format_args!("{} {why}", quoted(&text))))
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": ["string", "integer"],
                    "pattern": $pattern,
                    "minLength": 1,
                    "minimum": 1,
                    "description": $description,
                })
            }
        }
    };
}

as_text!(
    Quantity,
    r"^\+?([0-9]+\.?[0-9]*|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E|[eE][+-]?[0-9]+)?$",
    "bytes as Kubernetes writes them: 64Mi, 1.5Gi, 500k, 1e6"
);
as_text!(Seconds, r"^([0-9]+|([0-9]+h)?([0-9]+m)?([0-9]+s)?)$", "a time in whole seconds: 30s, 2m, 1m30s");
