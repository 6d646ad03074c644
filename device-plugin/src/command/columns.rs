//! Columns for people.

/// Rows as wide as their widest cells, behind an indent; the last column is as long as it is.
pub fn columns(indent: usize, rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &Vec<String>| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{:indent$}{}\n", "", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}
