//! ICMP (RFC 792, RFC 1191) and ICMPv6 (RFC 4443): what is looked at.

/// Bytes of the header that all messages share.
pub const LEN: usize = 8;

/// Echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Code of [`UNREACHABLE`]: fragmentation needed and DF set.
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// Echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Time exceeded.
pub const TIME_EXCEEDED: u8 = 11;

/// ICMPv6 destination unreachable.
pub const V6_UNREACHABLE: u8 = 1;
/// ICMPv6 packet too big.
pub const V6_TOO_BIG: u8 = 2;
/// ICMPv6 time exceeded.
pub const V6_TIME_EXCEEDED: u8 = 3;
/// ICMPv6 echo request.
pub const V6_ECHO_REQUEST: u8 = 128;
/// ICMPv6 echo reply.
pub const V6_ECHO_REPLY: u8 = 129;
/// First message of neighbour discovery (RFC 4861).
pub const V6_FIRST_DISCOVERY: u8 = 133;
/// Last message of neighbour discovery.
pub const V6_LAST_DISCOVERY: u8 = 137;

/// What an ICMP message to a VIP is, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Echo request: answered.
    Echo,
    /// An error about a packet that it quotes: follows that packet's flow.
    Error,
    /// Neighbour discovery: always the kernel's.
    Discovery,
    /// Any other.
    Other,
}

/// Judges an ICMP type (IPv4).
#[inline(always)]
#[must_use]
pub const fn v4_message(kind: u8) -> Message {
    match kind {
        ECHO_REQUEST => Message::Echo,
        UNREACHABLE | TIME_EXCEEDED => Message::Error,
        _ => Message::Other,
    }
}

/// Judges an ICMPv6 type.
#[inline(always)]
#[must_use]
pub const fn v6_message(kind: u8) -> Message {
    match kind {
        V6_ECHO_REQUEST => Message::Echo,
        V6_UNREACHABLE | V6_TOO_BIG | V6_TIME_EXCEEDED => Message::Error,
        V6_FIRST_DISCOVERY..=V6_LAST_DISCOVERY => Message::Discovery,
        _ => Message::Other,
    }
}
