//! README.md, taken apart.

use std::fs;
use std::path::Path;

/// The text of a file of this program's folder.
pub fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What stands between the fences of `yaml`.
pub fn blocks(page: &str) -> Vec<&str> {
    page.split("\n```yaml\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// The rows of the tables under the heading `title`, up to the next heading; the first cells' names are those in
/// backticks.
pub fn table<'a>(page: &'a str, title: &str) -> Vec<Vec<&'a str>> {
    let mut lines = page.lines().skip_while(|line| line.trim_start_matches('#') != format!(" {title}"));
    assert!(lines.next().is_some(), "no heading is `{title}`");
    let inside = lines.take_while(|line| !line.starts_with('#'));
    let rows = inside.filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The words in backticks.
pub fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}
