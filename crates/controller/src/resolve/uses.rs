use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::NextHopKey;

/// What the ways to some endpoints make use of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Uses {
    /// Next hops that tunnels take, with the MTU of the route there.
    pub(super) next_hops: BTreeSet<(NextHopKey, u32)>,
    /// Addresses of this node that others send packets to.
    pub(super) tunnels: BTreeSet<IpAddr>,
    /// VIPs.
    pub(super) vips: BTreeSet<IpAddr>,
    /// VIPs of which an endpoint that serves is delivered to this node's stack.
    pub(super) loopback: BTreeSet<IpAddr>,
    /// Devices and addresses (or gateways) of endpoints behind veths.
    pub(super) veths: BTreeSet<(String, IpAddr)>,
    /// Devices of endpoints behind veths, and the VIPs that those reply from.
    pub(super) replies: BTreeSet<(String, IpAddr)>,
    /// Endpoints of this node that get their packets by `Nat`.
    pub(super) nat: BTreeSet<IpAddr>,
}

/// What all services together make use of.
#[derive(Debug, Default)]
pub(super) struct AllUses {
    pub(super) next_hops: Counted<(NextHopKey, u32)>,
    pub(super) tunnels: Counted<IpAddr>,
    pub(super) vips: Counted<IpAddr>,
    pub(super) loopback: Counted<IpAddr>,
    pub(super) veths: Counted<(String, IpAddr)>,
    pub(super) replies: Counted<(String, IpAddr)>,
    pub(super) nat: Counted<IpAddr>,
}

impl AllUses {
    /// One service's uses are no longer `old` but `new`. Returns the next hops that this touches, and whether there
    /// is another set of VIPs now.
    pub(super) fn swap(&mut self, old: &Uses, new: &Uses) -> (BTreeSet<NextHopKey>, bool) {
        if old == new {
            return (BTreeSet::new(), false);
        }
        let Self { next_hops, tunnels, vips, loopback, veths, replies, nat } = self;
        tunnels.swap(&old.tunnels, &new.tunnels);
        loopback.swap(&old.loopback, &new.loopback);
        veths.swap(&old.veths, &new.veths);
        replies.swap(&old.replies, &new.replies);
        nat.swap(&old.nat, &new.nat);
        let touched = next_hops.swap(&old.next_hops, &new.next_hops);
        let vips = vips.swap(&old.vips, &new.vips);
        (touched.into_iter().map(|(key, _)| key).collect(), !vips.is_empty())
    }

    /// The least MTU of the routes that use a next hop; `None` = it is not used.
    pub(super) fn route_mtu(&self, key: &NextHopKey) -> Option<u32> {
        let mut uses = self.next_hops.0.range((key.clone(), 0)..);
        uses.next().filter(|((used, _), _)| used == key).map(|((_, mtu), _)| *mtu)
    }
}

/// A set that counts how often each of its elements was put in.
#[derive(Debug)]
pub(super) struct Counted<T>(BTreeMap<T, usize>);

impl<T> Default for Counted<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord + Clone> Counted<T> {
    pub(super) fn keys(&self) -> impl Iterator<Item = &T> {
        self.0.keys()
    }

    pub(super) fn contains(&self, key: &T) -> bool {
        self.0.contains_key(key)
    }

    /// Takes out `old`, puts in `new`; returns what is there now and was not, or the other way round.
    fn swap(&mut self, old: &BTreeSet<T>, new: &BTreeSet<T>) -> BTreeSet<T> {
        let mut touched = BTreeSet::new();
        for added in new.difference(old) {
            let count = self.0.entry(added.clone()).or_default();
            *count += 1;
            if *count == 1 {
                touched.insert(added.clone());
            }
        }
        for removed in old.difference(new) {
            if let Some(count) = self.0.get_mut(removed) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(removed);
                    touched.insert(removed.clone());
                }
            }
        }
        touched
    }
}
