//! What comes out of a tunnel: all families, private data, deliveries, and what is refused.

use std::net::IpAddr;

use guenon_controller::simulate::sandbox::Verdict;
use guenon_ebpf::abi::Event;
use guenon_ebpf::reason::DropReason;
use rstest::rstest;

use crate::encapsulation::{Kind, packet};
use crate::icmp::{Said, error};
use crate::support::bed::{
    DIRECTOR4, DIRECTOR6, POD_MAC, POD4, POD6, STRANGER4, STRANGER6, TUNNEL4, TUNNEL6, VETH, VETH_MTU, Way, caller,
};
use crate::support::expect::assert_frame;
use crate::support::frame::{NIC_MAC, SENDER_MAC, frame, padded};
use crate::support::lab::{Lab, assert_well_formed, lab};
use crate::support::packet::{Packet, Upper};
use crate::support::tunnel::Tunnel;

/// A tunnel packet from the director of this outer family.
pub fn from_director(outer_four: bool, inner: Vec<u8>) -> Tunnel {
    let (source, destination) = if outer_four { (DIRECTOR4, TUNNEL4) } else { (DIRECTOR6, TUNNEL6) };
    Tunnel::new(source, destination, inner)
}

/// Sends it in; it must come out as this inner packet, to the node itself.
#[track_caller]
pub fn delivered_to_node(lab: &mut Lab, tunnel: &Tunnel) {
    let want = frame(&tunnel.inner);
    lab.send_becomes(&frame(&tunnel.ip()), Verdict::Pass, &[Event::Decapsulated], &want);
}

#[rstest]
fn a_packet_for_an_endpoint_on_the_node_is_stripped_and_passed(
    #[values(true, false)] outer_four: bool,
    #[values(true, false)] four: bool,
    #[values(Kind::Tcp, Kind::Syn, Kind::Udp, Kind::EmptyUdp)] kind: Kind,
    #[values(false, true)] checksum: bool,
) {
    let inner = packet(Way::HereLocal, four, kind);
    let tunnel = from_director(outer_four, inner.ip()).with(|tunnel| tunnel.checksum = checksum);
    let outcome = lab().send_becomes(&frame(&tunnel.ip()), Verdict::Pass, &[Event::Decapsulated], &frame(&inner.ip()));
    assert_well_formed(&outcome, false, &tunnel.ip());
    assert_eq!(outcome.endpoint, Some(tunnel.destination));
    assert_eq!(outcome.service, Some(Way::HereLocal.service()));
}

#[rstest]
fn a_packet_for_an_endpoint_behind_a_veth_is_redirected_with_its_mac(
    #[values(true, false)] outer_four: bool,
    #[values(true, false)] four: bool,
    #[values(POD4, POD6)] endpoint: IpAddr,
    #[values(Kind::Tcp, Kind::Udp)] kind: Kind,
) {
    let inner = packet(Way::HereVeth, four, kind);
    let tunnel = from_director(outer_four, inner.ip()).naming(endpoint);
    let outcome = lab().send(&frame(&tunnel.ip()));
    assert_eq!((outcome.verdict, outcome.events()), (Verdict::Redirect, vec![Event::Decapsulated]));
    assert_eq!(&outcome.frame[..6], POD_MAC, "the MAC of the device that will receive it");
    assert_frame("EtherType and inner packet", &outcome.frame[12..], &frame(&inner.ip())[12..]);
    assert_eq!(outcome.endpoint, Some(endpoint));
    assert_eq!(outcome.interface, Some(VETH));
}

/// Where the tunnel address is the endpoint's own, it may also be named.
#[rstest]
fn an_endpoint_may_be_named_though_it_is_the_tunnel_s_own(#[values(true, false)] outer_four: bool) {
    let inner = packet(Way::HereLocal, true, Kind::Tcp).ip();
    let own = if outer_four { TUNNEL4 } else { TUNNEL6 };
    let other = if outer_four { TUNNEL6 } else { TUNNEL4 };
    delivered_to_node(&mut lab(), &from_director(outer_four, inner.clone()).naming(own));
    delivered_to_node(&mut lab(), &from_director(outer_four, inner).naming(other));
}

/// RFC 7510, RFC 6935: the sum is not verified, so a wrong one is no reason to drop.
#[rstest]
fn a_wrong_outer_checksum_is_not_looked_at(#[values(true, false)] outer_four: bool) {
    let inner = packet(Way::HereLocal, true, Kind::Tcp).ip();
    let tunnel = from_director(outer_four, inner.clone()).with(|tunnel| tunnel.checksum = true);
    let mut sent = frame(&tunnel.ip());
    let checksum = if outer_four { 14 + 20 + 6 } else { 14 + 40 + 6 };
    sent[checksum] ^= 0x55;
    lab().send_becomes(&sent, Verdict::Pass, &[Event::Decapsulated], &frame(&inner));
}

