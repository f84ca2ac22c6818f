//! The table that is printed and the JSON that is written.

use std::fmt;
use std::path::Path;

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// What part: a heading of the table.
    pub(crate) subject: &'static str,
    /// What was measured.
    pub(crate) name: String,
    /// The figure.
    pub(crate) value: f64,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// The floor measured in the same run, same unit.
    pub(crate) floor: Option<f64>,
    /// What design asks for, in words, and whether the figure meets it.
    pub(crate) aim: Option<(String, bool)>,
}

/// Everything measured in one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: String,
    guenon: &'static str,
    figures: Vec<Figure>,
}

impl Report {
    pub(crate) fn new(machine: String) -> Self {
        Self { machine, guenon: env!("CARGO_PKG_VERSION"), figures: Vec::new() }
    }

    /// Adds a figure, and says it at once: runs are long.
    pub(crate) fn add(&mut self, figure: Figure) {
        eprintln!("  {:<58} {:>12.1} {}", figure.name, figure.value, figure.unit);
        self.figures.push(figure);
    }

    pub(crate) fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header(["subject", "measured", "figure", "unit", "floor", "ratio", "aim", "met"]);
        for figure in &self.figures {
            let (aim, met) = match &figure.aim {
                Some((aim, true)) => (aim.as_str(), "yes"),
                Some((aim, false)) => (aim.as_str(), "NO"),
                None => ("", ""),
            };
            table.add_row([
                figure.subject.to_owned(),
                figure.name.clone(),
                format!("{:.1}", figure.value),
                figure.unit.to_owned(),
                figure.floor.map_or_else(String::new, |floor| format!("{floor:.1}")),
                figure
                    .floor
                    .filter(|floor| *floor > 0.0)
                    .map_or_else(String::new, |floor| format!("{:.2}", figure.value / floor)),
                aim.to_owned(),
                met.to_owned(),
            ]);
        }
        for column in [2, 4, 5] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(f, "Guenon {} on {}\n\n{table}", self.guenon, self.machine)
    }
}
