//! The pages that show volumes, taken apart.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The driver's page, whole.
pub fn page() -> String {
    text("flexvolume/README.md")
}

/// The repository's page, whole.
pub fn front_page() -> String {
    text("README.md")
}

fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(path).expect(name)
}

/// What stands between its fences of `yaml`.
pub fn blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once("\n```yaml\n") {
        let (block, tail) = after.split_once("\n```").expect("the end of a block");
        blocks.push(format!("\n{block}\n"));
        rest = tail;
    }
    blocks
}

/// The one block that has these words.
pub fn block_with(page: &str, words: &str) -> String {
    let mut found = blocks(page).into_iter().filter(|block| block.contains(words));
    let block = found.next().unwrap_or_else(|| panic!("no block of yaml has {words:?}"));
    assert_eq!(found.next(), None, "a second block of yaml has {words:?}");
    block
}

/// What stands under the heading `title`, up to the next heading.
pub fn section(page: &str, title: &str) -> String {
    let mut lines = page.lines().skip_while(|line| line.trim_start_matches('#') != format!(" {title}"));
    assert!(lines.next().is_some(), "no heading is `{title}`");
    let inside: Vec<&str> = lines.take_while(|line| !line.starts_with("##")).collect();
    inside.join("\n")
}

/// The names in backticks in the first column of the tables, where a cell begins with one.
pub fn table(section: &str) -> BTreeSet<String> {
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let names = cells.flat_map(|cell| format!("`{cell}").split('`').map(str::to_owned).collect::<Vec<_>>());
    // `a`, `b` is split into nothing, a, a comma, b, nothing.
    let plain = |name: &String| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric());
    names.filter(plain).collect()
}