#[rstest]
fn any_source_port_and_hop_limit_will_do(#[values(0, 1, 6080, 65_535)] port: u16, #[values(1, 64, 255)] hop_limit: u8) {
    let inner = packet(Way::HereLocal, true, Kind::Tcp).ip();
    let tunnel = from_director(true, inner).with(|tunnel| {
        tunnel.source_port = port;
        tunnel.hop_limit = hop_limit;
    });
    delivered_to_node(&mut lab(), &tunnel);
}

#[rstest]
fn options_of_the_outer_header_are_looked_past(#[values(4, 20, 40)] length: usize) {
    let inner = packet(Way::HereLocal, false, Kind::Udp).ip();
    delivered_to_node(&mut lab(), &from_director(true, inner).with(|tunnel| tunnel.options = vec![1; length]));
}

#[rstest]
fn padding_behind_a_tunnel_packet_is_not_part_of_it(#[values(true, false)] outer_four: bool) {
    let inner = packet(Way::HereLocal, true, Kind::EmptyUdp).ip();
    let sent = padded(frame(&from_director(outer_four, inner.clone()).ip()), 200);
    let outcome = lab().send(&sent);
    assert_eq!((outcome.verdict, outcome.events()), (Verdict::Pass, vec![Event::Decapsulated]));
    assert_eq!(outcome.frame[..14 + inner.len()], frame(&inner)[..]);
}

/// The addresses of the frame are not touched where the node itself is the receiver.
#[test]
fn the_node_s_own_mac_stays() {
    let tunnel = from_director(true, packet(Way::HereLocal, true, Kind::Tcp).ip());
    let outcome = lab().send(&frame(&tunnel.ip()));
    assert_eq!((&outcome.frame[..6], &outcome.frame[6..12]), (&NIC_MAC[..], &SENDER_MAC[..]));
}

#[rstest]
fn inner_options_and_extension_headers_are_looked_past(#[values(true, false)] four: bool) {
    let packet = packet(Way::HereLocal, four, Kind::Tcp);
    let packet = if four {
        packet.options(&[1; 24])
    } else {
        packet.extension(crate::support::packet::HOP_BY_HOP, &[1, 4, 0, 0, 0, 0])
    };
    delivered_to_node(&mut lab(), &from_director(true, packet.ip()));
}

#[rstest]
fn inner_fragments_are_delivered_all(#[values(true, false)] four: bool, #[values(Kind::Tcp, Kind::Udp)] kind: Kind) {
    let datagram = packet(Way::HereVeth, four, kind).df(false).id(0xdec_a900).payload(vec![4; 300]);
    let mut lab = lab();
    for part in datagram.fragments(64) {
        let tunnel = from_director(true, part.clone()).naming(POD4);
        let outcome = lab.send(&frame(&tunnel.ip()));
        assert_eq!(outcome.verdict, Verdict::Redirect, "{:?}", outcome.reason);
        assert_frame("fragment", &outcome.frame[12..], &frame(&part)[12..]);
    }
}

#[rstest]
fn an_icmp_error_is_delivered_where_its_flow_is(#[values(true, false)] four: bool) {
    let flow = packet(Way::HereVeth, four, Kind::Tcp);
    let reply = Packet::new(
        flow.destination,
        flow.source,
        Upper::Tcp { source: Way::HereVeth.port(), destination: caller(four).port(), syn: false },
    );
    let inner = error(Said::TooBig, &reply, 8).ip();
    let outcome = lab().send(&frame(&from_director(true, inner.clone()).naming(POD4).ip()));
    assert_eq!(outcome.verdict, Verdict::Redirect, "{:?}", outcome.reason);
    assert_frame("the error", &outcome.frame[12..], &frame(&inner)[12..]);
}

/// Nobody but a director may inject packets; that is judged before anything else in the packet is.
#[rstest]
fn a_stranger_s_packets_are_refused(#[values(true, false)] outer_four: bool, #[values(0, 0x20, 0xff)] first_byte: u8) {
    let tunnel = from_director(outer_four, packet(Way::HereLocal, true, Kind::Tcp).ip()).with(|tunnel| {
        tunnel.source = if outer_four { STRANGER4 } else { STRANGER6 };
        tunnel.first_byte = first_byte;
    });
    lab().send_dropped(&frame(&tunnel.ip()), DropReason::UnknownDirector);
}

