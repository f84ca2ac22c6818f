//! The second half of resolving a VirtualService: the ways from this node to its endpoints.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::delivery::{Delivery, Why};
use super::issue::{Issue, Issues};
use super::routes::Routes;
use super::select::{Part, Ports, Target};
use super::uses::Uses;
use crate::model::{EndpointState, FarEnd, Frontend, LocalDelivery, Path, ProblemReason, ServiceState, TargetPorts};

/// A part of a VirtualService, as this node reaches its endpoints.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) state: Arc<ServiceState>,
    pub(super) issues: Vec<Issue>,
    pub(super) uses: Uses,
    /// Endpoints of this node: how each gets its packets, and why.
    pub(super) delivered: Vec<(IpAddr, Delivery, Why)>,
}

/// Where this node stands.
#[derive(Debug, Default)]
pub(super) struct Here {
    pub(super) node: String,
    pub(super) is_director: bool,
    pub(super) routes: Routes,
}

/// Finds the way to each endpoint of a part.
pub(super) fn locate(part: &Part, field: &'static str, here: &Here) -> Located {
    let mut issues = Issues::default();
    // Without Node objects nothing else keeps a VIP from taking this node's own address away from it.
    let is_refused = |frontend: &&Frontend| here.routes.is_tunnel(frontend.vip);
    for Frontend { vip, .. } in part.frontends.iter().filter(is_refused) {
        let message = format!("{vip} is this node's own tunnel address; choose one that no node has");
        issues.add(Issue::new(ProblemReason::AddressNotAllowed, "spec.addresses", message));
    }
    let frontends: BTreeSet<Frontend> =
        part.frontends.iter().filter(|frontend| !is_refused(frontend)).copied().collect();
    let vips: BTreeSet<IpAddr> = frontends.iter().map(|frontend| frontend.vip).collect();
    let mut uses = Uses { vips, ..Uses::default() };
    let mut endpoints = Vec::with_capacity(part.targets.len());
    let mut listening = Listening { frontends: &frontends, ports: &part.ports, last: TargetPorts::default() };
    let mut delivered = Vec::new();
    for target in &part.targets {
        let path = if target.node.as_deref() == Some(here.node.as_str()) || here.routes.is_own(target.tunnel) {
            delivered.push((target.address, target.delivery, target.why));
            Path::Local(deliver(target, &mut listening, field, here, &mut uses, &mut issues))
        } else {
            tunnel(target, field, here, &mut uses, &mut issues)
        };
        endpoints.push(EndpointState { address: target.address, path });
    }
    let devices = uses.veths.iter().map(|(device, _)| device);
    uses.replies = devices.flat_map(|device| uses.vips.iter().map(|vip| (device.clone(), *vip))).collect();
    let state = ServiceState { frontends, client_ip: part.client_ip, endpoints, rows: Arc::clone(&part.rows) };
    Located { state: Arc::new(state), issues: issues.end(), uses, delivered }
}

fn tunnel(target: &Target, field: &'static str, here: &Here, uses: &mut Uses, issues: &mut Issues) -> Path {
    let destination = target.tunnel;
    let mut unreachable = |reason, why: String| {
        // A node that is no director sends nothing there.
        if here.is_director {
            issues.of_endpoint(target.address, Issue::new(reason, field, why));
        }
        Path::Unreachable { destination }
    };
    let Some(source) = here.routes.source(destination) else {
        let family = if destination.is_ipv4() { "IPv4" } else { "IPv6" };
        let why = format!(
            "this node has no {family} tunnel address to reach {destination} from; give it one, or name it with \
                 --tunnel-address"
        );
        return unreachable(ProblemReason::NoRoute, why);
    };
    match here.routes.way(destination) {
        Ok(way) => {
            uses.next_hops.insert((way.key.clone(), way.state.mtu));
            Path::Tunnel { source, destination, next_hop: way.key }
        }
        Err(why) => unreachable(ProblemReason::NoRoute, why.to_string()),
    }
}

/// Where endpoints of a part listen.
struct Listening<'a> {
    frontends: &'a BTreeSet<Frontend>,
    ports: &'a Ports,
    /// What the last endpoint got: nearly always the next one's too.
    last: TargetPorts,
}

