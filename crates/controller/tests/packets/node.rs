//! The node's own: the director's own endpoint, VIPs that are on this node too, services that lack something.

use std::net::SocketAddr;

use guenon_controller::apply::Operation;
use guenon_controller::simulate::sandbox::Verdict;
use guenon_ebpf::abi::Event;
use guenon_ebpf::reason::DropReason;
use rstest::rstest;

use crate::decap::from_director;
use crate::encapsulation::{Kind, packet};
use crate::support::bed::{self, ON_NODE4, ON_NODE6, POD_MAC, VETH, VETH_MTU, Way, caller, client, vip};
use crate::support::expect::{assert_frame, encapsulated};
use crate::support::frame::frame;
use crate::support::lab::{ODD_GUE_PORT, assert_well_formed, decap_lab, director_lab, lab, odd_lab};
use crate::support::packet::{Packet, Upper};

#[rstest]
fn the_director_s_own_endpoint_gets_the_packet_as_it_is(
    #[values(true, false)] four: bool,
    #[values(Kind::Tcp, Kind::Syn, Kind::Udp)] kind: Kind,
) {
    let sent = frame(&packet(Way::HereLocal, four, kind).ip());
    let outcome = lab().send_becomes(&sent, Verdict::Pass, &[Event::DeliveredHere], &sent);
    assert_eq!(outcome.service, Some(Way::HereLocal.service()));
    assert_eq!(outcome.endpoint, Some(bed::TUNNEL4));
}

#[rstest]
fn the_director_s_own_endpoint_behind_a_veth_gets_it_with_its_mac(
    #[values(true, false)] four: bool,
    #[values(Kind::Tcp, Kind::Syn, Kind::Udp)] kind: Kind,
) {
    let packet = packet(Way::HereVeth, four, kind);
    let outcome = lab().send(&frame(&packet.ip()));
    assert_eq!((outcome.verdict, outcome.events()), (Verdict::Redirect, vec![Event::DeliveredHere]));
    assert_eq!(&outcome.frame[..6], POD_MAC);
    assert_frame("EtherType and packet", &outcome.frame[12..], &frame(&packet.ip())[12..]);
    assert_eq!(outcome.interface, Some(VETH));
    assert_well_formed(&outcome, false, &outcome.frame);
}

#[rstest]
#[case(Way::HereVethUnresolved, DropReason::NoNeighbour)]
#[case(Way::HereNone, DropReason::NoDelivery)]
#[case(Way::Unreachable, DropReason::NoRoute)]
#[case(Way::NoBackend, DropReason::NoBackend)]
#[case(Way::NoNeighbour, DropReason::NoNeighbour)]
fn what_cannot_be_delivered_is_dropped_by_its_name(
    #[case] way: Way,
    #[case] reason: DropReason,
    #[values(true, false)] four: bool,
    #[values(Kind::Tcp, Kind::Udp)] kind: Kind,
) {
    lab().send_dropped(&frame(&packet(way, four, kind).ip()), reason);
}

/// A drop is counted at its frontend too.
#[test]
fn a_drop_names_its_frontend() {
    let outcome = lab().send(&frame(&packet(Way::NoBackend, true, Kind::Tcp).ip()));
    assert_eq!(outcome.frontend.map(|frontend| frontend.port), Some(Way::NoBackend.port()));
    assert_eq!(outcome.service, Some(Way::NoBackend.service()));
    assert_eq!(outcome.endpoint, None);
}

#[rstest]
fn what_the_own_veth_s_mtu_does_not_fit_is_refused(#[values(true, false)] four: bool) {
    let packet = packet(Way::HereVeth, four, Kind::Tcp);
    let fits = packet.clone().total_length(VETH_MTU as usize);
    assert_eq!(lab().send(&frame(&fits.ip())).verdict, Verdict::Redirect);
    let over = packet.total_length(VETH_MTU as usize + 1);
    lab().send_dropped(&frame(&over.ip()), DropReason::TooBigForEndpoint);
}

#[rstest]
fn no_frontend_on_a_vip_is_dropped(#[values(true, false)] four: bool, #[values(true, false)] tcp: bool) {
    let closed = SocketAddr::new(vip(four), 9);
    let packet = if tcp { Packet::tcp(caller(four), closed) } else { Packet::udp(caller(four), closed) };
    lab().send_dropped(&frame(&packet.ip()), DropReason::NoFrontend);
    let sctp = Packet::new(client(four), vip(four), Upper::Other(132));
    lab().send_dropped(&frame(&sctp.ip()), DropReason::NoFrontend);
}

