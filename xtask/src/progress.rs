//! What people see while something runs.

use std::fmt::Display;

/// A step has begun.
pub(crate) fn step(what: impl Display) {
    eprintln!("==> {what}");
}

/// Something worth knowing within a step.
pub(crate) fn note(what: impl Display) {
    eprintln!("    {what}");
}

/// A table with a header row; columns as wide as they need to be.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut header.iter().copied())];
    lines.push(widths.iter().map(|&w| "-".repeat(w)).collect::<Vec<_>>().join("  "));
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let text = table(&["who", "n"], &[vec!["t22".into(), "34".into()], vec!["t33-pod".into(), "1".into()]]);
        assert_eq!(text, "who      n\n-------  --\nt22      34\nt33-pod  1");
    }
}
