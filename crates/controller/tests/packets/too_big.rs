//! Packets that do not fit the path after encapsulation, and routers that say so of our own.

use std::time::Duration;

use etherparse::{Icmpv4Type, Icmpv6Type, SlicedPacket, TransportSlice, icmpv4};
use guenon_controller::simulate::sandbox::Verdict;
use guenon_ebpf::abi::{Address, Event};
use guenon_ebpf::reason::DropReason;
use rstest::rstest;

use crate::encapsulation::{Kind, packet};
use crate::icmp::{Said, error};
use crate::support::bed::{
    self, POD4, REMOTE4, REMOTE6, SMALL_PATH_MTU, TUNNEL4, TUNNEL6, VIP4, VIP6, Way, client, vip,
};
use crate::support::expect::encapsulated;
use crate::support::frame::{NIC_MAC, SENDER_MAC, frame};
use crate::support::lab::{ODD_RATE, assert_well_formed, lab, odd_lab};
use crate::support::packet::{Packet, Upper};
use crate::support::tunnel::Tunnel;

/// Largest inner packet of a way.
fn room(way: Way) -> usize {
    SMALL_PATH_MTU as usize - if way == Way::Small4 { 32 } else { 52 }
}

#[rstest]
fn what_just_fits_is_sent(#[values(Way::Small4, Way::Small6)] way: Way, #[values(true, false)] four: bool) {
    let packet = packet(way, four, Kind::Tcp).total_length(room(way));
    let want = encapsulated(way, &packet, &packet.ip());
    assert_eq!(want.len(), 14 + SMALL_PATH_MTU as usize);
    lab().send_becomes(&frame(&packet.ip()), Verdict::Tx, &[Event::Encapsulated], &want);
}

#[rstest]
fn one_byte_more_is_answered_with_the_right_mtu(
    #[values(Way::Small4, Way::Small6)] way: Way,
    #[values(true, false)] four: bool,
    #[values(Kind::Tcp, Kind::Udp)] kind: Kind,
    #[values(1, 2, 85)] more: usize,
) {
    let packet = packet(way, four, kind).total_length(room(way) + more);
    let sent = frame(&packet.ip());
    let outcome = lab().send(&sent);
    assert_eq!((outcome.verdict, outcome.events()), (Verdict::Tx, vec![Event::TooBigAnswered]));
    assert_well_formed(&outcome, false, &sent);
    assert_eq!(
        (&outcome.frame[..6], &outcome.frame[6..12]),
        (&SENDER_MAC[..], &NIC_MAC[..]),
        "back where it came from"
    );
    assert_answer(&outcome.frame, four, room(way), &packet.ip());
}

/// From the VIP to the client, this MTU, quoting the packet from its start.
fn assert_answer(frame: &[u8], four: bool, mtu: usize, packet: &[u8]) {
    let answer = SlicedPacket::from_ethernet(frame).unwrap();
    let quote = match (answer.transport.as_ref().unwrap(), four) {
        (TransportSlice::Icmpv4(icmp), true) => {
            let next_hop_mtu = mtu as u16;
            let kind =
                Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu });
            assert_eq!(icmp.icmp_type(), kind);
            icmp.payload()
        }
        (TransportSlice::Icmpv6(icmp), false) => {
            assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: mtu as u32 });
            icmp.payload()
        }
        (other, _) => panic!("{other:?}"),
    };
    let (source, destination) = match answer.net.as_ref().unwrap() {
        etherparse::NetSlice::Ipv4(v4) => (v4.header().source_addr().into(), v4.header().destination_addr().into()),
        etherparse::NetSlice::Ipv6(v6) => (v6.header().source_addr().into(), v6.header().destination_addr().into()),
        other @ etherparse::NetSlice::Arp(_) => panic!("{other:?}"),
    };
    assert_eq!((source, destination), (vip(four), client(four)));
    assert_eq!(quote, &packet[..quote.len()], "the quote is the packet as it came");
    let (least, most) = if four { (28, 576) } else { (48, 1280) };
    assert!(quote.len() >= least, "holds the ports: {}", quote.len());
    assert!(frame.len() - 14 <= most, "no larger than {most} bytes of IP: {}", frame.len() - 14);
}

#[rstest]
fn without_df_it_is_dropped_by_that_name(#[values(Way::Small4, Way::Small6)] way: Way) {
    let packet = packet(way, true, Kind::Tcp).df(false).total_length(room(way) + 1);
    lab().send_dropped(&frame(&packet.ip()), DropReason::TooBigNoDf);
}

#[test]
fn a_first_fragment_that_does_not_fit_is_dropped_by_that_name() {
    let datagram = packet(Way::Small4, true, Kind::Udp).id(0x7771).payload(vec![1; 2000]);
    let part = datagram.part(&datagram.upper()[..1400], Some((0, true)));
    lab().send_dropped(&frame(&part), DropReason::TooBigNoDf);
}

/// RFC 1122, RFC 4443: no ICMP error is ever sent about one.
#[rstest]
fn an_icmp_error_that_does_not_fit_is_not_answered(#[values(true, false)] four: bool) {
    let flow = packet(Way::Small4, four, Kind::Udp);
    let quoted =
        Packet::new(flow.destination, flow.source, Upper::Udp { source: Way::Small4.port(), destination: 40_123 })
            .payload(vec![4; 1500]);
    let error = error(Said::TimeExceeded, &quoted, 1390 - 40);
    let outcome = lab().send(&frame(&error.ip()));
    assert_eq!((outcome.verdict, outcome.reason), (Verdict::Drop, Some(DropReason::TooBig)));
}

