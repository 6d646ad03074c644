//! Answers as the protocol writes them: results, and the error with its code
//! (CNI spec 1.1.0, section 5, "Error").

use node::{Error, Kind};
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value};

use crate::version::Version;

/// Every code that this program answers with and what it means; those from 100 are its own.
pub const CODES: [(u32, &str); 16] = [
    (1, "the configuration's cniVersion is not spoken here"),
    (2, "the configuration holds a key that is not supported"),
    (3, "the container is not known, and nothing was made for it"),
    (4, "an environment variable is missing or wrong"),
    (5, "a file could not be read or written"),
    (6, "the configuration or prevResult is not the JSON that it should be"),
    (7, "the configuration contradicts itself or lacks something"),
    (8, "CNI_NETNS is not a network namespace that a pod can have"),
    (11, "nothing is free now; the same call may succeed later"),
    (50, "the plugin cannot serve an ADD now"),
    (51, "the plugin cannot serve an ADD now, and pods may have lost connections (from a delegated plugin)"),
    (100, "the kernel refused"),
    (101, "somebody else already has what was asked for"),
    (102, "what ADD made is gone or different"),
    (103, "a mistake in nodeplug-cni"),
    (104, "a delegated plugin went wrong and gave no code"),
];

/// The code of a kind of error.
pub fn code(kind: Kind) -> u32 {
    match kind {
        Kind::Version => 1,
        Kind::UnsupportedField => 2,
        Kind::UnknownContainer => 3,
        Kind::Usage => 4,
        Kind::Io => 5,
        Kind::Decode => 6,
        Kind::Config => 7,
        Kind::Namespace => 8,
        Kind::TryAgain => 11,
        Kind::Unavailable => 50,
        Kind::Kernel => 100,
        Kind::Conflict => 101,
        Kind::Mismatch => 102,
        Kind::Internal => 103,
        // 0 would read as success.
        Kind::Delegate(0) => 104,
        Kind::Delegate(code) => code,
    }
}

/// An error in `version`. The pod's event shows `msg; details`: the attempt, then the causes and what
/// to do.
pub fn error(error: &Error, version: Version) -> Value {
    let mut out = Map::new();
    out.insert("cniVersion".into(), version.as_str().into());
    out.insert("code".into(), code(error.kind()).into());
    out.insert("msg".into(), error.to_string().into());
    let causes = Some(error.causes()).filter(|c| !c.is_empty());
    let details: Vec<String> = causes.into_iter().chain(error.advice().map(str::to_owned)).collect();
    if !details.is_empty() {
        out.insert("details".into(), details.join("; ").into());
    }
    out.into()
}

/// An answer as the reference lays it out: four spaces a level, and a last newline.
pub fn text(answer: &Value) -> String {
    let mut bytes = Vec::with_capacity(512);
    let mut serializer = Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    "));
    let laid_out = answer.serialize(&mut serializer).is_ok();
    let text = if laid_out { String::from_utf8(bytes).ok() } else { None };
    // Writing a value into memory does not go wrong; were it to, the compact form says the same.
    let mut text = text.unwrap_or_else(|| answer.to_string());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_the_attempt_then_the_causes_and_what_to_do() {
        let io = std::io::Error::from_raw_os_error(libc::EPERM);
        let cause = Error::caused(Kind::Kernel, "create veth `np1`", io);
        let error = Error::caused(Kind::Kernel, "attach the pod", cause).hint("run as root");
        assert_eq!(
            text(&super::error(&error, Version::V1_0_0)),
            "{\n    \"cniVersion\": \"1.0.0\",\n    \"code\": 100,\n    \"msg\": \"attach the pod\",\n    \
             \"details\": \"create veth `np1`: Operation not permitted (os error 1); run as root\"\n}\n"
        );
        let bare = super::error(&Error::new(Kind::TryAgain, "reserve"), Version::V1_1_0);
        assert_eq!(bare.to_string(), r#"{"cniVersion":"1.1.0","code":11,"msg":"reserve"}"#);
    }

    #[test]
    fn every_kind_has_a_code_of_the_table_and_a_delegate_keeps_its_own() {
        let kinds = [
            Kind::Usage,
            Kind::Version,
            Kind::UnsupportedField,
            Kind::UnknownContainer,
            Kind::Io,
            Kind::Decode,
            Kind::Config,
            Kind::Namespace,
            Kind::TryAgain,
            Kind::Unavailable,
            Kind::Kernel,
            Kind::Conflict,
            Kind::Mismatch,
            Kind::Internal,
            Kind::Delegate(0),
            Kind::Delegate(51),
        ];
        let mut codes: Vec<u32> = kinds.map(code).to_vec();
        codes.sort_unstable();
        assert_eq!(codes, CODES.map(|(code, _)| code));
        assert_eq!(code(Kind::Delegate(999)), 999);
    }
}
