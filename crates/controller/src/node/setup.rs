//! What is wanted of the node. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::{LocalDelivery, NodeView, Path, Role, State};

/// Why the node must be set up: what it delivers to itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Duties {
    /// VIPs with a `Local` endpoint on this node that serves.
    pub loopback: BTreeSet<IpAddr>,
    /// Host-side devices of `Veth` endpoints on this node, whether or not they can be delivered to yet, with the
    /// VIPs that those reply from.
    pub veths: BTreeSet<(String, IpAddr)>,
    /// `Nat` endpoints on this node: its stack routes packets to them.
    pub pods: BTreeSet<IpAddr>,
}

impl Duties {
    /// What the data path's state means for the node.
    #[must_use]
    pub fn of(state: &State, view: &NodeView) -> Self {
        let mut duties = Self::default();
        for service in state.services.values() {
            for endpoint in &service.endpoints {
                match &endpoint.path {
                    Path::Local(LocalDelivery::Local) => {
                        duties.loopback.extend(service.frontends.iter().map(|frontend| frontend.vip));
                    }
                    Path::Local(LocalDelivery::Veth { .. } | LocalDelivery::None) => {
                        let way = view.next_hops.iter().find(|hop| hop.to.contains(&endpoint.address));
                        let Some(device) = way.map(|hop| &hop.interface) else { continue };
                        duties.veths.extend(service.frontends.iter().map(|frontend| (device.clone(), frontend.vip)));
                    }
                    Path::Local(LocalDelivery::Nat { .. }) => {
                        duties.pods.insert(endpoint.address);
                    }
                    Path::Tunnel { .. } | Path::Unreachable { .. } => {}
                }
            }
        }
        duties
    }
}

/// What is wanted of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSetup {
    /// VIPs that belong on the loopback.
    pub addresses: BTreeSet<IpAddr>,
    /// What sysctls must allow. In this order: what protects comes before what it protects from.
    pub wishes: BTreeSet<Wish>,
}

/// Something that sysctls must allow. In force for a device is, for most of them, the larger of `all`'s and the
/// device's own value; so a wish is a condition, not a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// IPv6 default routes by router advertisement outlive forwarding: accept_ra 2 where it is 1.
    KeepRouterAdvertisements(String),
    /// Replies that come in on this device are forwarded, IPv6.
    ForwardIpv6(String),
    /// Replies that come in on this device are forwarded, IPv4.
    ForwardIpv4(String),
    /// Packets whose source the routes expect elsewhere are taken (lesson 10): rp_filter 2 where 1 is in force.
    LooseReversePath(String),
    /// Packets whose source is an address of this node are taken (lesson 6).
    AcceptLocal(String),
    /// ARP is answered only for addresses of this device (lesson 10): the VIP is on the loopback.
    ArpIgnore(String),
    /// ARP requests name an address of this device, never the VIP (lesson 10).
    ArpAnnounce(String),
    /// What comes in on this device is routed to pods, or back from them, IPv4.
    RouteIpv4(String),
    /// The same, IPv6.
    RouteIpv6(String),
}

impl Wish {
    /// What for, for people.
    #[must_use]
    pub const fn purpose(&self) -> &'static str {
        match self {
            Self::KeepRouterAdvertisements(_) => "IPv6 forwarding would end default routes by router advertisement",
            Self::ForwardIpv6(_) | Self::ForwardIpv4(_) => "replies of endpoints behind veths are forwarded",
            Self::LooseReversePath(_) => "strict reverse-path filtering drops packets on the direct way",
            Self::AcceptLocal(_) => "packets from an address of this node are dropped as martian otherwise",
            Self::ArpIgnore(_) => "the VIP on the loopback must not answer ARP on the LAN",
            Self::ArpAnnounce(_) => "ARP requests must not carry the VIP",
            Self::RouteIpv4(_) | Self::RouteIpv6(_) => {
                "endpoints of delivery Nat get no packet, or answer none, while the kernel does not forward; the agent makes \
                 no router of a machine by itself"
            }
        }
    }

    /// Whether it is left to whoever runs the node: it lets through more than Guenon's packets.
    #[must_use]
    pub const fn is_yours(&self) -> bool {
        matches!(self, Self::RouteIpv4(_) | Self::RouteIpv6(_))
    }
}

