//! From netlink's messages to the plain structs of [`super::tables`]. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState as Nud,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop, RouteNextHopFlags, RouteType,
    RouteVia,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use super::tables::{Address, Link, Neighbour, NeighbourState, Route, RouteKind, Rule, VlanTag};
use crate::model::Mac;

/// IFA_F_TEMPORARY (for IPv6; the same bit is "secondary" for IPv4).
const TEMPORARY: AddressFlags = AddressFlags::Secondary;
/// RT_TABLE_LOCAL: the node's own addresses.
const LOCAL_TABLE: u32 = 255;

/// A link.
pub(super) fn link(message: LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        loopback: flags.contains(LinkFlags::Loopback),
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        ..Link::default()
    };
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) if ethernet => link.mac = mac(&bytes),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Link(index) if index != 0 => link.lower = Some(index),
            LinkAttribute::Controller(index) if index != 0 => link.controller = Some(index),
            LinkAttribute::LinkNetNsId(id) if id >= 0 => link.peer_namespace = Some(id),
            LinkAttribute::Xdp(xdp) => {
                link.has_xdp = xdp.iter().any(
                    |attribute| matches!(attribute, LinkXdp::Attached(attached) if *attached != XdpAttached::None),
                );
            }
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = kind.to_string(),
                        LinkInfo::Data(InfoData::Vlan(tag)) => link.vlan = vlan(&tag),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link
}

fn vlan(attributes: &[InfoVlan]) -> Option<VlanTag> {
    let mut tag = VlanTag { protocol: 0x8100, id: 0 };
    for attribute in attributes {
        match attribute {
            InfoVlan::Id(id) => tag.id = *id,
            InfoVlan::Protocol(protocol) => tag.protocol = (*protocol).into(),
            _ => {}
        }
    }
    (tag.id != 0).then_some(tag)
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac).filter(|mac| *mac != Mac::default())
}

/// An address; `None` for other families.
pub(super) fn address(message: AddressMessage) -> Option<Address> {
    let mut local = None;
    let mut peer = None;
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(address),
            AddressAttribute::Address(address) => peer = Some(address),
            AddressAttribute::Flags(all) => flags = all,
            _ => {}
        }
    }
    let own = local.or(peer)?;
    let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated;
    let temporary = own.is_ipv6() && flags.contains(TEMPORARY);
    Some(Address {
        link: message.header.index,
        net: IpNet::new(own, message.header.prefix_len).ok()?,
        global: message.header.scope == AddressScope::Universe,
        preferred: !flags.intersects(unusable) && !temporary,
    })
}

/// A neighbour, with its key; `None` for other families.
pub(super) fn neighbour(message: NeighbourMessage) -> Option<((u32, IpAddr), Neighbour)> {
    let mut to = None;
    let mut lladdr = None;
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => to = Some(IpAddr::V4(v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => to = Some(IpAddr::V6(v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => lladdr = mac(&bytes),
            _ => {}
        }
    }
    let state = match message.header.state {
        Nud::Reachable | Nud::Delay | Nud::Probe => NeighbourState::Fresh,
        Nud::Stale => NeighbourState::Stale,
        Nud::Permanent | Nud::Noarp => NeighbourState::Fixed,
        Nud::None | Nud::Incomplete | Nud::Failed | Nud::Other(_) | _ => NeighbourState::Unresolved,
    };
    Some(((message.header.ifindex, to?), Neighbour { mac: lladdr, state }))
}

/// A route; `None` for what tells nothing of the way out: other families, local and cloned routes, dead ones.
/// Of a multipath route the first living next hop is taken.
pub(super) fn route(message: RouteMessage) -> Option<Route> {
    let header = message.header;
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let kind = match header.kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => RouteKind::Refuse,
        RouteType::Throw => RouteKind::Throw,
        _ => return None,
    };
    // Routes chosen by source address or TOS are not for us: the tunnel's source is chosen after the route.
    let special = header.source_prefix_length != 0 || header.tos != 0;
    if special || header.flags.intersects(RouteFlags::Cloned | RouteFlags::Dead) {
        return None;
    }
    let mut route = Route {
        to: IpNet::new(any, header.destination_prefix_length).ok()?,
        table: u32::from(header.table),
        metric: 0,
        kind,
        link: 0,
        via: None,
        mtu: None,
    };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                route.to = IpNet::new(route_address(&to)?, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Table(table) => route.table = table,
            RouteAttribute::Priority(metric) => route.metric = metric,
            RouteAttribute::Oif(link) => route.link = link,
            RouteAttribute::Gateway(gateway) => route.via = route_address(&gateway),
            RouteAttribute::Via(via) => route.via = via_address(&via),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
                    _ => None,
                });
            }
            RouteAttribute::MultiPath(hops) => {
                let hop = hops.iter().find(|hop| !hop.flags.contains(RouteNextHopFlags::Dead))?;
                route.link = hop.interface_index;
                route.via = hop_gateway(hop);
            }
            _ => {}
        }
    }
    let usable = match route.kind {
        RouteKind::Unicast => route.link != 0,
        RouteKind::Refuse | RouteKind::Throw => {
            (route.link, route.via) = (0, None);
            true
        }
    };
    (usable && route.table != LOCAL_TABLE).then_some(route)
}

fn hop_gateway(hop: &RouteNextHop) -> Option<IpAddr> {
    hop.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(gateway) => route_address(gateway),
        RouteAttribute::Via(via) => via_address(via),
        _ => None,
    })
}

