//! The names of servers and shares: public words that a helper takes apart, so that none of them may mean
//! something else to it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The most that DNS allows (RFC 1035, section 2.3.4).
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;
/// The most that an NFS client takes (`NFS_MAXPATHLEN`), and more than SMB does.
const LONGEST_PATH: usize = 1024;

/// A server: an address, or a name that is no other spelling of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// A host's name or an IPv4 address, as it was written.
    Name(String),
    /// An IPv6 address, its zone with it: `fe80::1%eth0`.
    V6(String),
}

impl FromStr for Server {
    type Err = String;

    /// Reads a name, an IPv4 address, or an IPv6 address with or without brackets. The error says what to
    /// write.
    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(address) = bare.or_else(|| Some(text).filter(|t| t.contains(':'))) {
            return v6(address).then(|| Self::V6(address.to_owned())).ok_or_else(|| {
                "is not an IPv6 address; write one such as [2001:db8::1], without a port".to_owned()
            });
        }
        name(text).map(|()| Self::Name(text.to_owned()))
    }
}

impl Server {
    /// Without brackets, as the policy and mount.cifs take it.
    pub fn plain(&self) -> &str {
        match self {
            Self::Name(text) | Self::V6(text) => text,
        }
    }
}

/// With brackets around an IPv6 address, as mount.nfs takes it.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(text) => f.write_str(text),
            Self::V6(text) => write!(f, "[{text}]"),
        }
    }
}

fn v6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').unwrap_or((text, "lo"));
    let interface = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    address.parse::<Ipv6Addr>().is_ok() && (1..=15).contains(&zone.len()) && zone.bytes().all(interface)
}

fn name(text: &str) -> Result<(), String> {
    let plain = text.strip_suffix('.').unwrap_or(text);
    if plain.is_empty() || plain.len() > LONGEST_NAME {
        return Err("is not a host's name; write one such as nas.example".to_owned());
    }
    if !plain.split('.').all(label) {
        return Err("is not a host's name; write letters, digits and dashes, such as nas.example, or an \
             address"
            .to_owned());
    }
    // The C library takes `127.1`, `0x7f.1` and `2130706433` for addresses, too.
    let last = plain.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().next().is_some_and(|b| b.is_ascii_digit())
        && last.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b'x' | b'X'));
    if number && text.parse::<Ipv4Addr>().is_err() {
        return Err("is not an address; write all four numbers, such as 192.0.2.1".to_owned());
    }
    Ok(())
}

/// Underscores stand in the names of many Windows and container hosts.
fn label(label: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=LONGEST_LABEL).contains(&label.len())
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// A path on a server: parts joined by `/`, none of them empty, `.` or `..`. The error says what is wrong.
pub fn path(text: &str) -> Result<(), String> {
    if text.len() > LONGEST_PATH {
        return Err(format!("is longer than {LONGEST_PATH} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("has a control character".to_owned());
    }
    match text.split('/').find(|part| matches!(*part, "" | "." | "..")) {
        Some("") => Err("has an empty part, such as a `/` too many".to_owned()),
        Some(part) => Err(format!("has the part `{part}`")),
        None => Ok(()),
    }
}

/// The same for a path that becomes part of mount.cifs' comma-separated text: a comma in it would start a
/// mount option of its own, and a backslash another part.
pub fn smb_path(text: &str) -> Result<(), String> {
    path(text)?;
    match text.chars().find(|c| matches!(c, ',' | '\\' | '"' | ':' | '<' | '>' | '|' | '?' | '*')) {
        Some(c) => Err(format!("has a `{c}`, which no share's path can have")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_name_or_an_address_in_full() {
        let label = "a".repeat(63);
        let long = format!("{label}.{label}.{label}.{label}");
        let table = [
            ("nas", Some("nas")),
            ("nas-1.storage_x.example.", Some("nas-1.storage_x.example.")),
            ("3com.example", Some("3com.example")),
            ("192.0.2.1", Some("192.0.2.1")),
            ("[2001:db8::1]", Some("[2001:db8::1]")),
            ("2001:db8::1", Some("[2001:db8::1]")),
            ("fe80::1%eth0", Some("[fe80::1%eth0]")),
            ("", None),
            (".", None),
            ("-o", None),
            ("nas-", None),
            ("a..b", None),
            ("127.1", None),
            ("127.0.0.256", None),
            ("0x7f.1", None),
            ("2130706433", None),
            ("a,b", None),
            ("a b", None),
            ("a/b", None),
            ("a\nb", None),
            ("ä.example", None),
            ("user@nas", None),
            ("nas:2049", None),
            ("[nas]", None),
            ("[::1]:2049", None),
            ("[::1", None),
            ("fe80::1%", None),
            ("fe80::1%a,b", None),
            ("%00", None),
            (&long, None),
        ];
        for (text, expect) in table {
            let read = text.parse::<Server>().map(|s| s.to_string());
            assert_eq!(read.as_deref().ok(), expect, "{text:?}: {read:?}");
        }
        assert_eq!("[::1]".parse::<Server>().unwrap().plain(), "::1");
    }

    #[test]
    fn a_path_that_a_helper_could_misread_is_refused() {
        let table = [
            ("a", true, true),
            ("a b/ü/-x", true, true),
            ("a,uid=0", true, false),
            ("a\\b", true, false),
            ("a\"b", true, false),
            ("", false, false),
            ("a//b", false, false),
            ("a/", false, false),
            ("/a", false, false),
            ("a/../b", false, false),
            (".", false, false),
            ("a\nb", false, false),
            ("a\0b", false, false),
        ];
        for (text, nfs, smb) in table {
            assert_eq!((path(text).is_ok(), smb_path(text).is_ok()), (nfs, smb), "{text:?}");
        }
        assert!(path(&"a".repeat(LONGEST_PATH + 1)).is_err());
    }
}