impl NodeSetup {
    /// What these duties want of the node.
    #[must_use]
    pub fn new(duties: &Duties, view: &NodeView) -> Self {
        let Duties { loopback, veths, pods } = duties;
        let mut wishes = BTreeSet::new();
        let uplinks: BTreeSet<&String> = view.attached.iter().collect();
        let local_v4 = loopback.iter().any(IpAddr::is_ipv4);
        let behind_veths_v4 = veths.iter().any(|(_, vip)| vip.is_ipv4());
        let is_director = view.roles.contains(&Role::Director);

        for uplink in uplinks {
            if local_v4 || behind_veths_v4 {
                wishes.insert(Wish::LooseReversePath(uplink.clone()));
            }
            if local_v4 {
                wishes.insert(Wish::ArpIgnore(uplink.clone()));
                wishes.insert(Wish::ArpAnnounce(uplink.clone()));
                if is_director {
                    wishes.insert(Wish::AcceptLocal(uplink.clone()));
                }
            }
        }
        for (veth, vip) in veths {
            match vip {
                IpAddr::V4(_) => {
                    wishes.insert(Wish::LooseReversePath(veth.clone()));
                    wishes.insert(Wish::AcceptLocal(veth.clone()));
                    wishes.insert(Wish::ForwardIpv4(veth.clone()));
                }
                IpAddr::V6(_) => {
                    wishes.insert(Wish::ForwardIpv6(veth.clone()));
                    wishes.extend(by_advertisement(view).map(Wish::KeepRouterAdvertisements));
                }
            }
        }
        let own = |pod: &&IpAddr| view.interfaces.iter().flat_map(|own| &own.addresses).any(|net| net.addr() == **pod);
        for pod in pods.iter().filter(|pod| !own(pod)) {
            let way = view.next_hops.iter().find(|hop| hop.to.contains(pod)).map(|hop| &hop.interface);
            let devices = view.attached.iter().chain(way).cloned();
            wishes.extend(devices.map(if pod.is_ipv4() { Wish::RouteIpv4 } else { Wish::RouteIpv6 }));
        }
        Self { addresses: loopback.clone(), wishes }
    }
}

/// Devices that may have their default route by router advertisement: the uplinks and those of default routes.
fn by_advertisement(view: &NodeView) -> impl Iterator<Item = String> {
    let defaults = view.next_hops.iter().filter(|hop| hop.to.prefix_len() == 0 && hop.to.addr().is_ipv6());
    view.attached.iter().chain(defaults.map(|hop| &hop.interface)).cloned()
}

/// A sysctl under /proc/sys/net, as a path: `ipv4/conf/eth0/rp_filter`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sysctl(String);

impl Sysctl {
    /// A setting of a device, or of `all` or `default`.
    #[must_use]
    pub fn of_device(family: Family, device: &str, name: &str) -> Self {
        Self(format!("{family}/conf/{device}/{name}"))
    }

    /// The path under /proc/sys/net.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0
    }

    /// The device that it is of; `None` for `all` and `default`.
    #[must_use]
    pub fn device(&self) -> Option<&str> {
        self.0.split('/').nth(2).filter(|device| !matches!(*device, "all" | "default"))
    }
}

impl fmt::Display for Sysctl {
    /// As sysctl(8) takes it: with dots, or with slashes where the device's name has a dot.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains('.') { write!(f, "net/{}", self.0) } else { write!(f, "net.{}", self.0.replace('/', ".")) }
    }
}

/// Address family of a sysctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `ipv4`.
    V4,
    /// `ipv6`.
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        })
    }
}

