use guenon_ebpf::abi::{PASSED, REDIRECTED, TRANSMITTED};
use serde::Serialize;

use super::InForce;
use super::format::{self, Style, Tone, number, plain, rate};
use crate::reading::AttachedMode;

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
    /// Packets received a second since the last reading (`--watch`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) received_per_second: Option<f64>,
}

pub(super) fn list(in_force: &InForce) -> Vec<Interface> {
    let list = in_force.reading.interfaces.iter().map(|interface| {
        let total = interface.total();
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
            received_per_second: before
                .map(|(elapsed, before)| received.saturating_sub(before) as f64 / elapsed.as_secs_f64()),
        }
    });
    list.collect()
}

pub(super) fn table(list: &[Interface], style: Style) -> String {
    let headings = [
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
        "RECEIVED/S",
    ];
    let watched = list.iter().any(|interface| interface.received_per_second.is_some());
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
            plain(interface.ledger_difference.to_string()).set_alignment(comfy_table::CellAlignment::Right),
            number(interface.kernel_rx_dropped),
            number(interface.kernel_tx_dropped),
        ];
        if watched {
            row.push(rate(interface.received_per_second));
        }
        row
    });
    format::table(&headings[..if watched { 12 } else { 11 }], rows, style)
}
