//! The names that the kubelet knows devices by.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// placeholder until merge
pub fn base(resource: &str, identity: &str, name: &str) -> String {
    let digest = hash(&format!("{resource}\0{identity}"));
    let slug: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '-' })
        .take(24)
        .collect();
    format!("{slug}-{digest}")
}

/// 16 hexadecimal digits of a text.
pub fn hash(text: &str) -> String {
    let mut hex = String::new();
    for byte in Sha256::digest(text.as_bytes()).iter().take(8) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
