//! What routers told about our tunnel packets ("too big"), remembered for ten minutes. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a router's word counts (RFC 1191 section 6.3, RFC 8201 section 5.4).
pub(super) const REMEMBERED: Duration = Duration::from_secs(600);
/// Less is not believed: who forges such messages shall not be able to stop all traffic.
const LEAST: (u32, u32) = (576, 1280); // IPv4 (RFC 791), IPv6 (RFC 8200)
/// Destinations remembered at most; more tunnel addresses than a node can have.
const MOST: usize = 65_536;

/// Path MTUs by tunnel address.
#[derive(Debug, Default)]
pub(super) struct PathMtus {
    told: BTreeMap<IpAddr, (u32, Instant)>,
}

impl PathMtus {
    /// A router said that packets to `destination` may have `mtu` bytes. Whether that changes anything.
    pub(super) fn tell(&mut self, destination: IpAddr, mtu: u32, now: Instant) -> bool {
        let least = if destination.is_ipv4() { LEAST.0 } else { LEAST.1 };
        let mtu = mtu.max(least);
        if self.told.len() >= MOST && !self.told.contains_key(&destination) {
            return false;
        }
        let before = self.told.insert(destination, (mtu, now + REMEMBERED));
        before.map(|(mtu, _)| mtu) != Some(mtu)
    }

    /// Forgets what was told too long ago. Whether there was any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let before = self.told.len();
        self.told.retain(|_, (_, until)| *until > now);
        self.told.len() != before
    }

    /// When something will be forgotten next.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.told.values().map(|(_, until)| *until).min()
    }

    /// What was told: destination and MTU.
    pub(super) fn all(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        self.told.iter().map(|(destination, (mtu, _))| (*destination, *mtu))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_routers_word_counts_for_ten_minutes() {
        let (mut told, now) = (PathMtus::default(), Instant::now());
        assert!(told.tell(address("10.9.0.1"), 1400, now));
        assert!(!told.tell(address("10.9.0.1"), 1400, now), "the same again changes nothing");
        assert_eq!(told.all().collect::<Vec<_>>(), [(address("10.9.0.1"), 1400)]);

        assert!(!told.expire(now + REMEMBERED / 2));
        assert_eq!(told.next_expiry(), Some(now + REMEMBERED));
        assert!(told.expire(now + REMEMBERED));
        assert!(told.is_empty());
    }

    #[test]
    fn absurd_values_are_not_believed() {
        let (mut told, now) = (PathMtus::default(), Instant::now());
        told.tell(address("10.9.0.1"), 68, now);
        told.tell(address("2001:db8::1"), 0, now);
        assert_eq!(told.all().map(|(_, mtu)| mtu).collect::<Vec<_>>(), [576, 1280]);
    }
}
