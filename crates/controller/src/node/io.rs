//! Reads and writes sysctls and addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::plan::{Observed, all_forwarding};
use super::record::Record;
use super::setup::{Family, NodeSetup, Sysctl};
use crate::netlink::{Connection, NetlinkError, read_addresses, read_links};

/// The sysctls of the calling thread's network namespace.
#[derive(Clone, Debug)]
pub(super) struct Sysctls {
    /// /proc/sys/net, which follows the thread's namespace.
    root: PathBuf,
}

impl Sysctls {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Its value; `None` = it does not exist, or is no number.
    pub(super) fn get(&self, key: &Sysctl) -> Option<i64> {
        fs::read_to_string(self.root.join(key.path())).ok()?.trim().parse().ok()
    }

    pub(super) fn set(&self, key: &Sysctl, value: i64) -> io::Result<()> {
        fs::write(self.root.join(key.path()), value.to_string())
    }

    /// Devices that have IPv6 settings, `default` among them.
    fn ipv6_devices(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join("ipv6/conf")) else { return Vec::new() };
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }
}

/// Reads what a plan is made from.
pub(super) fn observe(
    sysctls: &Sysctls,
    connection: &mut Connection,
    setup: &NodeSetup,
    record: &Record,
) -> Result<Observed, NetlinkError> {
    let links = read_links(connection)?;
    let (mut loopback, mut elsewhere) = (BTreeSet::new(), BTreeSet::new());
    for address in read_addresses(connection)? {
        let is_loopback = links.get(&address.link).is_some_and(|link| link.loopback);
        (if is_loopback { &mut loopback } else { &mut elsewhere }).insert(address.net.addr());
    }
    let mut keys: BTreeSet<Sysctl> = setup.wishes.iter().flat_map(super::Wish::reads).collect();
    keys.extend(record.sysctls.keys().cloned());
    if keys.contains(&all_forwarding()) {
        let devices = sysctls.ipv6_devices();
        keys.extend(devices.iter().map(|device| Sysctl::of_device(Family::V6, device, "forwarding")));
    }
    let values: BTreeMap<Sysctl, i64> =
        keys.into_iter().filter_map(|key| sysctls.get(&key).map(|value| (key, value))).collect();
    let indices = links.into_values().map(|link| (link.name, link.index)).collect();
    Ok(Observed { sysctls: values, indices, loopback, elsewhere })
}

/// Puts an address on the loopback so that it is nobody's source by default: of host scope (IPv4), deprecated
/// and not probed for duplicates (IPv6). It is there already: fine.
pub(super) fn add_address(connection: &mut Connection, loopback: u32, address: IpAddr) -> Result<(), NetlinkError> {
    let mut message = address_message(loopback, address);
    if address.is_ipv4() {
        message.header.scope = AddressScope::Host;
    } else {
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        let mut lifetime = CacheInfo::default();
        (lifetime.ifa_preferred, lifetime.ifa_valid) = (0, u32::MAX);
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
    }
    let what = format!("put {address} on the loopback");
    let request = RouteNetlinkMessage::NewAddress(message);
    match connection.change(&what, request, NLM_F_CREATE | NLM_F_EXCL) {
        Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
        done => done,
    }
}

/// Takes an address off the loopback. It is gone already: fine.
pub(super) fn remove_address(connection: &mut Connection, loopback: u32, address: IpAddr) -> Result<(), NetlinkError> {
    let message = address_message(loopback, address);
    let what = format!("take {address} off the loopback");
    match connection.change(&what, RouteNetlinkMessage::DelAddress(message), 0) {
        Err(error) if error.errno() == Some(libc::EADDRNOTAVAIL) => Ok(()),
        done => done,
    }
}

fn address_message(link: u32, address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = if address.is_ipv4() { 32 } else { 128 };
    message.header.index = link;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    message
}
