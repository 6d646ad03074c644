//! What the kubelet takes for the name of an extended resource: `IsExtendedResourceName` with the rules that it
//! rests on.

/// Whether a device plugin may register this name.
pub fn is_extended_resource(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    !native && !name.starts_with("requests.") && is_qualified(&format!("requests.{name}"))
}

/// `prefix/name`, or a name alone.
fn is_qualified(text: &str) -> bool {
    let mut parts = text.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, None) => is_name(name),
        (Some(prefix), Some(name), None) => is_subdomain(prefix) && is_name(name),
        _ => false,
    }
}

fn is_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let (first, last) = (name.bytes().next(), name.bytes().last());
    name.len() <= 63
        && first.is_some_and(|b| b.is_ascii_alphanumeric())
        && last.is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(inner)
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let (first, last) = (label.bytes().next(), label.bytes().last());
    first.is_some_and(edge) && last.is_some_and(edge) && label.bytes().all(|b| edge(b) || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_or_not() {
        let longest = format!("{}/{}", "a".repeat(244), "b".repeat(63));
        for name in ["example.com/a", "e/A", "example.com/a.b_c-D9", "1/2", "a-b.c/d", &longest] {
            assert!(is_extended_resource(name), "{name}");
        }
        let long_prefix = format!("{}/b", "a".repeat(245));
        let long_name = format!("a/{}", "b".repeat(64));
        for name in [
            "cpu",
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "kubernetes.io/a",
            "x.kubernetes.io/a",
            "requests.example.com/a",
            "Example.com/a",
            "example.com/-a",
            "example.com/a-",
            "example..com/a",
            "example_x.com/a",
            "a/b c",
            "-a/b",
            "a-/b",
            &long_prefix,
            &long_name,
        ] {
            assert!(!is_extended_resource(name), "{name}");
        }
    }
}