impl Wish {
    /// Sysctls that decide whether it is fulfilled.
    #[must_use]
    pub fn reads(&self) -> Vec<Sysctl> {
        let with_all = |family, device: &str, name| {
            vec![Sysctl::of_device(family, "all", name), Sysctl::of_device(family, device, name)]
        };
        match self {
            Self::KeepRouterAdvertisements(device) => vec![
                Sysctl::of_device(Family::V6, device, "accept_ra"),
                Sysctl::of_device(Family::V6, device, "forwarding"),
                Sysctl::of_device(Family::V6, device, "force_forwarding"),
            ],
            Self::ForwardIpv6(device) | Self::RouteIpv6(device) => vec![
                Sysctl::of_device(Family::V6, "all", "forwarding"),
                Sysctl::of_device(Family::V6, device, "force_forwarding"),
            ],
            Self::ForwardIpv4(device) => vec![Sysctl::of_device(Family::V4, device, "forwarding")],
            Self::LooseReversePath(device) => with_all(Family::V4, device, "rp_filter"),
            Self::AcceptLocal(device) => with_all(Family::V4, device, "accept_local"),
            Self::ArpIgnore(device) => with_all(Family::V4, device, "arp_ignore"),
            Self::ArpAnnounce(device) => with_all(Family::V4, device, "arp_announce"),
            Self::RouteIpv4(device) => with_all(Family::V4, device, "forwarding"),
        }
    }

    /// What to set so that it is fulfilled, given what is set without us; `None` = nothing.
    #[must_use]
    pub fn change(&self, set: &BTreeMap<Sysctl, i64>) -> Option<(Sysctl, i64)> {
        let of = |family, device: &str, name| set.get(&Sysctl::of_device(family, device, name)).copied();
        // The device's own value, raised where the larger of it and `all`'s is too low.
        let at_least = |device: &String, name, least| {
            let own = of(Family::V4, device, name)?;
            let in_force = own.max(of(Family::V4, "all", name).unwrap_or(0));
            (in_force < least).then(|| (Sysctl::of_device(Family::V4, device, name), least))
        };
        match self {
            Self::KeepRouterAdvertisements(device) => {
                let accepts = of(Family::V6, device, "accept_ra") == Some(1);
                let forwards = of(Family::V6, device, "forwarding") != Some(0);
                // Where devices can be told alone, forwarding leaves advertisements alone.
                let alone = of(Family::V6, device, "force_forwarding").is_some();
                (accepts && !forwards && !alone).then(|| (Sysctl::of_device(Family::V6, device, "accept_ra"), 2))
            }
            Self::ForwardIpv6(device) => {
                if of(Family::V6, "all", "forwarding")? != 0 {
                    return None;
                }
                // Since 6.17 a device can be told alone; before, it is all or none.
                match of(Family::V6, device, "force_forwarding") {
                    Some(0) => Some((Sysctl::of_device(Family::V6, device, "force_forwarding"), 1)),
                    Some(_) => None,
                    None => Some((Sysctl::of_device(Family::V6, "all", "forwarding"), 1)),
                }
            }
            Self::ForwardIpv4(device) => {
                let forwards = of(Family::V4, device, "forwarding")? != 0;
                (!forwards).then(|| (Sysctl::of_device(Family::V4, device, "forwarding"), 1))
            }
            Self::LooseReversePath(device) => {
                let own = of(Family::V4, device, "rp_filter")?;
                let in_force = own.max(of(Family::V4, "all", "rp_filter").unwrap_or(0));
                (in_force == 1).then(|| (Sysctl::of_device(Family::V4, device, "rp_filter"), 2))
            }
            Self::AcceptLocal(device) => at_least(device, "accept_local", 1),
            Self::ArpIgnore(device) => at_least(device, "arp_ignore", 1),
            Self::ArpAnnounce(device) => at_least(device, "arp_announce", 2),
            // Of IPv4 the device decides; writing `all` (which is ip_forward) writes every device.
            Self::RouteIpv4(device) => {
                let forwards = of(Family::V4, device, "forwarding")? != 0;
                let all_do = of(Family::V4, "all", "forwarding") != Some(0);
                let key = Sysctl::of_device(Family::V4, if all_do { device } else { "all" }, "forwarding");
                (!forwards).then_some((key, 1))
            }
            Self::RouteIpv6(device) => {
                let forwards = of(Family::V6, "all", "forwarding")? != 0
                    || of(Family::V6, device, "force_forwarding").is_some_and(|forced| forced != 0);
                (!forwards).then(|| (Sysctl::of_device(Family::V6, "all", "forwarding"), 1))
            }
        }
    }
}
