//! The kernel's tables, kept current by its events.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::Ordering;

use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NLM_F_CREATE, NetlinkPayload};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};

use super::ask::Ask;
use super::compose::NeighbourKey;
use super::connection::{Connection, Messages, NetlinkError};
use super::monitor::MonitorCounters;
use super::parse;
use super::read::{read, read_addresses, read_routes, read_rules};
use super::tables::Tables;

const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];
/// Room for events that come faster than they are read, bytes.
const EVENT_BUFFER: usize = 4 << 20;
/// The kernel sends at most 32 KiB at once.
pub(super) const DATAGRAM: usize = 64 * 1024;
/// What has changed since the last view.
#[derive(Clone, Debug, Default)]
pub(super) struct Changed {
    /// Events were lost: nothing is sure.
    pub(super) all: bool,
    pub(super) addresses: bool,
    pub(super) routes: bool,
    pub(super) view: bool,
    /// Neighbours that the view shows and whose MAC is another now.
    pub(super) macs: BTreeSet<NeighbourKey>,
}

impl Changed {
    pub(super) fn add(&mut self, more: Self) {
        let Self { all, addresses, routes, view, macs } = more;
        self.all |= all;
        self.addresses |= addresses;
        self.routes |= routes;
        self.view |= view;
        self.macs.extend(macs);
    }

    /// Whether tables must be read anew.
    pub(super) fn wants_reading(&self) -> bool {
        self.all || self.addresses || self.routes
    }
}

/// Sockets, and what was read from them.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) events: Socket,
    connection: Connection,
    pub(super) tables: Tables,
    pub(super) shown: Shown,
}

/// Neighbours that the view shows, or would if they were resolved: changes of others need no new view.
#[derive(Debug)]
pub(super) enum Shown {
    /// Every one.
    All,
    /// These.
    Only(BTreeSet<NeighbourKey>),
}

