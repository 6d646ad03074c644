//! Routing by source address: the keys of the reference's sbr plugin.

use serde::{Deserialize, Serialize};

use crate::config::feature::Source;
use crate::config::reader::Problem;

/// How an interface's traffic finds its own way out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRouting {
    /// `table`: the first routing table; `None` is the first free one from 100 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// `addSourceHints`: whether routes name their source address.
    #[serde(default)]
    pub source_hints: bool,
}

impl SourceRouting {
    /// `None` where it is not asked for.
    pub(super) fn read(source: &mut Source<'_, '_>, _problems: &mut Vec<Problem>) -> Option<Self> {
        (source.role == crate::role::Role::SourceRouting).then(Self::default)
    }
}