/// The bucket of each CPU holds as many answers as it is filled with in a second.
#[rstest]
fn answers_are_limited_in_rate(#[values(true, false)] four: bool) {
    let cpu = crate::support::cpu::Pinned::new();
    let mut lab = odd_lab();
    let sent = frame(&packet(Way::Small4, four, Kind::Tcp).total_length(1400).ip());
    let mut burst = || {
        let outcomes: Vec<_> = (0..50).map(|_| lab.send(&sent)).collect();
        for outcome in &outcomes {
            match outcome.verdict {
                Verdict::Tx => assert_eq!(outcome.events(), [Event::TooBigAnswered]),
                Verdict::Drop => assert_eq!(outcome.reason, Some(DropReason::TooBig)),
                other @ (Verdict::Pass | Verdict::Redirect | Verdict::Aborted) => panic!("{other:?}"),
            }
        }
        outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Tx).count()
    };
    let first = burst();
    // Another test may have taken some, and a slow machine may add a few meanwhile.
    assert!(first <= 4 * ODD_RATE as usize, "{first} answers at a rate of {ODD_RATE} a second");
    std::thread::sleep(Duration::from_millis(1100));
    let second = burst();
    assert!((1..=4 * ODD_RATE as usize).contains(&second), "{second} more, a second later");
    drop(cpu);
}

/// What fits the path is not held up by the limit.
#[test]
fn a_flood_of_too_big_packets_does_not_hold_up_others() {
    let mut lab = odd_lab();
    let big = frame(&packet(Way::Small4, true, Kind::Tcp).total_length(1400).ip());
    let small = packet(Way::Small4, true, Kind::Tcp);
    for _ in 0..20 {
        lab.send(&big);
        let outcome = lab.send(&frame(&small.ip()));
        assert_eq!((outcome.verdict, outcome.events()), (Verdict::Tx, vec![Event::Encapsulated]));
    }
}

/// A router refuses one of our tunnel packets: counted, told to the agent, and passed.
#[rstest]
fn a_router_s_word_about_our_tunnel_packet_is_counted_and_told(
    #[values(true, false)] four: bool,
    #[values(8, 60)] quoted: usize,
) {
    let (source, destination) = if four { (TUNNEL4, REMOTE4) } else { (TUNNEL6, REMOTE6) };
    let tunnel = Tunnel::new(source, destination, packet(Way::Own4, four, Kind::Tcp).ip()).naming(POD4);
    let header = if four { 20 } else { 40 };
    let (kind, code) = if four { (3, 4) } else { (2, 0) };
    let packet = Packet::icmp(bed::router(four), source, kind, code, [0, 0, 0x05, 0x78])
        .payload(&tunnel.ip()[..header + quoted]);
    let mut lab = lab();
    lab.sandbox.tunnel_too_big();
    lab.send_becomes(&frame(&packet.ip()), Verdict::Pass, &[Event::TunnelTooBig], &frame(&packet.ip()));
    let told = lab.sandbox.tunnel_too_big();
    let [record] = &told[..] else { panic!("{told:?}") };
    assert_eq!((record.destination, record.mtu), (Address::from_ip(destination), 1400));
}

/// Errors about other packets of this node are none of ours.
#[rstest]
fn other_errors_to_a_tunnel_address_pass(#[values(true, false)] four: bool) {
    let (source, destination) = if four { (TUNNEL4, REMOTE4) } else { (TUNNEL6, REMOTE6) };
    let (kind, code) = if four { (3, 4) } else { (2, 0) };
    let other_port = Tunnel::new(source, destination, packet(Way::Own4, four, Kind::Tcp).ip())
        .with(|tunnel| tunnel.destination_port = 4789);
    let tcp = Packet::tcp((source, 5000).into(), (destination, 6080).into());
    let mut lab = lab();
    lab.sandbox.tunnel_too_big();
    for quoted in [other_port.ip(), tcp.ip()] {
        let packet = Packet::icmp(bed::router(four), source, kind, code, [0, 0, 5, 0x78]).payload(quoted);
        lab.send_untouched(&frame(&packet.ip()));
    }
    // Another kind of error about a tunnel packet.
    let tunnel = Tunnel::new(source, destination, packet(Way::Own4, four, Kind::Tcp).ip());
    let kind = if four { 11 } else { 3 };
    let packet = Packet::icmp(bed::router(four), source, kind, 0, [0; 4]).payload(tunnel.ip());
    lab.send_untouched(&frame(&packet.ip()));
    assert_eq!(lab.sandbox.tunnel_too_big(), []);
}

/// An address that is both is not: a VIP's errors follow its flows.
#[test]
fn errors_to_a_vip_are_no_tunnel_s() {
    for vip in [VIP4, VIP6] {
        let flow = packet(Way::Own4, vip.is_ipv4(), Kind::Tcp);
        let quoted =
            Packet::new(vip, flow.source, Upper::Tcp { source: Way::Own4.port(), destination: 40_123, syn: false });
        let outcome = lab().send(&frame(&error(Said::TooBig, &quoted, 8).ip()));
        assert_eq!(outcome.events(), [Event::Encapsulated, Event::IcmpErrorForwarded]);
    }
}