fn route_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn via_address(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteVia::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

/// A rule that applies to every packet that this node encapsulates; `None` for those with a condition.
pub(super) fn rule(message: RuleMessage) -> Option<Rule> {
    let header = message.header;
    let v6 = match header.family {
        AddressFamily::Inet => false,
        AddressFamily::Inet6 => true,
        _ => return None,
    };
    let conditional = header.src_len != 0
        || header.dst_len != 0
        || header.tos != 0
        || header.flags.contains(RuleFlags::Invert)
        || header.action != RuleAction::ToTable;
    if conditional {
        return None;
    }
    let mut rule = Rule { v6, priority: 0, table: u32::from(header.table), suppress_prefix_length: None };
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = priority,
            RuleAttribute::Table(table) => rule.table = table,
            RuleAttribute::SuppressPrefixLen(length) if length != u32::MAX => {
                rule.suppress_prefix_length = Some(length);
            }
            RuleAttribute::SuppressPrefixLen(_) | RuleAttribute::Protocol(_) => {}
            RuleAttribute::FwMask(_) | RuleAttribute::SuppressIfGroup(u32::MAX) | RuleAttribute::Other(_) => {}
            _ => return None,
        }
    }
    (rule.table != LOCAL_TABLE && rule.table != 0).then_some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::link::{InfoKind, VlanProtocol};
    use rtnetlink::packet_route::route::RouteHeader;

    #[test]
    fn a_vlan_device_has_its_tag_and_the_device_beneath() {
        let mut message = LinkMessage::default();
        message.header.index = 9;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        let tag = vec![InfoVlan::Id(42), InfoVlan::Protocol(VlanProtocol::Ieee8021Ad)];
        message.attributes = vec![
            LinkAttribute::IfName("eth1.42".into()),
            LinkAttribute::Link(8),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 9]),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(InfoData::Vlan(tag))]),
        ];
        let expected = Link {
            index: 9,
            name: "eth1.42".into(),
            mac: Some(Mac([2, 0, 0, 0, 0, 9])),
            kind: "vlan".into(),
            up: true,
            running: true,
            lower: Some(8),
            vlan: Some(VlanTag { protocol: 0x88a8, id: 42 }),
            ..Link::default()
        };
        assert_eq!(link(message), expected);
    }

    #[test]
    fn an_address_that_is_not_of_ethernet_is_no_mac() {
        let mut message = LinkMessage::default();
        message.header.link_layer_type = LinkLayerType::Tunnel;
        message.attributes = vec![LinkAttribute::Address(vec![10, 0, 0, 1, 0, 0])];
        assert_eq!(link(message).mac, None);
    }

    fn route_message(next_hops: Vec<RouteNextHop>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.kind = RouteType::Unicast;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.attributes = vec![RouteAttribute::MultiPath(next_hops)];
        message
    }

    fn next_hop(link: u32, flags: RouteNextHopFlags) -> RouteNextHop {
        let mut hop = RouteNextHop::default();
        hop.interface_index = link;
        hop.flags = flags;
        hop.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet([192, 0, 2, 1].into()))];
        hop
    }

    #[test]
    fn of_a_multipath_route_the_first_living_next_hop_is_taken() {
        let dead = next_hop(2, RouteNextHopFlags::Dead);
        let living = next_hop(3, RouteNextHopFlags::empty());
        let parsed = route(route_message(vec![dead.clone(), living.clone(), dead.clone()])).unwrap();
        assert_eq!((parsed.link, parsed.via), (3, Some([192, 0, 2, 1].into())));
        assert_eq!(route(route_message(vec![dead])), None);
    }

    #[test]
    fn routes_that_are_not_for_us_are_left_out() {
        let living = || vec![next_hop(3, RouteNextHopFlags::empty())];
        assert!(route(route_message(living())).is_some());
        for spoil in [
            |message: &mut RouteMessage| message.header.table = 255,
            |message: &mut RouteMessage| message.header.kind = RouteType::Local,
            |message: &mut RouteMessage| message.header.flags = RouteFlags::Cloned,
            |message: &mut RouteMessage| message.header.source_prefix_length = 64,
            |message: &mut RouteMessage| message.header.tos = 4,
            |message: &mut RouteMessage| message.header.address_family = AddressFamily::Mpls,
        ] {
            let mut message = route_message(living());
            spoil(&mut message);
            assert_eq!(route(message.clone()), None, "{:?}", message.header);
        }
    }

    #[test]
    fn neighbours_that_are_being_confirmed_are_good() {
        let states = [
            (Nud::Incomplete, None),
            (Nud::Failed, None),
            (Nud::None, None),
            (Nud::Reachable, Some(NeighbourState::Fresh)),
            (Nud::Delay, Some(NeighbourState::Fresh)),
            (Nud::Probe, Some(NeighbourState::Fresh)),
            (Nud::Stale, Some(NeighbourState::Stale)),
            (Nud::Permanent, Some(NeighbourState::Fixed)),
        ];
        for (state, expected) in states {
            let mut message = NeighbourMessage::default();
            message.header.state = state;
            message.attributes = vec![
                NeighbourAttribute::Destination(NeighbourAddress::Inet([192, 0, 2, 1].into())),
                NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1]),
            ];
            let (_, parsed) = neighbour(message).unwrap();
            assert_eq!(parsed.usable().map(|_| parsed.state), expected, "{state:?}");
        }
    }
}