impl Kernel {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        // Events first, then the tables: nothing is missed in between.
        let mut events = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Open)?;
        events.bind_auto().map_err(NetlinkError::Open)?;
        if setsockopt(&events, sockopt::RcvBufForce, &EVENT_BUFFER).is_err() {
            // Without CAP_NET_ADMIN the limit is net.core.rmem_max.
            events.set_rx_buf_sz(EVENT_BUFFER as libc::c_int).map_err(NetlinkError::Open)?;
        }
        for group in GROUPS {
            events.add_membership(group as u32).map_err(NetlinkError::Open)?;
        }
        let mut connection = Connection::open()?;
        let tables = read(&mut connection)?;
        Ok(Self { events, connection, tables, shown: Shown::Only(BTreeSet::new()) })
    }

    /// Reads all events that are there.
    pub(super) fn drain(&mut self, buffer: &mut Vec<u8>, counters: &MonitorCounters) -> io::Result<Changed> {
        let mut changed = Changed::default();
        loop {
            buffer.clear();
            match self.events.recv(buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changed),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    counters.overruns.fetch_add(1, Ordering::Relaxed);
                    changed.all = true;
                    continue;
                }
                Err(error) => return Err(error),
            }
            for message in Messages(buffer) {
                counters.events.fetch_add(1, Ordering::Relaxed);
                match message.payload {
                    NetlinkPayload::InnerMessage(message) => self.take(message, &mut changed),
                    NetlinkPayload::Overrun(_) => changed.all = true,
                    _ => {}
                }
            }
        }
    }

    /// Applies one event. Addresses and routes are read anew instead: the kernel's order of addresses counts,
    /// and it removes routes of a link that goes down without a word.
    fn take(&mut self, message: RouteNetlinkMessage, changed: &mut Changed) {
        match message {
            RouteNetlinkMessage::NewLink(message) if message.header.interface_family == AddressFamily::Unspec => {
                let link = parse::link(message);
                let old = self.tables.links.get(&link.index);
                if old == Some(&link) {
                    return;
                }
                changed.view = true;
                changed.routes |= old.is_none_or(|old| (old.up, old.running) != (link.up, link.running));
                self.tables.links.insert(link.index, link);
            }
            RouteNetlinkMessage::DelLink(message) if message.header.interface_family == AddressFamily::Unspec => {
                let index = message.header.index;
                if self.tables.links.remove(&index).is_some() {
                    self.tables.neighbours.retain(|(link, _), _| *link != index);
                    (changed.view, changed.addresses) = (true, true);
                }
            }
            RouteNetlinkMessage::NewNeighbour(message) => {
                let Some((key, neighbour)) = parse::neighbour(message) else { return };
                let old = self.tables.neighbours.insert(key, neighbour);
                if old.and_then(|old| old.usable()) != neighbour.usable() {
                    self.take_mac(key, changed);
                }
            }
            RouteNetlinkMessage::DelNeighbour(message) => {
                let Some((key, _)) = parse::neighbour(message) else { return };
                if self.tables.neighbours.remove(&key).is_some() {
                    self.take_mac(key, changed);
                }
            }
            RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => changed.addresses = true,
            RouteNetlinkMessage::NewRoute(_)
            | RouteNetlinkMessage::DelRoute(_)
            | RouteNetlinkMessage::NewRule(_)
            | RouteNetlinkMessage::DelRule(_) => changed.routes = true,
            _ => {}
        }
    }

    fn take_mac(&self, key: NeighbourKey, changed: &mut Changed) {
        match &self.shown {
            Shown::All => changed.view = true,
            Shown::Only(needed) if needed.contains(&key) => {
                changed.macs.insert(key);
            }
            Shown::Only(_) => {}
        }
    }

    /// Reads anew what events alone don't tell.
    pub(super) fn refresh(&mut self, changed: &Changed, counters: &MonitorCounters) -> Result<(), NetlinkError> {
        let Changed { all, addresses, routes, view: _, macs: _ } = changed;
        if *all {
            counters.resyncs.fetch_add(1, Ordering::Relaxed);
            self.tables = read(&mut self.connection)?;
            return Ok(());
        }
        if *addresses {
            self.tables.addresses = read_addresses(&mut self.connection)?;
        }
        // Removing an address removes routes without a word.
        if *routes || *addresses {
            self.tables.rules = read_rules(&mut self.connection)?;
            self.tables.routes = read_routes(&mut self.connection, &self.tables.rules)?;
        }
        Ok(())
    }

    pub(super) fn ask(&mut self, ask: Ask) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = if ask.to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.ifindex = ask.link;
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(ask.to)));
        let what = format!("ask for neighbour {} on link {}", ask.to, ask.link);
        self.connection.change(&what, RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::tests::net::Net;

    #[test]
    fn lost_events_are_made_up_for_by_reading_everything_anew() {
        let net = Net::new();
        net.ip("link add eth0 type veth peer name far");
        net.address("172.17.2.2/24", "eth0");
        net.ip("link set eth0 up");
        let mut kernel = net.inside(|| Kernel::open().unwrap());
        kernel.events.set_rx_buf_sz(1 as libc::c_int).unwrap();

        for last in 3..100 {
            net.ip(&format!("route add 172.17.3.{last}/32 via 172.17.2.1 dev eth0 onlink"));
        }
        net.ip("neighbour replace 172.17.2.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent");
        net.ip("link set eth0 mtu 1400");

        let counters = MonitorCounters::default();
        let changed = kernel.drain(&mut Vec::with_capacity(DATAGRAM), &counters).unwrap();
        assert!(changed.all, "the kernel says that it lost some");
        assert!(counters.overruns.load(Ordering::Relaxed) >= 1);
        kernel.refresh(&changed, &counters).unwrap();
        assert_eq!(counters.resyncs.load(Ordering::Relaxed), 1);
        let fresh = net.inside(|| read(&mut Connection::open().unwrap()).unwrap());
        assert_eq!(kernel.tables, fresh);
        assert_eq!(kernel.tables.link_named("eth0").unwrap().mtu, 1400);
        assert_eq!(kernel.tables.routes.iter().filter(|route| route.via.is_some()).count(), 97);
    }
}