/// On a node that has the address itself, dropping would take its own services away.
#[rstest]
fn no_frontend_on_an_address_of_this_node_is_passed(#[values(ON_NODE4, ON_NODE6)] own: std::net::IpAddr) {
    let four = own.is_ipv4();
    let icmp = if four { 13 } else { 139 };
    for packet in [
        Packet::tcp(caller(four), (own, 22).into()),
        Packet::udp(caller(four), (own, 80).into()),
        Packet::new(client(four), own, Upper::Other(132)),
        Packet::icmp(client(four), own, icmp, 0, [0; 4]),
    ] {
        let sent = frame(&packet.ip());
        lab().send_becomes(&sent, Verdict::Pass, &[Event::PassedOnNode], &sent);
    }
    // Its frontends work as ever.
    let sent = frame(&Packet::tcp(caller(four), (own, 80).into()).ip());
    lab().send_becomes(&sent, Verdict::Pass, &[Event::DeliveredHere], &sent);
}

/// A VIP that comes to the node, and goes again.
#[test]
fn whether_a_vip_is_on_the_node_can_change() {
    let mut lab = lab();
    let sent = frame(&Packet::tcp(caller(true), (bed::VIP4, 9).into()).ip());
    lab.send_dropped(&sent, DropReason::NoFrontend);
    lab.sandbox.execute(&Operation::SetOnNode(bed::VIP4, true)).unwrap();
    lab.send_becomes(&sent, Verdict::Pass, &[Event::PassedOnNode], &sent);
    lab.sandbox.execute(&Operation::SetOnNode(bed::VIP4, false)).unwrap();
    lab.send_dropped(&sent, DropReason::NoFrontend);
}

/// What a service loses, packets feel at once: no stale table stays in force.
#[test]
fn a_service_that_goes_takes_its_frontends_with_it() {
    let mut lab = lab();
    let packet = packet(Way::Own4, true, Kind::Tcp);
    let sent = frame(&packet.ip());
    let want = encapsulated(Way::Own4, &packet, &packet.ip());
    lab.send_becomes(&sent, Verdict::Tx, &[Event::Encapsulated], &want);
    lab.sandbox.execute(&Operation::RemoveService(Way::Own4.service())).unwrap();
    lab.send_dropped(&sent, DropReason::NoFrontend);
    // And it may come back.
    let service = bed::state().services[&Way::Own4.service()].clone();
    lab.sandbox.execute(&Operation::PutService(Way::Own4.service(), service)).unwrap();
    lab.send_becomes(&sent, Verdict::Tx, &[Event::Encapsulated], &want);
}

#[test]
fn a_node_that_is_only_a_director_strips_nothing() {
    let mut lab = director_lab();
    lab.send_untouched(&frame(&from_director(true, packet(Way::HereLocal, true, Kind::Tcp).ip()).ip()));
    let packet = packet(Way::Own4, true, Kind::Tcp);
    let want = encapsulated(Way::Own4, &packet, &packet.ip());
    lab.send_becomes(&frame(&packet.ip()), Verdict::Tx, &[Event::Encapsulated], &want);
}

#[rstest]
fn a_node_that_is_only_a_decap_node_directs_nothing(#[values(true, false)] four: bool) {
    let mut lab = decap_lab();
    for way in [Way::Own4, Way::HereLocal] {
        lab.send_untouched(&frame(&packet(way, four, Kind::Tcp).ip()));
    }
    lab.send_untouched(&frame(&Packet::tcp(caller(four), (vip(four), 9).into()).ip()));
    crate::decap::delivered_to_node(&mut lab, &from_director(true, packet(Way::HereLocal, four, Kind::Tcp).ip()));
}

#[test]
fn another_gue_port_is_another_port() {
    let mut lab = odd_lab();
    let inner = packet(Way::HereLocal, true, Kind::Tcp).ip();
    lab.send_untouched(&frame(&from_director(true, inner.clone()).ip()));
    let tunnel = from_director(true, inner).with(|tunnel| tunnel.destination_port = ODD_GUE_PORT);
    crate::decap::delivered_to_node(&mut lab, &tunnel);
    let outcome = lab.send(&frame(&packet(Way::Own4, true, Kind::Tcp).ip()));
    assert_eq!(outcome.frame[14 + 22..14 + 24], ODD_GUE_PORT.to_be_bytes());
}
