//! What a command found, as a table for people and as JSON for programs.

use serde_json::{Map, Value};

/// Rows under a heading, and a closing line.
#[derive(Debug, Default)]
pub struct Report {
    heading: &'static [&'static str],
    rows: Vec<Vec<String>>,
    /// What the JSON of each row has beside its cells.
    numbers: Vec<Vec<(&'static str, u64)>>,
    summary: String,
    fine: bool,
}

impl Report {
    /// A report with these columns.
    pub fn new(heading: &'static [&'static str]) -> Self {
        Self { heading, fine: true, ..Self::default() }
    }

    /// Adds a row of as many cells as there are columns.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.row_with(cells, []);
    }

    /// The same with numbers for programs.
    pub fn row_with(
        &mut self,
        cells: impl IntoIterator<Item = String>,
        numbers: impl IntoIterator<Item = (&'static str, u64)>,
    ) {
        self.rows.push(cells.into_iter().collect());
        self.numbers.push(numbers.into_iter().collect());
    }

    /// Marks that something is wrong, so that the exit code says so.
    pub fn problem(&mut self) {
        self.fine = false;
    }

    /// The closing line.
    pub fn summary(&mut self, text: impl Into<String>) {
        self.summary = text.into();
    }

    /// Whether nothing is wrong.
    pub fn is_fine(&self) -> bool {
        self.fine
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// `{"rows": [{COLUMN: CELL … NAME: NUMBER …} …], "fine": BOOL, "summary": TEXT}`, columns in lower case.
    pub fn to_json(&self) -> Value {
        let row = |(cells, numbers): (&Vec<String>, &Vec<(&str, u64)>)| -> Value {
            let cells = self.heading.iter().zip(cells).map(|(name, cell)| (key(name), cell.as_str().into()));
            let numbers = numbers.iter().map(|(name, number)| ((*name).to_owned(), (*number).into()));
            Value::Object(cells.chain(numbers).collect())
        };
        let mut whole = Map::new();
        whole.insert("rows".into(), self.rows.iter().zip(&self.numbers).map(row).collect());
        whole.insert("fine".into(), self.fine.into());
        whole.insert("summary".into(), self.summary.as_str().into());
        Value::Object(whole)
    }

    /// Columns as wide as their widest cell; without rows, the closing line alone.
    pub fn to_table(&self) -> String {
        let mut widths: Vec<usize> = self.heading.iter().map(|h| h.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |cells: &[&str]| {
            let padded: Vec<String> =
                cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            format!("{}\n", padded.join("  ").trim_end())
        };
        let mut text = String::new();
        if !self.rows.is_empty() {
            text.push_str(&line(self.heading));
            for row in &self.rows {
                text.push_str(&line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
            }
        }
        if !self.summary.is_empty() {
            text.push_str(&self.summary);
            text.push('\n');
        }
        text
    }
}

fn key(heading: &str) -> String {
    heading.to_lowercase().replace(' ', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_and_its_json_hold_the_same() {
        let mut report = Report::new(&["POD", "HELD BY"]);
        report.row_with(["default/web".to_owned(), "x".to_owned()], [("size_bytes", 7)]);
        report.summary("1 volume");
        assert_eq!(report.to_table(), "POD          HELD BY\ndefault/web  x\n1 volume\n");
        assert_eq!(
            report.to_json().to_string(),
            r#"{"rows":[{"pod":"default/web","held_by":"x","size_bytes":7}],"fine":true,"summary":"1 volume"}"#
        );
    }
}
