//! Reads the kernel's tables whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::packet_route::rule::RuleMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::connection::{Connection, NetlinkError};
use super::parse;
use super::tables::{Address, Link, Neighbour, Route, Rule, Tables};

/// RT_TABLE_MAIN.
const MAIN_TABLE: u32 = 254;
/// Priority of the rule for the main table.
const MAIN_PRIORITY: u32 = 32766;

/// Everything, of the connection's network namespace.
///
/// # Errors
///
/// [`NetlinkError`].
pub fn read(connection: &mut Connection) -> Result<Tables, NetlinkError> {
    let rules = read_rules(connection)?;
    Ok(Tables {
        links: read_links(connection)?,
        addresses: read_addresses(connection)?,
        routes: read_routes(connection, &rules)?,
        rules,
        neighbours: read_neighbours(connection)?,
    })
}

/// All links, by index.
///
/// # Errors
///
/// [`NetlinkError`].
pub fn read_links(connection: &mut Connection) -> Result<BTreeMap<u32, Link>, NetlinkError> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    connection.dump("list links", RouteNetlinkMessage::GetLink(message), |links: &mut BTreeMap<_, _>, message| {
        if let RouteNetlinkMessage::NewLink(message) = message {
            let link = parse::link(message);
            links.insert(link.index, link);
        }
    })
}

/// All addresses, in the kernel's order.
///
/// # Errors
///
/// [`NetlinkError`].
pub fn read_addresses(connection: &mut Connection) -> Result<Vec<Address>, NetlinkError> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    connection.dump("list addresses", request, |addresses: &mut Vec<_>, message| {
        if let RouteNetlinkMessage::NewAddress(message) = message {
            addresses.extend(parse::address(message));
        }
    })
}

/// All neighbours of IPv4 and IPv6.
pub(super) fn read_neighbours(connection: &mut Connection) -> Result<HashMap<(u32, IpAddr), Neighbour>, NetlinkError> {
    let mut neighbours = HashMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = NeighbourMessage::default();
        request.header.family = family;
        let request = RouteNetlinkMessage::GetNeighbour(request);
        let found = connection.dump("list neighbours", request, |found: &mut Vec<_>, message| {
            if let RouteNetlinkMessage::NewNeighbour(message) = message {
                found.extend(parse::neighbour(message));
            }
        });
        neighbours.extend(unless_absent(found)?);
    }
    Ok(neighbours)
}

/// The rules that apply to every packet, in order of family and priority.
pub(super) fn read_rules(connection: &mut Connection) -> Result<Vec<Rule>, NetlinkError> {
    let mut rules = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RuleMessage::default();
        request.header.family = family;
        let found = connection.dump(
            "list routing rules",
            RouteNetlinkMessage::GetRule(request),
            |found: &mut Vec<_>, message| {
                if let RouteNetlinkMessage::NewRule(message) = message {
                    found.extend(parse::rule(message));
                }
            },
        );
        let mut found = unless_absent(found)?;
        if found.is_empty() {
            // A kernel without policy routing has one table.
            let v6 = family == AddressFamily::Inet6;
            found = vec![Rule { v6, priority: MAIN_PRIORITY, table: MAIN_TABLE, suppress_prefix_length: None }];
        }
        found.sort_by_key(|rule| rule.priority);
        rules.extend(found);
    }
    Ok(rules)
}

/// The routes of the tables that the rules name.
pub(super) fn read_routes(connection: &mut Connection, rules: &[Rule]) -> Result<Vec<Route>, NetlinkError> {
    let mut routes = Vec::new();
    let tables: BTreeSet<(bool, u32)> = rules.iter().map(|rule| (rule.v6, rule.table)).collect();
    for (v6, table) in tables {
        let mut request = RouteMessage::default();
        request.header.address_family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        request.attributes.push(RouteAttribute::Table(table));
        let found =
            connection.dump("list routes", RouteNetlinkMessage::GetRoute(request), |found: &mut Vec<_>, message| {
                if let RouteNetlinkMessage::NewRoute(message) = message {
                    // Kernels before 4.20 don't filter.
                    found.extend(parse::route(message).filter(|route| route.table == table));
                }
            });
        routes.extend(unless_absent(found)?);
    }
    Ok(routes)
}

/// A table or family that the kernel doesn't have is an empty one.
fn unless_absent<T: Default>(result: Result<T, NetlinkError>) -> Result<T, NetlinkError> {
    match result {
        Err(error)
            if matches!(
                error.errno(),
                Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPFNOSUPPORT)
            ) =>
        {
            Ok(T::default())
        }
        other => other,
    }
}
