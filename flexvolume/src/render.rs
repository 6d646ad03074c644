//! The one JSON object of an answer.
//!
//! The kubelet parses stdout and stderr together as one object, compares `status` letter by letter, and
//! crashes on `"capabilities":null`: what has no value is left out.

use node::{Error, Kind};
use serde::Serialize;

/// The longest message. An event of the API server holds 1024 bytes, the kubelet's own words among them.
const LONGEST: usize = 900;

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// How it went.
    pub status: Status,
    /// For a person: the pod's event, where it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// A device, of `waitforattach`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// A volume's name, of `getvolumename`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_name: Option<String>,
    /// Of `isattached`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attached: Option<bool>,
    /// Of `init`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// In bytes, of `expandvolume`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_new_size: Option<u64>,
}

/// The three words that the kubelet knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum Status {
    /// Done, or nothing to do.
    #[default]
    Success,
    /// Not done; the kubelet tries again.
    Failure,
    /// Never asked again for the life of the driver: for unknown calls only.
    #[serde(rename = "Not supported")]
    NotSupported,
}

/// What the driver can do. The kubelet takes an absent one for true (metrics: false).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// Wants attach and detach.
    pub attach: bool,
    /// The container runtime may relabel the volume.
    pub selinux_relabel: bool,
    /// The kubelet may call statfs.
    pub supports_metrics: bool,
    /// The kubelet changes the owner of every file.
    pub fs_group: bool,
    /// The kubelet calls `expandfs`.
    #[serde(rename = "requiresFSResize")]
    pub requires_fs_resize: bool,
}

impl Answer {
    /// Done, with something that a person may want to know.
    pub fn success(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    /// For a call that this driver has never heard of.
    pub fn unknown(call: &str) -> Self {
        let call: String = call.chars().take(60).collect();
        let message =
            format!("`{call}` is not a call of the FlexVolume protocol; see --help for the commands");
        Self { status: Status::NotSupported, message, ..Self::default() }
    }

    /// What went wrong: cause and remedy.
    pub fn failure(error: &Error) -> Self {
        Self { status: status(error.kind()), message: message(error), ..Self::default() }
    }

    /// One line of JSON with its line end.
    pub fn line(&self) -> String {
        // A struct of strings, numbers and booleans always has a JSON form.
        let json = serde_json::to_string(self)
            .unwrap_or_else(|_| r#"{"status":"Failure","message":"the answer has no JSON form"}"#.to_owned());
        json + "\n"
    }
}

/// The kubelet remembers `Not supported` for ever, so no error of a volume is ever that.
fn status(kind: Kind) -> Status {
    match kind {
        Kind::Usage
        | Kind::Version
        | Kind::UnsupportedField
        | Kind::UnknownContainer
        | Kind::Io
        | Kind::Decode
        | Kind::Config
        | Kind::Namespace
        | Kind::TryAgain
        | Kind::Unavailable
        | Kind::Kernel
        | Kind::Conflict
        | Kind::Mismatch
        | Kind::Delegate(_)
        | Kind::Internal => Status::Failure,
    }
}

/// Cause and remedy on one line. Of a long cause the middle goes: its end is what the kernel said, and the
/// remedy comes behind it.
pub fn message(error: &Error) -> String {
    let advice = error.advice().map_or_else(String::new, |hint| format!("; {hint}"));
    let room = LONGEST.saturating_sub(advice.len()).max(LONGEST / 3);
    let text = shortened(&error.chain(), room) + &advice;
    let text = shortened(&text, LONGEST);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The two ends of a text that is longer than `room` bytes.
fn shortened(text: &str, room: usize) -> String {
    if text.len() <= room {
        return text.to_owned();
    }
    let half = room.saturating_sub('…'.len_utf8()) / 2;
    let (head, tail) = (text.floor_char_boundary(half), text.ceil_char_boundary(text.len() - half));
    [text.get(..head), Some("…"), text.get(tail..)].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Driver;

    #[test]
    fn what_has_no_value_is_left_out_and_all_capabilities_are_there() {
        assert_eq!(Answer::default().line(), "{\"status\":\"Success\"}\n");
        let init = Answer { capabilities: Some(Driver::Any.capabilities()), ..Answer::default() };
        assert_eq!(
            init.line(),
            concat!(
                r#"{"status":"Success","capabilities":{"attach":false,"selinuxRelabel":false,"#,
                r#""supportsMetrics":false,"fsGroup":false,"requiresFSResize":true}}"#,
                "\n"
            )
        );
        assert!(Answer::unknown("frob").line().starts_with(r#"{"status":"Not supported","message":"`frob`"#));
    }

    #[test]
    fn a_long_cause_keeps_its_ends_and_its_remedy() {
        let why = format!("{}é: No space left on device", "é".repeat(2500));
        let error = Error::caused(Kind::Io, "read\nit", why).hint("buy a disk");
        let text = message(&error);
        assert!(text.len() <= LONGEST, "{text}");
        assert!(text.starts_with("read it: ééé") && text.contains("é…é"), "{text}");
        assert!(text.ends_with(": No space left on device; buy a disk"), "{text}");
    }
}
