//! Where a packet stands in its frame, in one word.

use crate::headers::{Fragment, ethernet, ipv4, ipv6, protocol};
use crate::parse::Ip;

/// What a packet is, for what is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// TCP, with its ports.
    Tcp,
    /// UDP, with its ports.
    Udp,
    /// An ICMP error.
    Error,
    /// A later fragment.
    Later,
}

/// Where a packet stands in its frame, in one word, so that a function of its own can go on with it.
///
/// ```text
/// 0..24 slot in LOCALS, 24..26 VLAN tags, 26..41 from the IP header to the upper-layer header, 41..50 bytes of
/// tunnel headers between link and IP header, 50 IPv6, 51..53 subject, 53 first fragment, 54 came through a tunnel, 55 rough: 26..41 and 51..54 are
/// not filled in yet
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub u64);

impl Place {
    const ROUGH: u64 = 1 << 55;
    const BETWEEN: u64 = 0x1ff;

    /// The place of the packet `ip` behind a link header of `link_len` bytes, but for what only the packet itself tells.
    #[inline(always)]
    #[must_use]
    pub const fn rough(ip: &Ip, link_len: usize, local: u32, tunnel: bool) -> Self {
        let tags = ((link_len as u64).wrapping_sub(ethernet::LEN as u64) / ethernet::TAG_LEN as u64) & 3;
        let between = (ip.at as u64).wrapping_sub(link_len as u64) & Self::BETWEEN;
        Self(
            (local & 0xff_ffff) as u64
                | tags << 24
                | between << 41
                | (ip.v6 as u64) << 50
                | (tunnel as u64) << 54
                | Self::ROUGH,
        )
    }
    /// The place of a plain packet: whole TCP or UDP behind a bare Ethernet header and an IP header without options.
    #[inline(always)]
    #[must_use]
    pub const fn plain(v6: bool, udp: bool) -> Self {
        let head = if v6 { ipv6::LEN } else { ipv4::LEN } as u64;
        Self(head << 26 | (v6 as u64) << 50 | (udp as u64) << 51)
    }
    /// The same place, of a packet known to be plain, but for the tunnel headers in front: where its upper-layer header begins
    /// is then a constant.
    #[inline(always)]
    #[must_use]
    pub const fn plain_upper(self, v6: bool) -> Self {
        const LATER_OR_ERROR: u64 = 1 << 52;
        Self(self.0 & !(0x7fff << 26 | 1 << 50 | LATER_OR_ERROR | 3 << 24 | Self::ROUGH) | Self::plain(v6, false).0)
    }
    /// Whether it is.
    #[inline(always)]
    #[must_use]
    pub const fn is_rough(self) -> bool {
        self.0 & Self::ROUGH != 0
    }
    /// With what the packet tells.
    #[inline(always)]
    #[must_use]
    pub fn fill(self, ip: &Ip) -> Self {
        let head = (ip.upper as u64).wrapping_sub(ip.at as u64) & 0x7fff;
        let subject = match (ip.fragment, ip.protocol) {
            (Fragment::Later, _) => 3,
            (_, protocol::TCP) => 0,
            (_, protocol::UDP) => 1,
            _ => 2,
        };
        let first = (ip.fragment == Fragment::First) as u64;
        Self(self.0 & !Self::ROUGH | head << 26 | subject << 51 | first << 53)
    }
    /// Index of the slot in `LOCALS`.
    #[inline(always)]
    #[must_use]
    pub const fn local(self) -> u32 {
        self.0 as u32 & 0xff_ffff
    }
    /// Where the link header ends.
    #[inline(always)]
    #[must_use]
    pub const fn link_len(self) -> usize {
        ethernet::LEN + ((self.0 >> 24) as usize & 3) * ethernet::TAG_LEN
    }
    /// Where the IP header begins.
    #[inline(always)]
    #[must_use]
    pub const fn at(self) -> usize {
        self.link_len() + self.between()
    }
    /// Where the upper-layer header begins.
    #[inline(always)]
    #[must_use]
    pub const fn upper(self) -> usize {
        self.at() + ((self.0 >> 26) as usize & 0x7fff)
    }
    /// How many bytes of tunnel headers stand between link and IP header.
    #[inline(always)]
    #[must_use]
    pub const fn between(self) -> usize {
        (self.0 >> 41) as usize & Self::BETWEEN as usize
    }
    /// The place when those are gone.
    #[inline(always)]
    #[must_use]
    pub const fn stripped(self) -> Self {
        Self(self.0 & !(Self::BETWEEN << 41))
    }
    /// Whether it is IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn v6(self) -> bool {
        self.0 >> 50 & 1 != 0
    }
    /// What it is.
    #[inline(always)]
    #[must_use]
    pub const fn subject(self) -> Subject {
        match self.0 >> 51 & 3 {
            0 => Subject::Tcp,
            1 => Subject::Udp,
            2 => Subject::Error,
            _ => Subject::Later,
        }
    }
    /// Whether it is a first fragment.
    #[inline(always)]
    #[must_use]
    pub const fn is_first(self) -> bool {
        self.0 >> 53 & 1 != 0
    }
    /// Whether it came through a tunnel.
    #[inline(always)]
    #[must_use]
    pub const fn tunnel(self) -> bool {
        self.0 >> 54 & 1 != 0
    }
}
