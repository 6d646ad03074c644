//! A pattern, or a list of them: most resources have one.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserializer;
use serde::de::{Error, SeqAccess, Visitor};

use super::Glob;

/// Reads one or more.
pub(super) fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Glob>, D::Error> {
    from.deserialize_any(OneOrMore)
}

/// What [`read`] takes.
pub(super) fn schema(generator: &mut SchemaGenerator) -> Schema {
    let one = generator.subschema_for::<Glob>();
    let more = <Vec<Glob>>::json_schema(generator);
    json_schema!({"anyOf": [one, more]})
}

struct OneOrMore;

impl<'de> Visitor<'de> for OneOrMore {
    type Value = Vec<Glob>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a shell pattern or a list of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<Glob>, E> {
        text.parse().map(|glob| vec![glob]).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Glob>, A::Error> {
        let mut globs = Vec::new();
        while let Some(glob) = list.next_element()? {
            globs.push(glob);
        }
        Ok(globs)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Holder {
        #[serde(deserialize_with = "read")]
        glob: Vec<Glob>,
    }

    #[test]
    fn one_is_as_good_as_a_list() {
        for (text, expect) in [
            ("glob: /dev/kvm", Some(vec!["/dev/kvm"])),
            ("glob: '/dev/tty*'", Some(vec!["/dev/tty*"])),
            ("glob: [/dev/kvm, /dev/fuse]", Some(vec!["/dev/kvm", "/dev/fuse"])),
            ("glob: []", Some(vec![])),
            ("glob: {a: b}", None),
            ("glob: '['", None),
            ("glob: 7", None),
        ] {
            let read = serde_saphyr::from_str::<Holder>(text);
            let globs =
                read.ok().map(|holder| holder.glob.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(globs, expect.map(|all| all.into_iter().map(str::to_owned).collect()), "{text}");
        }
    }
}