#[rstest]
#[case::version_1(DropReason::GueVersion, |t: &mut Tunnel| t.first_byte = 0x40)]
#[case::version_3(DropReason::GueVersion, |t: &mut Tunnel| t.first_byte = 0xc0)]
#[case::control(DropReason::GueControl, |t: &mut Tunnel| t.first_byte = 0x20)]
#[case::flag_high(DropReason::GueFlags, |t: &mut Tunnel| t.flags = 0x8000)]
#[case::flag_low(DropReason::GueFlags, |t: &mut Tunnel| t.flags = 1)]
#[case::header_beyond_the_datagram(DropReason::GueLength, |t: &mut Tunnel| t.header_words = Some(31))]
#[case::udp_longer_than_ip(DropReason::GueLength, |t: &mut Tunnel| t.udp_length = Some(1400))]
#[case::udp_shorter_than_its_header(DropReason::GueLength, |t: &mut Tunnel| t.udp_length = Some(7))]
#[case::udp_ends_in_gue(DropReason::GueLength, |t: &mut Tunnel| t.udp_length = Some(10))]
#[case::protocol_tcp(DropReason::GueProtocol, |t: &mut Tunnel| t.protocol = Some(6))]
#[case::protocol_gre(DropReason::GueProtocol, |t: &mut Tunnel| t.protocol = Some(47))]
#[case::protocol_none(DropReason::GueProtocol, |t: &mut Tunnel| t.protocol = Some(0))]
#[case::four_that_says_six(DropReason::GueProtocol, |t: &mut Tunnel| t.protocol = Some(41))]
#[case::six_in_four(DropReason::GueProtocol, |t: &mut Tunnel| (t.protocol, t.inner[0]) = (Some(4), 0x65))]
#[case::private_type_0(DropReason::PrivateType, |t: &mut Tunnel| t.private = vec![0, 0, 0, 0, 10, 0, 0, 7])]
#[case::private_type_2(DropReason::PrivateType, |t: &mut Tunnel| t.private = vec![2, 0, 0, 0, 10, 0, 0, 7])]
#[case::count_1_and_no_alternative(DropReason::PrivateCount, |t: &mut Tunnel| t.private[2] = 1)]
#[case::count_200(DropReason::PrivateCount, |t: &mut Tunnel| t.private[2] = 200)]
#[case::next_beyond_count(DropReason::PrivateCount, |t: &mut Tunnel| t.private[1] = 1)]
#[case::address_cut(DropReason::PrivateCount, |t: &mut Tunnel| t.private.truncate(4))]
#[case::six_in_four_bytes(DropReason::PrivateCount, |t: &mut Tunnel| t.private[3] = 1)]
#[case::an_address_too_many(DropReason::PrivateCount, |t: &mut Tunnel| t.private.extend([1, 2, 3, 4]))]
fn what_a_director_must_not_send_is_refused(
    #[case] reason: DropReason,
    #[case] spoil: impl Fn(&mut Tunnel),
    #[values(true, false)] outer_four: bool,
) {
    let tunnel = from_director(outer_four, packet(Way::HereVeth, true, Kind::Tcp).ip()).naming(POD4).with(spoil);
    lab().send_dropped(&frame(&tunnel.ip()), reason);
}

/// A tunnel packet never comes in fragments: directors set DF.
#[test]
fn a_fragment_of_a_tunnel_packet_is_refused() {
    let whole = from_director(true, packet(Way::HereLocal, true, Kind::Tcp).ip());
    let first = whole.clone().with(|tunnel| tunnel.more_fragments = true);
    lab().send_dropped(&frame(&first.ip()), DropReason::OuterFragment);
}

#[rstest]
#[case::other_address(|p: &mut Packet| p.destination = if p.source.is_ipv4() { TUNNEL4 } else { TUNNEL6 }, DropReason::InnerNotVip)]
#[case::other_port(|p: &mut Packet| p.upper = Upper::Tcp { source: 1, destination: 9, syn: true }, DropReason::NoFrontend)]
#[case::other_protocol(|p: &mut Packet| p.upper = Upper::Other(132), DropReason::NoFrontend)]
fn what_is_for_no_frontend_here_is_refused(
    #[case] change: impl Fn(&mut Packet),
    #[case] reason: DropReason,
    #[values(true, false)] four: bool,
    #[values(true, false)] outer_four: bool,
) {
    let mut inner = packet(Way::HereLocal, four, Kind::Tcp);
    change(&mut inner);
    lab().send_dropped(&frame(&from_director(outer_four, inner.ip()).ip()), reason);
}

