//! From the kubelet's JSON to the map, with errors that hold no value: the text carries secrets, and
//! serde's own messages quote what they did not expect.

use std::collections::BTreeMap;
use std::fmt;

use node::{Error, Kind, Result};
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use super::quoted;

type Map = BTreeMap<String, Zeroizing<String>>;

/// Reads the object.
pub(super) fn parse(json: &str) -> Result<Map> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let read = reader.deserialize_any(Object).and_then(|map| reader.end().map(|()| map));
    read.map_err(|why| {
        // serde_json's own words for syntax are fixed texts, and every other message is made below.
        Error::caused(Kind::Decode, "read the options' JSON", why.to_string())
            .hint("the last argument has to be one JSON object whose values are strings")
    })
}

/// Answers every shape but the wanted one with its name.
macro_rules! refuse {
    ($say:expr) => {
        fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Self::Value, E> {
            Err($say(&self, "a boolean"))
        }

        fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Self::Value, E> {
            Err($say(&self, "a number"))
        }

        fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Self::Value, E> {
            Err($say(&self, "a number"))
        }

        fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Self::Value, E> {
            Err($say(&self, "a number"))
        }

        fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
            Err($say(&self, "null"))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
            Err($say(&self, "a list"))
        }
    };
}

struct Object;

fn no_object<E: serde::de::Error>(_: &Object, shape: &str) -> E {
    E::custom(format_args!("the options are {shape}, not an object"))
}

impl<'de> Visitor<'de> for Object {
    type Value = Map;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    refuse!(no_object);

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Map, E> {
        Err(no_object(&self, "a string"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Map, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(Text { key: &key })?;
            map.insert(key, value);
        }
        Ok(map)
    }
}

/// One value, with its key for the error.
struct Text<'k> {
    key: &'k str,
}

fn no_text<E: serde::de::Error>(text: &Text<'_>, shape: &str) -> E {
    E::custom(format_args!("the option {} is {shape}, not a string", quoted(text.key)))
}

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = Zeroizing<String>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        let key = self.key;
        // A syntax error in the middle of a value would otherwise not say which value.
        reader.deserialize_any(self).map_err(|why| {
            let why = why.to_string();
            if why.starts_with("the option ") {
                return D::Error::custom(why);
            }
            D::Error::custom(format_args!("the option {}: {why}", quoted(key)))
        })
    }
}

impl<'de> Visitor<'de> for Text<'_> {
    type Value = Zeroizing<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    refuse!(no_text);

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Zeroizing::new(text.to_owned()))
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(Zeroizing::new(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(no_text(&self, "an object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn go_s_escapes_are_read() {
        let json = r#" {"a":"\u003c\u0026\u003e","ü\"k":"ä\\\n","e":"\ud83d\ude00"} "#;
        let map = parse(json).unwrap();
        let pairs: Vec<_> = map.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("a", "<&>"), ("e", "😀"), ("ü\"k", "ä\\\n")]);
    }

    #[test]
    fn the_last_of_two_equal_keys_wins() {
        assert_eq!(parse(r#"{"a":"1","a":"2"}"#).unwrap().get("a").map(|v| v.as_str()), Some("2"));
    }

    #[test]
    fn an_error_names_key_and_place_and_never_a_value() {
        let table = [
            ("\"hunter2\"", "the options are a string, not an object at line 1 column 9"),
            ("[\"hunter2\"]", "the options are a list, not an object at line 1 column 1"),
            ("null", "the options are null, not an object at line 1 column 4"),
            ("{\"a\":4711}", "the option `a` is a number, not a string at line 1 column 9"),
            ("{\"a\":-4.711}", "the option `a` is a number, not a string at line 1 column 11"),
            ("{\"a\":true}", "the option `a` is a boolean, not a string at line 1 column 9"),
            ("{\"a\":null}", "the option `a` is null, not a string at line 1 column 9"),
            ("{\"a\":{\"hunter2\":1}}", "the option `a` is an object, not a string at line 1 column 6"),
            ("{\"a\":\"hunter2", "the option `a`: EOF while parsing a string at line 1 column 13"),
            ("{\"a\":\"hunter2\\q\"}", "the option `a`: invalid escape at line 1 column 15"),
            ("{\"a\":hunter2}", "the option `a`: expected value at line 1 column 6"),
            ("{\"a\":\"b\"} hunter2", "trailing characters at line 1 column 11"),
            ("hunter2", "expected value at line 1 column 1"),
            ("", "EOF while parsing a value at line 1 column 0"),
        ];
        for (json, expect) in table {
            let error = parse(json).unwrap_err();
            assert_eq!(error.kind(), Kind::Decode, "{json}");
            assert_eq!(error.causes(), expect, "{json}");
            assert!(!error.chain().contains("hunter2") && !error.chain().contains("711"), "{json}");
        }
    }

    #[test]
    fn a_mountain_of_brackets_is_an_error() {
        for bracket in ["[", "{\"a\":", "{\"a\":["] {
            assert_eq!(parse(&bracket.repeat(60_000)).unwrap_err().kind(), Kind::Decode);
        }
    }

    proptest! {
        #[test]
        fn junk_is_never_more_than_an_error(json in "\\PC{0,64}|[{}\\[\\]\",:a\\\\u0]{0,64}") {
            let _ = parse(&json);
        }

        #[test]
        fn every_map_of_strings_comes_back(pairs in proptest::collection::btree_map(".{0,8}", ".{0,8}", 0..8)) {
            let back = parse(&serde_json::to_string(&pairs).unwrap()).unwrap();
            let back: BTreeMap<_, _> = back.into_iter().map(|(k, v)| (k, v.to_string())).collect();
            prop_assert_eq!(back, pairs);
        }
    }
}
