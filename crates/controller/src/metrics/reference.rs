//! The references of docs/, made of what the code says.

use std::fmt::Write as _;

use guenon_ebpf::abi::Event;
use guenon_ebpf::reason::{DropReason, Stage};

use super::definition::{ALL, CONTROLLER, Definition, Detail};
use crate::model::ProblemReason;

const GENERATED: &str = "<!-- Generated from the code by `guenon reference`; a test fails when it differs. -->\n";

/// docs/metrics.md.
#[must_use]
pub fn metrics_reference() -> String {
    let mut text = format!(
        "{GENERATED}# Metrics\n\n\
         `guenon agent` serves them at `http://127.0.0.1:9478/metrics` (`--listen`). What packets count is read from the\n\
         kernel's maps at each scrape: it goes on while no agent runs, and over its restart.\n\n\
         Exported at the detail given, and at each finer one (`--metrics-detail node|service|endpoint`).\n\n"
    );
    table(&mut text, ALL);
    text.push_str(
        "\nEach packet is counted once on entry and once under its verdict, so in a moment of rest, for each interface\n\
         and CPU,\n\n\
         \x20   guenon_received_packets_total = sum by (interface, cpu) (guenon_packets_total)\n\
         \x20   sum(guenon_packets_total{verdict=\"drop\"}) + sum(guenon_egress_packets_total{verdict=\"drop\"})\n\
         \x20     = sum(guenon_drops_total)\n\n\
         `guenon_ledger_difference` is the difference of the first, `guenon_egress_ledger_difference` that of the program on\n\
         the way out.\n\n\
         ## Values of `reason` in `guenon_drops_total`\n\nSee [drop-reasons.md](drop-reasons.md).\n\n\
         ## Values of `event` in `guenon_events_total`\n\n",
    );
    for (_, name) in Event::ALL {
        let _ = writeln!(text, "- `{name}`");
    }
    text.push_str("\n## Values of `reason` in `guenon_problems`\n\n");
    for reason in ProblemReason::ALL {
        let _ = writeln!(text, "- `{}`", reason.name());
    }
    text.push_str(
        "\n## The controller\n\n`guenon controller` serves its own at `http://127.0.0.1:9479/metrics` (`--listen`), and \
         of those above\n`guenon_source_*`, `guenon_build_info` and those of the process.\n\n",
    );
    table(&mut text, CONTROLLER);
    text
}

/// docs/drop-reasons.md.
#[must_use]
pub fn drop_reasons_reference() -> String {
    let mut text = format!(
        "{GENERATED}# Drop reasons\n\n\
         Every packet that Guenon drops is counted under exactly one of these: `guenon status drops`, the metric\n\
         `guenon_drops_total{{reason}}`, and `guenon simulate` name it. A number is never reused.\n\n\
         | number | reason | where | what has happened | what to do |\n|---|---|---|---|---|\n"
    );
    for reason in DropReason::ALL {
        let stage = match reason.stage() {
            Stage::Director => "director",
            Stage::Decap => "decap",
            Stage::Both => "both",
        };
        let number = (*reason as u8).to_string();
        // What alerts and pages link to: drop-reasons.md#no_backend.
        let name = format!("<a id=\"{0}\"></a>`{0}`", reason.name());
        row(&mut text, &[&number, &name, stage, reason.cause(), reason.cure()]);
    }
    text
}

fn table(text: &mut String, metrics: &[Definition]) {
    text.push_str("| metric | type | labels | detail | meaning |\n|---|---|---|---|---|\n");
    for metric in metrics {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        row(
            text,
            &[
                &format!("`{}`", metric.name),
                metric.kind.name(),
                &labels.join(", "),
                if metric.detail == Detail::Node { "" } else { metric.detail.name() },
                metric.help,
            ],
        );
    }
}

fn row(text: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[track_caller]
    fn assert_committed(file: &str, expected: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(file);
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == expected,
            "docs/{file} is not what the code says; regenerate it with `guenon reference --write docs`"
        );
    }

    #[test]
    fn the_committed_metrics_reference_is_current() {
        assert_committed("metrics.md", &metrics_reference());
    }

    #[test]
    fn the_committed_drop_reasons_are_current() {
        assert_committed("drop-reasons.md", &drop_reasons_reference());
    }
}