/// A decap node never chooses: it delivers to the endpoint that the packet names, or not at all.
#[rstest]
fn an_endpoint_that_is_not_here_is_refused(#[values(true, false)] outer_four: bool) {
    let mut lab = lab();
    // The frontend is known here, but its endpoint is elsewhere.
    let elsewhere = from_director(outer_four, packet(Way::Own4, true, Kind::Tcp).ip());
    lab.send_dropped(&frame(&elsewhere.ip()), DropReason::NotOurEndpoint);
    // There are endpoints of this frontend here, but not the one that is named.
    let named = from_director(outer_four, packet(Way::HereVeth, true, Kind::Tcp).ip());
    for other in ["10.0.0.8".parse().unwrap(), "2001:db8:f00d::8".parse().unwrap(), TUNNEL4] {
        lab.send_dropped(&frame(&named.clone().naming(other).ip()), DropReason::NotOurEndpoint);
    }
    lab.send_dropped(&frame(&named.ip()), DropReason::NotOurEndpoint);
}

#[rstest]
fn an_inner_packet_that_contradicts_itself_is_refused(
    #[values(true, false)] four: bool,
    #[values(true, false)] outer_four: bool,
) {
    let good = packet(Way::HereLocal, four, Kind::Tcp).ip();
    let mut longer = good.clone();
    let length = if four { 3 } else { 5 };
    longer[length] += 1;
    let cut_in_tcp = good[..if four { 23 } else { 43 }].to_vec();
    let mut lab = lab();
    let mut cases = vec![("one byte longer than the tunnel packet", longer), ("cut in its ports", cut_in_tcp)];
    cases.push(("cut in its IP header", good[..12].to_vec()));
    if four {
        let mut header = good.clone();
        header[0] = 0x44;
        cases.push(("a header of sixteen bytes", header));
        let mut header = good.clone();
        header[0] = 0x4f;
        header[2..4].copy_from_slice(&50_u16.to_be_bytes());
        cases.push(("a header longer than its packet", header));
    }
    for (what, inner) in cases {
        let outcome = lab.send(&frame(&from_director(outer_four, inner).ip()));
        assert_eq!(outcome.reason, Some(DropReason::InnerMalformed), "{what}");
    }
}

#[rstest]
fn a_veth_whose_mac_is_unknown_gets_nothing(#[values(true, false)] outer_four: bool) {
    let tunnel = from_director(outer_four, packet(Way::HereVethUnresolved, true, Kind::Tcp).ip()).naming(POD4);
    lab().send_dropped(&frame(&tunnel.ip()), DropReason::NoNeighbour);
}

#[rstest]
fn an_endpoint_with_no_way_to_it_gets_nothing(#[values(true, false)] outer_four: bool) {
    let tunnel = from_director(outer_four, packet(Way::HereNone, true, Kind::Tcp).ip()).naming(POD4);
    lab().send_dropped(&frame(&tunnel.ip()), DropReason::NoDelivery);
}

#[rstest]
fn what_the_veth_s_mtu_does_not_fit_is_refused(#[values(true, false)] four: bool) {
    let packet = packet(Way::HereVeth, four, Kind::Tcp);
    let fits = packet.clone().total_length(VETH_MTU as usize);
    let outcome = lab().send(&frame(&from_director(true, fits.ip()).naming(POD4).ip()));
    assert_eq!(outcome.verdict, Verdict::Redirect);
    let over = packet.total_length(VETH_MTU as usize + 1);
    lab().send_dropped(&frame(&from_director(true, over.ip()).naming(POD4).ip()), DropReason::TooBigForEndpoint);
}

#[rstest]
fn what_is_not_gue_to_a_tunnel_address_passes(#[values(true, false)] outer_four: bool) {
    let inner = packet(Way::HereLocal, true, Kind::Tcp).ip();
    let vxlan = from_director(outer_four, inner).with(|tunnel| tunnel.destination_port = 4789);
    let ssh = Packet::tcp((vxlan.source, 5000).into(), (vxlan.destination, 22).into());
    let tcp_on_gue_port = Packet::tcp((vxlan.source, 5000).into(), (vxlan.destination, 6080).into());
    let from_gue_port = Packet::udp((vxlan.source, 6080).into(), (vxlan.destination, 53).into());
    for ip in [vxlan.ip(), ssh.ip(), tcp_on_gue_port.ip(), from_gue_port.ip()] {
        lab().send_untouched(&frame(&ip));
    }
}

/// A tunnel packet to another address of the node, or of somebody else, is not ours.
#[rstest]
fn gue_to_another_address_passes(#[values(true, false)] outer_four: bool) {
    let inner = packet(Way::HereLocal, true, Kind::Tcp).ip();
    let mut tunnel = from_director(outer_four, inner);
    tunnel.destination = if outer_four { STRANGER4 } else { STRANGER6 };
    lab().send_untouched(&frame(&tunnel.ip()));
}
