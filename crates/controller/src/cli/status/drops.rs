use guenon_ebpf::reason::DropReason;
use serde::Serialize;

use super::InForce;
use super::format::{self, Style, Tone, number, rate};

/// What was dropped for one reason.
#[derive(Debug, Serialize)]
pub(super) struct Drop {
    pub(super) reason: &'static str,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) cause: &'static str,
    pub(super) cure: &'static str,
    /// Packets a second since the last reading (`--watch`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) per_second: Option<f64>,
}

/// Reasons for which something was dropped, most frequent first.
pub(super) fn list(in_force: &InForce) -> Vec<Drop> {
    let total = in_force.reading.total();
    let before = in_force.before.as_ref().map(|(elapsed, reading)| (elapsed.as_secs_f64(), reading.total()));
    let mut list: Vec<Drop> = DropReason::ALL
        .iter()
        .map(|reason| {
            let counter = total.dropped_for(*reason);
            let per_second = before.as_ref().map(|(elapsed, before)| {
                counter.packets.saturating_sub(before.dropped_for(*reason).packets) as f64 / elapsed
            });
            Drop {
                reason: reason.name(),
                packets: counter.packets,
                bytes: counter.bytes,
                cause: reason.cause(),
                cure: reason.cure(),
                per_second,
            }
        })
        .filter(|drop| drop.packets > 0)
        .collect();
    list.sort_by_key(|drop| std::cmp::Reverse(drop.packets));
    list
}

pub(super) fn table(list: &[Drop], style: Style) -> String {
    if list.is_empty() {
        return "Nothing has been dropped.".to_owned();
    }
    let watched = list.iter().any(|drop| drop.per_second.is_some());
    let headings = ["REASON", "PACKETS", "BYTES", "PACKETS/S"];
    let rows = list.iter().map(|drop| {
        let mut row = vec![format::text(drop.reason, Tone::Warning, style), number(drop.packets), number(drop.bytes)];
        if watched {
            row.push(rate(drop.per_second));
        }
        row
    });
    let mut text = format::table(&headings[..if watched { 4 } else { 3 }], rows, style);
    for drop in list {
        text.push_str(&format!(
            "\n\n{}\n  cause: {}\n  cure:  {}",
            style.paint(drop.reason, Tone::Heading),
            drop.cause,
            drop.cure
        ));
    }
    text
}
