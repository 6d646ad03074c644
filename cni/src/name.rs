//! The names that the protocol carries, and what each may hold. They become file names, nftables
//! comments and link names, so nothing else may pass.

/// The longest container id or network name: with an interface name and a temporary suffix it still
/// makes a file name of at most 255 bytes.
pub const LONGEST: usize = 200;

/// Whether `text` is a container id or a network name: it starts alphanumeric and goes on with
/// alphanumerics, `_`, `.` or `-` (CNI spec 1.1.0, section 2, "Parameters"). `Err` says why not.
pub fn identifier(text: &str) -> Result<(), String> {
    if text.len() > LONGEST {
        return Err(format!("is {} bytes long, and {LONGEST} are the most", text.len()));
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err("does not start with a letter or digit".to_owned());
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || "_.-".contains(*c))) {
        Some(c) => Err(format!("holds {c:?}, and only letters, digits, `_`, `.` and `-` may stand in it")),
        None => Ok(()),
    }
}

/// Whether the kernel takes `text` as a link's name. `%` is refused because the kernel would read
/// `eth%d` as a pattern and choose another name. `Err` says why not.
pub fn interface(text: &str) -> Result<(), String> {
    if text.is_empty() || text == "." || text == ".." {
        return Err("is not a link's name".to_owned());
    }
    if text.len() > 15 {
        return Err(format!("is {} bytes long, and 15 are the most", text.len()));
    }
    let bad = |c: char| c.is_whitespace() || c.is_control() || "/:%".contains(c);
    match text.chars().find(|c| bad(*c)) {
        Some(c) => Err(format!("holds {c:?}, which no link's name may")),
        None => Ok(()),
    }
}

/// Text of the caller's in backticks, cut and escaped so that a message stays a line.
pub fn shown(text: &str) -> String {
    let cut: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    format!("`{cut}{}`", if text.chars().nth(60).is_some() { "…" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers() {
        let long = "a".repeat(200);
        for good in ["a", "0", "cni-loopback", "a_b.c-d", long.as_str()] {
            assert_eq!(identifier(good), Ok(()), "{good}");
        }
        let longer = "a".repeat(201);
        for bad in ["", "-a", ".a", "_", "a/b", "a b", "a:b", "ä", "a\n", longer.as_str()] {
            assert!(identifier(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn interface_names() {
        for good in ["lo", "eth0", "a.100", "-", "ä", "fifteen-bytes-x"] {
            assert_eq!(interface(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\u{7}", "eth%d", "sixteen-bytes-xx"] {
            assert!(interface(bad).is_err(), "{bad}");
        }
    }
}
