//! The rules: what becomes of a packet and of its flow's entry.

use super::{Entry, Frontend};

/// Ticks after which a SYN that was not answered, or was refused, no longer holds its ports.
pub const UNANSWERED_TICKS: u16 = 4;
/// Ticks after which a direct connection that has been silent no longer holds its ports against a VIP's SYN.
pub const DIRECT_TICKS: u16 = 20;
/// Ticks after which a UDP flow that has been silent no longer holds its ports.
pub const DATAGRAM_TICKS: u16 = 8;
/// A SYN's sequence number, and how much data it has (Fast Open).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syn {
    /// Sequence number.
    pub sequence: u32,
    /// Bytes of data.
    pub length: u32,
}

/// A packet on its way to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A TCP SYN.
    Syn(Syn),
    /// Any other TCP segment, or an ICMP error about the flow.
    Other,
    /// A UDP datagram.
    Datagram,
}

/// What a packet on its way to an endpoint finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// Its own entry.
    Known,
    /// Its own entry, whose pending SYN it is from now on.
    Renew,
    /// Free ports: the flow gets an entry.
    New,
    /// Ports that are in use otherwise: the flow gets another source port, if it has none yet.
    Clash,
    /// No entry of its own: goes by its clash entry, or as it is.
    Search,
}

/// Judges a packet for `frontend` by the entry of its ports. An entry of a VIP that is gone counts as none: the caller
/// has left it out.
#[inline(always)]
#[must_use]
pub fn inbound(entry: Option<Entry>, frontend: Frontend, arrival: Arrival, now: u16) -> Inbound {
    let Some(entry) = entry else {
        return if matches!(arrival, Arrival::Other) { Inbound::Search } else { Inbound::New };
    };
    let own = entry.port() == 0;
    let (current, pending, age) = (entry.current(), entry.pending(), entry.age(now));
    match arrival {
        Arrival::Other if own && (current == frontend || pending == frontend) => Inbound::Known,
        Arrival::Other => Inbound::Search,
        Arrival::Syn(_) if own && (current == frontend || current.is_none() && is_waiting(&entry, frontend)) => {
            Inbound::Renew
        }
        Arrival::Syn(_)
            if current.is_none() && age > if entry.is_direct() { DIRECT_TICKS } else { UNANSWERED_TICKS } =>
        {
            Inbound::New
        }
        Arrival::Datagram if own && current == frontend => Inbound::Known,
        Arrival::Datagram if age > DATAGRAM_TICKS => Inbound::New,
        Arrival::Syn(_) | Arrival::Datagram => Inbound::Clash,
    }
}

#[inline(always)]
fn is_waiting(entry: &Entry, frontend: Frontend) -> bool {
    !entry.is_direct() && entry.pending() == frontend
}

/// What becomes of a packet that an endpoint sends, and of its flow's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// Leaves as it is.
    Untouched,
    /// Leaves as it is; the ports are a direct connection's.
    Direct,
    /// Gets this frontend's address and port.
    Translate(Frontend),
    /// Likewise, and the flow is confirmed.
    Confirm(Frontend),
    /// Likewise, and the endpoint has ended the connection, or its half of it.
    Close(Frontend),
    /// Likewise, and the entry goes: the endpoint refused the connection.
    Last(Frontend),
}

/// TCP flag.
pub const FIN: u8 = 1;
/// TCP flag.
pub const SYN: u8 = 2;
/// TCP flag.
pub const RST: u8 = 4;
/// TCP flag.
pub const ACK: u8 = 16;

/// Judges a TCP segment by the entry of its ports.
#[inline(always)]
#[must_use]
pub fn outbound_tcp(entry: &Entry, flags: u8, acknowledgement: u32) -> Outbound {
    let current = entry.current();
    if flags & SYN != 0 {
        if flags & ACK == 0 {
            return Outbound::Direct;
        }
        if entry.answers(acknowledgement) {
            return Outbound::Confirm(entry.pending());
        }
        return if entry.answered(acknowledgement) { Outbound::Translate(current) } else { Outbound::Direct };
    }
    if !current.is_none() {
        let ends = flags & (FIN | RST) != 0 && !entry.pending().is_none();
        return if ends { Outbound::Close(current) } else { Outbound::Translate(current) };
    }
    if flags & RST == 0 {
        return Outbound::Direct;
    }
    // What was not SYN-ACKed can only be refused; another RST ends a direct connection.
    if entry.answers(acknowledgement) { Outbound::Last(entry.pending()) } else { Outbound::Untouched }
}

/// Judges a UDP datagram by the entry of its ports.
#[inline(always)]
#[must_use]
pub fn outbound_udp(entry: &Entry) -> Outbound {
    if entry.current().is_none() { Outbound::Untouched } else { Outbound::Translate(entry.current()) }
}
