//! IP options and extension headers on the way to a VIP are looked past, never misread.

use guenon_controller::simulate::sandbox::Verdict;
use guenon_ebpf::abi::Event;
use guenon_ebpf::reason::DropReason;
use rstest::rstest;

use crate::encapsulation::{Kind, packet};
use crate::support::bed::{VIP6, Way, client};
use crate::support::expect::{encapsulated, encapsulated_fragment};
use crate::support::frame::frame;
use crate::support::lab::{assert_well_formed, lab};
use crate::support::packet::{DESTINATION_OPTIONS, HOP_BY_HOP, Packet, ROUTING, Upper};

#[rstest]
fn ipv4_options_of_every_length(
    #[values(4, 8, 12, 20, 36, 40)] length: usize,
    #[values(Way::Own4, Way::Own6)] way: Way,
    #[values(Kind::Tcp, Kind::Udp)] kind: Kind,
) {
    // Bytes that would be the ports of another frontend, were the header taken for one of twenty bytes.
    let options = Way::HereVeth.port().to_be_bytes().repeat(length / 2);
    let packet = packet(way, true, kind).options(&options);
    let outcome = lab().send_becomes(
        &frame(&packet.ip()),
        Verdict::Tx,
        &[Event::Encapsulated],
        &encapsulated(way, &packet, &packet.ip()),
    );
    assert_well_formed(&outcome, false, &packet.ip());
}

#[rstest]
#[case::hop_by_hop(&[(HOP_BY_HOP, 6)])]
#[case::destination(&[(DESTINATION_OPTIONS, 14)])]
#[case::routing(&[(ROUTING, 22)])]
#[case::long(&[(DESTINATION_OPTIONS, 254)])]
#[case::two(&[(HOP_BY_HOP, 6), (DESTINATION_OPTIONS, 6)])]
#[case::three(&[(HOP_BY_HOP, 6), (DESTINATION_OPTIONS, 14), (ROUTING, 6)])]
fn ipv6_extension_headers(
    #[case] headers: &[(u8, usize)],
    #[values(Way::Own4, Way::Own6)] way: Way,
    #[values(Kind::Tcp, Kind::Udp)] kind: Kind,
) {
    let mut packet = packet(way, false, kind);
    for (number, length) in headers {
        packet = packet.extension(*number, &Way::HereVeth.port().to_be_bytes().repeat(length / 2));
    }
    let outcome = lab().send_becomes(
        &frame(&packet.ip()),
        Verdict::Tx,
        &[Event::Encapsulated],
        &encapsulated(way, &packet, &packet.ip()),
    );
    assert_well_formed(&outcome, false, &packet.ip());
}

#[test]
fn an_ipv6_fragment_behind_other_extension_headers_is_followed() {
    let packet = packet(Way::Own4, false, Kind::Udp).extension(HOP_BY_HOP, &[1, 4, 0, 0, 0, 0]).id(0xfeed_0001);
    let mut lab = lab();
    for part in packet.fragments(16) {
        let want = encapsulated_fragment(Way::Own4, &packet, &part);
        let outcome = lab.send(&frame(&part));
        assert_eq!((outcome.verdict, &outcome.frame), (Verdict::Tx, &want));
    }
}

#[test]
fn more_extension_headers_than_are_looked_at_are_refused_by_name() {
    let mut packet = packet(Way::Own4, false, Kind::Tcp);
    for _ in 0..20 {
        packet = packet.extension(DESTINATION_OPTIONS, &[1, 4, 0, 0, 0, 0]);
    }
    lab().send_dropped(&frame(&packet.ip()), DropReason::OptionsTooLong);
}

#[test]
fn a_header_that_hides_the_ports_is_refused_by_name() {
    const ESP: u8 = 50;
    let packet = Packet::new(client(false), VIP6, Upper::Other(ESP));
    lab().send_dropped(&frame(&packet.ip()), DropReason::OptionsTooLong);
}

/// A chain that runs out of the packet.
#[rstest]
fn an_extension_header_longer_than_the_packet_is_malformed(#[values(1, 31, 255)] length: u8) {
    let mut ip =
        packet(Way::Own4, false, Kind::Tcp).extension(DESTINATION_OPTIONS, &[1, 4, 0, 0, 0, 0]).payload([]).ip();
    ip[41] = length.max(40 / 8);
    let outcome = lab().send(&frame(&ip));
    assert_eq!(outcome.verdict, Verdict::Drop);
    assert!(
        matches!(outcome.reason, Some(DropReason::Truncated | DropReason::BadHeader | DropReason::OptionsTooLong)),
        "{:?}",
        outcome.reason
    );
}
