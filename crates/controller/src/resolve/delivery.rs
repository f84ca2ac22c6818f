//! Which delivery an endpoint gets for a frontend's port, and why.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::issue::Issue;
use crate::model::{DeliveryChoice, ProblemReason};

/// How an endpoint gets its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Delivery {
    /// Passed to its node's stack.
    Local,
    /// Redirected to a veth.
    Veth,
    /// Rewritten to its own address and port.
    Nat,
}

/// Why an endpoint has its delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The object asks for it.
    Asked,
    /// Its address is its node's own, and it listens on the port that clients dial.
    OfItsNode,
    /// Its address is its node's own, but it listens on another port than clients dial.
    OtherPort,
    /// It has an address of its own.
    OwnAddress,
}

impl Delivery {
    /// The word of the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "Local",
            Self::Veth => "Veth",
            Self::Nat => "Nat",
        }
    }
}

impl Why {
    /// Half a sentence.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Asked => "as asked for",
            Self::OfItsNode => "an address of its node",
            Self::OtherPort => "an address of its node, but another port than clients dial",
            Self::OwnAddress => "an address of its own",
        }
    }
}

/// An endpoint for which a delivery is to be chosen.
pub(super) struct Asked {
    pub(super) choice: DeliveryChoice,
    pub(super) address: IpAddr,
    /// Whether its node answers on its address.
    pub(super) of_its_node: bool,
    /// One of the VIPs: they are of one family.
    pub(super) vip: IpAddr,
    /// The port that clients dial, and that on which it listens.
    pub(super) port: u16,
    pub(super) listens: u16,
    pub(super) field: &'static str,
}

/// The delivery of an endpoint, or why it cannot be used.
pub(super) fn chosen(asked: &Asked) -> Result<(Delivery, Why), Issue> {
    let Asked { choice, address, of_its_node, vip, port, listens, field } = *asked;
    let nat = |why| {
        if address.is_ipv4() == vip.is_ipv4() { Ok((Delivery::Nat, why)) } else { Err(family_mismatch(vip, field)) }
    };
    let same_port = |delivery: Delivery, why| {
        if port == listens { Ok((delivery, why)) } else { Err(port_mismatch(delivery, port, listens, field)) }
    };
    match (choice, of_its_node) {
        (DeliveryChoice::Auto, true) if port == listens => Ok((Delivery::Local, Why::OfItsNode)),
        (DeliveryChoice::Auto, true) => nat(Why::OtherPort),
        (DeliveryChoice::Auto, false) => nat(Why::OwnAddress),
        (DeliveryChoice::Nat, _) => nat(Why::Asked),
        (DeliveryChoice::Veth, _) => same_port(Delivery::Veth, Why::Asked),
        (DeliveryChoice::Local, true) => same_port(Delivery::Local, Why::Asked),
        (DeliveryChoice::Local, false) => {
            let why = "they have addresses of their own, and delivery Local hands packets to the node's stack, which would \
                       answer with a reset; set `delivery: Auto` (or Nat), which reaches ordinary pods";
            Err(Issue::new(ProblemReason::DeliveryMismatch, field, why))
        }
    }
}

fn family_mismatch(vip: IpAddr, field: &'static str) -> Issue {
    let (of_vip, of_endpoint) = if vip.is_ipv4() { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
    let why = format!(
        "their addresses are {of_endpoint}, and delivery Nat does not translate the packets of {of_vip} VIPs to that; give \
         them {of_vip} addresses too (a Service: ipFamilyPolicy PreferDualStack), or take the {of_vip} VIPs out of \
         spec.addresses"
    );
    Issue::new(ProblemReason::FamilyMismatch, field, why)
}

fn port_mismatch(delivery: Delivery, port: u16, listens: u16, field: &'static str) -> Issue {
    let why = format!(
        "they listen on port {listens}, but packets arrive with the VIP's port {port} under delivery {}; set `delivery: \
         Auto` or `Nat`, which changes ports, or let them listen on {port}",
        delivery.name()
    );
    Issue::new(ProblemReason::TargetPortMismatch, field, why)
}

/// Where the endpoints of delivery `Nat` of a frontend listen: nearly always all on one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listening {
    usual: u16,
    others: BTreeMap<IpAddr, u16>,
}

impl Listening {
    /// Of these endpoints; `None`: of none.
    pub(super) fn of(ports: &BTreeMap<IpAddr, u16>) -> Option<Self> {
        let usual = *ports.values().next()?;
        let others = ports.iter().filter(|(_, port)| **port != usual).map(|(address, port)| (*address, *port));
        Some(Self { usual, others: others.collect() })
    }

    /// Where one of those endpoints listens.
    pub(super) fn at(&self, address: IpAddr) -> u16 {
        self.others.get(&address).copied().unwrap_or(self.usual)
    }
}
