use guenon_ebpf::abi::{Event, PASSED, REDIRECTED, TRANSMITTED};
use serde::Serialize;

use super::InForce;
use super::format::{self, Style, Tone, number, plain, rate};
use crate::reading::{AttachedEgress, AttachedMode};

/// An interface and what became of its packets.
#[derive(Debug, Serialize)]
pub(super) struct Interface {
    pub(super) interface: String,
    pub(super) ifindex: u32,
    /// `native`, `generic`, `detached`.
    pub(super) mode: &'static str,
    pub(super) received: u64,
    pub(super) passed: u64,
    pub(super) transmitted: u64,
    pub(super) redirected: u64,
    pub(super) dropped: u64,
    /// Received less judged: 0 at rest.
    pub(super) ledger_difference: i64,
    /// Frames that kernel or driver dropped on receiving, beside these.
    pub(super) kernel_rx_dropped: u64,
    /// Frames that kernel or driver dropped on sending: sent or redirected by the program, and lost.
    pub(super) kernel_tx_dropped: u64,
    /// The program on the way out: `tcx`, `clsact`, `none`.
    pub(super) egress: &'static str,
    /// Packets that it saw.
    pub(super) egress_seen: u64,
    pub(super) egress_translated: u64,
    pub(super) egress_dropped: u64,
    /// Seen less judged, by that program: 0 at rest.
    pub(super) egress_ledger_difference: i64,
    /// Packets received a second since the last reading (`--watch`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) received_per_second: Option<f64>,
}

pub(super) fn list(in_force: &InForce) -> Vec<Interface> {
    let list = in_force.reading.interfaces.iter().map(|interface| {
        let total = interface.total();
        let egress = interface.total_egress();
        let received = total.received().packets;
        let before = in_force.before.as_ref().and_then(|(elapsed, reading)| {
            let before = reading.interfaces.iter().find(|before| before.name == interface.name)?;
            Some((elapsed, before.total().received().packets))
        });
        let (kernel_rx_dropped, kernel_tx_dropped) =
            in_force.kernel_drops.get(&interface.name).copied().unwrap_or_default();
        Interface {
            kernel_rx_dropped,
            kernel_tx_dropped,
            interface: interface.name.clone(),
            ifindex: interface.ifindex,
            mode: interface.mode.name(),
            received,
            passed: total.at(PASSED).packets,
            transmitted: total.at(TRANSMITTED).packets,
            redirected: total.at(REDIRECTED).packets,
            dropped: total.dropped().packets,
            ledger_difference: total.difference(),
            egress: interface.egress.name(),
            egress_seen: egress.received().packets,
            egress_translated: egress.event(Event::ReplyTranslated),
            egress_dropped: egress.dropped().packets,
            egress_ledger_difference: egress.difference(),
            received_per_second: before
                .map(|(elapsed, before)| received.saturating_sub(before) as f64 / elapsed.as_secs_f64()),
        }
    });
    list.collect()
}

pub(super) fn table(list: &[Interface], style: Style) -> String {
    let watched = list.iter().any(|interface| interface.received_per_second.is_some());
    // A node that translates nothing is not asked to read of it.
    let has_egress = list.iter().any(|interface| interface.egress != AttachedEgress::None.name());
    let mut headings = vec![
        "INTERFACE",
        "INDEX",
        "XDP",
        "RECEIVED",
        "PASSED",
        "SENT",
        "REDIRECTED",
        "DROPPED",
        "UNACCOUNTED",
        "KERNEL RX DROPS",
        "KERNEL TX DROPS",
    ];
    if has_egress {
        headings.extend(["EGRESS", "SEEN", "TRANSLATED", "EGRESS DROPPED", "EGRESS UNACCOUNTED"]);
    }
    if watched {
        headings.push("RECEIVED/S");
    }
    let signed = |value: i64| plain(value.to_string()).set_alignment(comfy_table::CellAlignment::Right);
    let rows = list.iter().map(|interface| {
        let tone = if interface.mode == AttachedMode::Detached.name() { Tone::Bad } else { Tone::Plain };
        let mut row = vec![
            plain(&interface.interface),
            number(u64::from(interface.ifindex)),
            format::text(interface.mode, tone, style),
            number(interface.received),
            number(interface.passed),
            number(interface.transmitted),
            number(interface.redirected),
            number(interface.dropped),
            signed(interface.ledger_difference),
            number(interface.kernel_rx_dropped),
            number(interface.kernel_tx_dropped),
        ];
        if has_egress {
            row.extend([
                plain(interface.egress),
                number(interface.egress_seen),
                number(interface.egress_translated),
                number(interface.egress_dropped),
                signed(interface.egress_ledger_difference),
            ]);
        }
        if watched {
            row.push(rate(interface.received_per_second));
        }
        row
    });
    format::table(&headings, rows, style)
}