impl Listening<'_> {
    fn of(&mut self, address: IpAddr) -> TargetPorts {
        let asked = self.frontends.iter().map(|frontend| (frontend.protocol, frontend.port));
        let listens = asked.filter_map(|port| Some((port, self.ports.get(&port)?.at(address)))).collect();
        if *self.last != listens {
            self.last = Arc::new(listens);
        }
        Arc::clone(&self.last)
    }
}

fn deliver(
    target: &Target,
    listening: &mut Listening<'_>,
    field: &'static str,
    here: &Here,
    uses: &mut Uses,
    issues: &mut Issues,
) -> LocalDelivery {
    if here.routes.is_own(target.tunnel) {
        uses.tunnels.insert(target.tunnel);
    }
    match target.delivery {
        Delivery::Local => {
            // Ready or not: directors hear of it that an endpoint is ready when this node does, and what they send must
            // not find a node without the address. It would forward it, back to where it came from.
            uses.loopback.extend(&uses.vips);
            LocalDelivery::Local
        }
        Delivery::Veth => match veth(target.address, here, uses) {
            Ok(delivery) => delivery,
            Err((reason, why)) => {
                issues.of_endpoint(target.address, Issue::new(reason, field, why));
                LocalDelivery::None
            }
        },
        Delivery::Nat => match routed_here(target.address, here) {
            Ok(()) => {
                uses.nat.insert(target.address);
                LocalDelivery::Nat { ports: listening.of(target.address) }
            }
            Err(why) => {
                issues.of_endpoint(target.address, Issue::new(ProblemReason::NoRoute, field, why));
                LocalDelivery::None
            }
        },
    }
}

/// Whether what is rewritten to this address stays on this node. One whose pod is gone would follow the default route
/// out (lesson 14).
fn routed_here(address: IpAddr, here: &Here) -> Result<(), String> {
    if here.routes.is_own(address) {
        return Ok(());
    }
    let is_gone = "is the pod gone, or not set up yet by the CNI plugin?";
    match here.routes.entry(address) {
        None => Err(format!(
            "delivery Nat needs a route to it on this node, and there is none; {is_gone} (see `ip route get {address}`)"
        )),
        Some(entry) if here.routes.is_uplink(&entry.interface) => Err(format!(
            "its route leaves this node by {}, so it is not here; {is_gone} (see `ip route get {address}`)",
            entry.interface
        )),
        Some(entry) if here.routes.refuses(entry) => {
            Err(format!("its route on this node refuses it; {is_gone} (see `ip route get {address}`)"))
        }
        Some(_) => Ok(()),
    }
}

fn veth(address: IpAddr, here: &Here, uses: &mut Uses) -> Result<LocalDelivery, (ProblemReason, String)> {
    let no_route = || {
        let why = format!("delivery Veth needs a route to it on this node; add one: `ip route add {address} dev VETH`");
        (ProblemReason::NoRoute, why)
    };
    let entry = here.routes.entry(address).ok_or_else(no_route)?;
    let name = &entry.interface;
    let Some(interface) = here.routes.interface(name) else {
        let why = format!("its route leads to {name}, which is not there; see `ip link`");
        return Err((ProblemReason::Interface, why));
    };
    uses.veths.insert((name.clone(), entry.via.unwrap_or(address)));
    match &interface.far_end {
        Some(FarEnd::Ready) => {}
        Some(FarEnd::Refused(why)) => {
            let why = format!("no program can be put on the far end of {name}, without which frames are lost: {why}");
            return Err((ProblemReason::DeliveryMismatch, why));
        }
        None => {
            let why = format!(
                "delivery Veth hands packets to a veth, but its route leads to {name}, which is none, or whose \
                     far end has no program yet; route it to the endpoint's veth: `ip route replace {address} dev VETH`"
            );
            return Err((ProblemReason::DeliveryMismatch, why));
        }
    }
    Ok(LocalDelivery::Veth {
        ifindex: interface.index,
        mac: here.routes.neighbour(name, entry.via.unwrap_or(address)),
        mtu: entry.mtu.min(interface.mtu),
    })
}
