//! The versions of the CNI specification that this program speaks.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

/// A version of the specification, older ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// `ip4` and `ip6`, one address each.
    V0_1_0,
    /// The VERSION verb.
    V0_2_0,
    /// Lists of interfaces, addresses and routes; chains of plugins.
    V0_3_0,
    /// 0.3.0 with its slips of the pen corrected.
    V0_3_1,
    /// CHECK, and prevResult on DEL.
    V0_4_0,
    /// Addresses lose their `version`.
    V1_0_0,
    /// GC and STATUS; more fields of interfaces and routes.
    V1_1_0,
}

impl Version {
    /// Every version, older ones first.
    pub const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// What a configuration without `cniVersion` means.
    pub const DEFAULT: Self = Self::V0_1_0;

    /// The newest one.
    pub const NEWEST: Self = Self::V1_1_0;

    /// As the protocol writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version that `document` names in `cniVersion`; a missing, null or empty one is
    /// [`Version::DEFAULT`].
    pub fn of(document: &Value) -> Result<Self, Unknown> {
        match document.get("cniVersion") {
            None | Some(Value::Null) => Ok(Self::DEFAULT),
            Some(Value::String(text)) if text.is_empty() => Ok(Self::DEFAULT),
            Some(Value::String(text)) => text.parse(),
            Some(other) => Err(Unknown(other.to_string())),
        }
    }

    /// The version to answer in to somebody who sent `document`: its own, or the newest of ours where we
    /// do not speak that.
    pub fn of_answer(document: &Value) -> Self {
        Self::of(document).unwrap_or(Self::NEWEST)
    }

    /// The answer to VERSION, in the caller's version
    /// (CNI spec 1.1.0, section 2, "VERSION: probe plugin version support").
    pub fn answer(self) -> Value {
        json!({ "cniVersion": self.as_str(), "supportedVersions": Self::ALL.map(Self::as_str) })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Version {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        Self::ALL.into_iter().find(|v| v.as_str() == text).ok_or_else(|| Unknown(text.to_owned()))
    }
}

/// A version that is not spoken here, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown(pub String);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is not one of {}", Version::ALL.map(Version::as_str).join(", "))
    }
}

impl std::error::Error for Unknown {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_reads_back_and_they_are_ordered() {
        for version in Version::ALL {
            assert_eq!(version.to_string().parse(), Ok(version));
        }
        assert!(Version::ALL.is_sorted());
        assert!("1.0".parse::<Version>().is_err());
    }

    #[test]
    fn the_version_of_a_document() {
        let unknown = |t: &str| Err(Unknown(t.to_owned()));
        let table = [
            (json!({}), Ok(Version::V0_1_0), Version::V0_1_0),
            (json!({"cniVersion": ""}), Ok(Version::V0_1_0), Version::V0_1_0),
            (json!({"cniVersion": "1.0.0"}), Ok(Version::V1_0_0), Version::V1_0_0),
            (json!({"cniVersion": "2.0.0"}), unknown("2.0.0"), Version::V1_1_0),
            (json!({"cniVersion": 1}), unknown("1"), Version::V1_1_0),
            (json!(7), Ok(Version::V0_1_0), Version::V0_1_0),
        ];
        for (document, expect, answer) in table {
            assert_eq!(Version::of(&document), expect, "{document}");
            assert_eq!(Version::of_answer(&document), answer, "{document}");
        }
    }

    #[test]
    fn the_answer_to_version_echoes_and_lists() {
        assert_eq!(
            Version::V0_4_0.answer().to_string(),
            r#"{"cniVersion":"0.4.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#
        );
    }
}
