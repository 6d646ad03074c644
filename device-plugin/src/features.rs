//! What node-feature-discovery's local source reads: a label a resource, so that a scheduler finds nodes by what they
//! have and not by what is free.

use std::path::Path;

use node::{Result, store};

use crate::config::ResourceName;
use crate::inventory::id::hash;

/// The longest name of a label.
const LONGEST: usize = 63;

/// The file's text: `nodeplug.DOMAIN.NAME=HEALTHY`, a line a resource. node-feature-discovery puts its own domain
/// before it.
pub fn text<'a>(healthy: impl Iterator<Item = (&'a ResourceName, usize)>) -> String {
    healthy.fold(String::new(), |lines, (name, count)| format!("{lines}{}={count}\n", label(name)))
}

fn label(name: &ResourceName) -> String {
    let label = format!("nodeplug.{}", name.as_str().replace('/', "."));
    if label.len() <= LONGEST { label } else { format!("nodeplug.{}", hash(name.as_str())) }
}

/// Writes the file where it is another one. A reader sees all of it or what it was before; a name with a dot before
/// it, as half a file has, is not read.
pub fn write(path: &Path, text: &str) -> Result<()> {
    if store::read(path)?.as_deref() == Some(text.as_bytes()) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        store::make_folder(folder)?;
    }
    store::write_whole(path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_a_label() {
        let short: ResourceName = "example.com/serial".parse().unwrap();
        let long: ResourceName = format!("{}.example.com/x", "a".repeat(60)).parse().unwrap();
        let text = text([(&short, 2), (&long, 0)].into_iter());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "nodeplug.example.com.serial=2");
        assert!(lines[1].len() <= LONGEST + 2 && lines[1].starts_with("nodeplug."), "{text}");
    }
}
