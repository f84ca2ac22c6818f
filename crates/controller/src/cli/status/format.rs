//! Tables, numbers and colours for people.

use std::io::IsTerminal as _;

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table};

/// Whether colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Style {
    pub(in crate::cli) colour: bool,
}

impl Style {
    /// Colour only on a terminal, and not where `NO_COLOR` is set (no-color.org).
    pub(in crate::cli) fn of_stdout(plain: bool) -> Self {
        let asked_not_to = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: !plain && !asked_not_to && std::io::stdout().is_terminal() }
    }

    /// A text in this colour.
    pub(in crate::cli) fn paint(self, text: &str, tone: Tone) -> String {
        match (self.colour, tone) {
            (false, _) | (_, Tone::Plain) => text.to_owned(),
            (true, Tone::Good) => format!("\x1b[32m{text}\x1b[0m"),
            (true, Tone::Warning) => format!("\x1b[33m{text}\x1b[0m"),
            (true, Tone::Bad) => format!("\x1b[31m{text}\x1b[0m"),
            (true, Tone::Heading) => format!("\x1b[1m{text}\x1b[0m"),
        }
    }
}

/// What a text means, said in colour too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Tone {
    Plain,
    Good,
    Warning,
    Bad,
    Heading,
}

/// A cell: text, and whether it is a number.
pub(in crate::cli) fn text(value: impl Into<String>, tone: Tone, style: Style) -> Cell {
    let cell = Cell::new(value.into());
    if !style.colour {
        return cell;
    }
    match tone {
        Tone::Plain => cell,
        Tone::Good => cell.fg(Color::Green),
        Tone::Warning => cell.fg(Color::Yellow),
        Tone::Bad => cell.fg(Color::Red),
        Tone::Heading => cell.add_attribute(Attribute::Bold),
    }
}

/// A cell of plain text.
pub(in crate::cli) fn plain(value: impl Into<String>) -> Cell {
    Cell::new(value.into())
}

/// A cell with a number.
pub(in crate::cli) fn number(value: u64) -> Cell {
    Cell::new(grouped(value)).set_alignment(CellAlignment::Right)
}

/// A cell with a rate, where there is one.
pub(in crate::cli) fn rate(value: Option<f64>) -> Cell {
    Cell::new(value.map_or_else(String::new, |value| format!("{value:.0}"))).set_alignment(CellAlignment::Right)
}

/// A table without lines, headings in capitals, as `kubectl` prints them.
pub(in crate::cli) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>, style: Style) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(headings.iter().map(|heading| text(*heading, Tone::Heading, style)));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// 1234567 as `1,234,567`.
pub(in crate::cli) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 frontend`, `2 frontends`.
pub(in crate::cli) fn count(value: usize, thing: &str) -> String {
    if value == 1 { format!("1 {thing}") } else { format!("{} {thing}s", grouped(value as u64)) }
}

/// A number of seconds in its two largest units: `3 d 4 h`.
pub(in crate::cli) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}
