//! GUE variant 0 (draft-ietf-intarea-gue-09) and the private data by which Guenon names an endpoint.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | 0 |C|   hlen  |  proto/ctype  |             flags             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   type = 1    |     next      | alternatives  |  family bits  |  hlen 4-byte words of
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+  private data, or none
//! |        address of the endpoint that this packet is for        |
//! |    per alternative: tunnel address, endpoint address ...      |
//! ```

use crate::headers::protocol;
use crate::reason::DropReason;

/// Bytes of the header without private data.
pub const LEN: usize = 4;
/// Bytes of the private data before the first address.
pub const PRIVATE_LEN: usize = 4;
/// The only type of private data.
pub const PRIVATE_TYPE: u8 = 1;
/// Family bit: endpoint addresses are IPv6.
pub const ENDPOINTS_V6: u8 = 1;
/// Family bit: tunnel addresses are IPv6.
pub const TUNNELS_V6: u8 = 2;

/// What a GUE header says, once it was found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gue {
    /// Bytes of private data.
    pub private_len: usize,
    /// Whether the payload is IPv6 (else IPv4).
    pub v6: bool,
}

/// The header before a payload of this protocol (4 or 41) and this much private data (a multiple of 4, at
/// most 124).
#[must_use]
pub const fn header(protocol: u8, private_len: usize) -> [u8; LEN] {
    [private_len as u8 / 4, protocol, 0, 0]
}

/// Judges a GUE header; `payload` is what its UDP datagram holds, header included.
///
/// # Errors
///
/// The reason for which the packet is dropped.
#[inline(always)]
pub const fn parse(header: &[u8; LEN], payload: usize) -> Result<Gue, DropReason> {
    if header[0] >> 6 != 0 {
        return Err(DropReason::GueVersion);
    }
    if header[0] & 0x20 != 0 {
        return Err(DropReason::GueControl);
    }
    if header[2] != 0 || header[3] != 0 {
        return Err(DropReason::GueFlags);
    }
    let private_len = (header[0] & 0x1f) as usize * 4;
    if LEN + private_len > payload {
        return Err(DropReason::GueLength);
    }
    match header[1] {
        protocol::IPV4 => Ok(Gue { private_len, v6: false }),
        protocol::IPV6 => Ok(Gue { private_len, v6: true }),
        _ => Err(DropReason::GueProtocol),
    }
}

/// The first four bytes of private data that names one endpoint and no alternative.
#[must_use]
pub const fn private_header(endpoint_v6: bool, tunnel_v6: bool) -> [u8; PRIVATE_LEN] {
    let families = if endpoint_v6 { ENDPOINTS_V6 } else { 0 } | if tunnel_v6 { TUNNELS_V6 } else { 0 };
    [PRIVATE_TYPE, 0, 0, families]
}

/// Judges the first four bytes of `len` bytes of private data: whether the endpoint's address, which
/// follows, is IPv6.
///
/// # Errors
///
/// The reason for which the packet is dropped.
#[inline(always)]
pub const fn parse_private(header: &[u8; PRIVATE_LEN], len: usize) -> Result<bool, DropReason> {
    let [kind, next, count, families] = *header;
    if kind != PRIVATE_TYPE || families & !(ENDPOINTS_V6 | TUNNELS_V6) != 0 {
        return Err(DropReason::PrivateType);
    }
    let endpoint = if families & ENDPOINTS_V6 != 0 { 16 } else { 4 };
    let tunnel = if families & TUNNELS_V6 != 0 { 16 } else { 4 };
    if len != PRIVATE_LEN + endpoint + count as usize * (tunnel + endpoint) || next > count {
        return Err(DropReason::PrivateCount);
    }
    Ok(families & ENDPOINTS_V6 != 0)
}
