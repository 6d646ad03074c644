//! Routing by source address: the keys of the reference's sbr plugin, or `sbr` beside other features.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::feature::Source;
use crate::config::reader::{Problem, Reader};
use crate::role::Role;

/// The tables that the kernel keeps for itself (rtnetlink(7)): default, main, local.
const RESERVED: std::ops::RangeInclusive<u32> = 253..=255;

/// How an interface's traffic finds its own way out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRouting {
    /// `table`: the routing table; `None` is one an address, each the first free one from 100 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// `addSourceHints`: whether routes name their source address.
    #[serde(default)]
    pub source_hints: bool,
}

impl SourceRouting {
    /// `None` where it is not asked for.
    pub(super) fn read(source: &mut Source<'_, '_>, problems: &mut Vec<Problem>) -> Option<Self> {
        if source.role == Role::SourceRouting {
            return Some(Self::read_keys(source.reader, problems));
        }
        match source.reader.value("sbr")? {
            Value::Bool(on) => on.then(Self::default),
            value => {
                let mut reader = Reader::new(value, &source.reader.place("sbr"), problems);
                let wish = Self::read_keys(&mut reader, problems);
                reader.finish(problems);
                Some(wish)
            }
        }
    }

    fn read_keys(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> Self {
        let mut table = reader.number("table", u32::MAX, problems);
        if let Some(taken) = table.filter(|t| *t == 0 || RESERVED.contains(t)) {
            let what = format!("is {taken}, a table that the kernel keeps for itself");
            let hint = "leave it out to have the first free one from 100 on";
            problems.push(Problem::wrong(&reader.place("table"), what).hint(hint));
            table = None;
        }
        Self { table, source_hints: reader.bool("addSourceHints", problems).unwrap_or(false) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::wanted::Asked;
    use crate::config::{NetConf, Position};

    fn read(role: Role, value: &Value) -> (Option<SourceRouting>, Vec<String>) {
        let mut problems = Vec::new();
        let mut entry = json!({"cniVersion": "1.0.0", "name": "n", "type": role.name()});
        for (key, value) in value.as_object().unwrap() {
            entry[key] = value.clone();
        }
        let conf = NetConf::read(role, &entry, "", Position::Chained, &Asked::default(), &mut problems);
        (conf.features.source_routing, problems.iter().map(|p| format!("{}: {}", p.at, p.what)).collect())
    }

    #[test]
    fn it_is_asked_for_by_name_by_switch_and_by_keys() {
        let with = |table, source_hints| Some(SourceRouting { table, source_hints });
        let cases = [
            (Role::SourceRouting, json!({}), with(None, false)),
            (Role::SourceRouting, json!({"table": 7, "addSourceHints": true}), with(Some(7), true)),
            (Role::Main, json!({}), None),
            (Role::Main, json!({"sbr": false}), None),
            (Role::Main, json!({"sbr": true}), with(None, false)),
            (Role::Main, json!({"sbr": {"table": 70000, "addSourceHints": true}}), with(Some(70000), true)),
        ];
        for (role, value, expect) in cases {
            assert_eq!(read(role, &value), (expect, Vec::new()), "{value}");
        }
    }

    #[test]
    fn a_table_of_the_kernels_own_and_an_unknown_key_are_refused() {
        for table in [0, 253, 254, 255] {
            let (_, problems) = read(Role::SourceRouting, &json!({"table": table}));
            assert!(problems[0].starts_with(&format!("table: is {table}, a table that")), "{problems:?}");
        }
        let (_, problems) = read(Role::Main, &json!({"sbr": {"tabel": 7}}));
        assert!(problems[0].starts_with("sbr.tabel: is not a key"), "{problems:?}");
    }
}
