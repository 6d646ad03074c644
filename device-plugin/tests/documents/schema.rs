//! The keys of the configuration, as its JSON schema has them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The keys of each type that has some: fields, or the choices of an enumeration, with `CHOICE.FIELD` where a choice has
/// fields of its own.
pub fn keys() -> BTreeMap<String, BTreeSet<String>> {
    let schema: Value = serde_json::from_str(device_plugin::config::SCHEMA).unwrap();
    let definitions = schema["$defs"].as_object().unwrap();
    let named = definitions.iter().map(|(name, definition)| (name.clone(), of(definition)));
    let whole = [("Config".to_owned(), of(&schema))];
    named.chain(whole).filter(|(_, keys)| !keys.is_empty()).collect()
}

fn of(definition: &Value) -> BTreeSet<String> {
    let mut keys: BTreeSet<String> = fields(definition).map(|(name, _)| name.clone()).collect();
    let words = definition["enum"].as_array().into_iter().flatten();
    keys.extend(words.filter_map(Value::as_str).map(str::to_owned));
    for choice in definition["oneOf"].as_array().into_iter().flatten() {
        keys.extend(choice["const"].as_str().map(str::to_owned));
        keys.extend(
            choice["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned),
        );
        for (name, value) in fields(choice) {
            let own: Vec<String> = fields(value).map(|(field, _)| format!("{name}.{field}")).collect();
            if own.is_empty() {
                keys.insert(name.clone());
            }
            keys.extend(own);
        }
    }
    keys
}

fn fields(of: &Value) -> impl Iterator<Item = (&String, &Value)> {
    of["properties"].as_object().into_iter().flatten()
}
