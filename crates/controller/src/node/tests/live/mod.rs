//! Against the kernel, in namespaces.

mod far_ends;
mod keeping;
mod lessons;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::model::{FarEnd, NextHopView, NodeView, Role};
use crate::netlink::tests::net::Net;
use crate::netlink::{Connection, read, read_links};
use crate::node::record::{FILE, Record};
use crate::node::{
    Duties, FarEnds, NodeKeeper, NodeSetup, Owned, Permission, Wish, observe_far_ends, offload_problems, tx_checksum,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const SYSCTLS: &str = "/proc/sys/net";

/// All that a keeper may change in a namespace: every number under conf/, and every address.
fn picture(net: &Net) -> (BTreeMap<String, String>, Vec<String>) {
    net.inside(|| {
        let mut values = BTreeMap::new();
        for family in ["ipv4", "ipv6"] {
            for device in fs::read_dir(format!("/proc/sys/net/{family}/conf")).unwrap() {
                for file in fs::read_dir(device.unwrap().path()).unwrap() {
                    let path = file.unwrap().path();
                    let value = fs::read_to_string(&path).unwrap_or_default();
                    values.insert(path.display().to_string(), value);
                }
            }
        }
        // What was never asked for changes by itself.
        values.retain(|path, _| !path.ends_with("stable_secret"));
        let tables = read(&mut Connection::open().unwrap()).unwrap();
        let addresses = tables.addresses.iter().filter(|address| !address.net.to_string().starts_with("fe80"));
        (values, addresses.map(|address| format!("{address:?}")).collect())
    })
}

fn setup(addresses: &[&str], wishes: impl IntoIterator<Item = Wish>) -> NodeSetup {
    NodeSetup {
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        wishes: wishes.into_iter().collect::<BTreeSet<_>>(),
    }
}

fn everything(uplink: &str, veth: &str) -> NodeSetup {
    let (uplink, veth) = (uplink.to_owned(), veth.to_owned());
    setup(
        &["203.0.113.10", "2001:db8::10"],
        [
            Wish::LooseReversePath(uplink.clone()),
            Wish::ArpIgnore(uplink.clone()),
            Wish::ArpAnnounce(uplink.clone()),
            Wish::AcceptLocal(uplink),
            Wish::LooseReversePath(veth.clone()),
            Wish::AcceptLocal(veth.clone()),
            Wish::ForwardIpv4(veth.clone()),
            Wish::ForwardIpv6(veth),
        ],
    )
}

/// A node with an uplink and a veth to a pod.
struct Bed {
    client: Net,
    node: Net,
    pod: Net,
    state: TempDir,
}

impl Bed {
    fn new() -> Self {
        let bed = Self { client: Net::new(), node: Net::new(), pod: Net::new(), state: TempDir::new().unwrap() };
        bed.node.veth(("eth0", "02:00:00:00:00:33"), &bed.client, ("eth0", "02:00:00:00:00:01"));
        bed.client.address("172.17.3.1/24", "eth0");
        bed.client.address("2001:db8:3::1/64", "eth0");
        bed.node.address("172.17.3.3/24", "eth0");
        bed.node.address("2001:db8:3::3/64", "eth0");
        bed.node.veth(("veth7", "02:00:00:00:00:07"), &bed.pod, ("eth0", "02:00:00:00:00:77"));
        bed.node.address("169.254.7.1/32", "veth7");
        bed.node.ip("route add 10.0.0.7/32 dev veth7");
        bed.pod.address("10.0.0.7/32", "eth0");
        bed.pod.ip("route add 169.254.7.1 dev eth0");
        bed.pod.ip("route add default via 169.254.7.1 dev eth0");
        bed.node.address("fd00:7::1/64", "veth7");
        bed.pod.address("fd00:7::7/64", "eth0");
        bed.pod.ip("route add default via fd00:7::1 dev eth0");
        bed.pod.address("203.0.113.10/32", "lo");
        bed.pod.address("2001:db8::10/128", "lo");
        bed.sysctl("ipv4/conf/all/rp_filter", 1);
        bed.sysctl("ipv4/conf/veth7/forwarding", 0);
        bed
    }

    fn sysctl(&self, path: &str, value: i64) {
        self.node.inside(|| fs::write(Path::new(SYSCTLS).join(path), value.to_string()).unwrap());
    }

    fn value(&self, path: &str) -> i64 {
        self.node.inside(|| fs::read_to_string(Path::new(SYSCTLS).join(path)).unwrap().trim().parse().unwrap())
    }

    fn keeper<T: Send>(&self, work: impl FnOnce(&mut NodeKeeper) -> T + Send) -> T {
        self.with(Permission::Change, work)
    }

    fn with<T: Send>(&self, permission: Permission, work: impl FnOnce(&mut NodeKeeper) -> T + Send) -> T {
        self.node.inside(|| work(&mut NodeKeeper::open(self.state.path(), permission, Path::new(SYSCTLS)).unwrap()))
    }

    /// Whether one of so many datagrams from this address of the pod reaches the client.
    fn reply_arrives(&self, vip: &str, attempts: usize) -> bool {
        let client = if vip.contains(':') { "[2001:db8:3::1]:7777" } else { "172.17.3.1:7777" };
        let client: SocketAddr = client.parse().unwrap();
        let receiver = self.client.inside(|| UdpSocket::bind(client).unwrap());
        receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let sender = self.pod.inside(|| UdpSocket::bind((ip(vip), 80)).unwrap());
        (0..attempts).any(|_| {
            // An earlier one may have been answered with an ICMP error.
            let _ = sender.send_to(b"reply", client);
            let mut bytes = [0; 16];
            receiver.recv_from(&mut bytes).is_ok_and(|(_, from)| from.ip() == ip(vip))
        })
    }
}
