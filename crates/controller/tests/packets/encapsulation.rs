//! A packet for a remote endpoint leaves in GUE: every byte of the outer headers, all families, TCP and UDP.

use guenon_controller::simulate::sandbox::Verdict;
use guenon_ebpf::abi::Event;
use rstest::rstest;

use crate::support::bed::{Way, caller, vip};
use crate::support::expect::encapsulated;
use crate::support::frame::{frame, padded};
use crate::support::lab::{assert_well_formed, lab};
use crate::support::packet::Packet;

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Tcp,
    Syn,
    Udp,
    EmptyUdp,
}

/// A packet of the client to the way's frontend.
pub fn packet(way: Way, four: bool, kind: Kind) -> Packet {
    let (source, destination) = (caller(four), way.at(vip(four)));
    match kind {
        Kind::Tcp => Packet::tcp(source, destination),
        Kind::Syn => Packet::tcp(source, destination).syn(),
        Kind::Udp => Packet::udp(source, destination),
        Kind::EmptyUdp => Packet::udp(source, destination).payload([]),
    }
}

#[rstest]
fn it_leaves_in_gue_with_every_outer_byte_right(
    #[values(Way::Own4, Way::Own6, Way::Pod4In4, Way::Pod6In4, Way::Pod4In6, Way::Pod6In6)] way: Way,
    #[values(true, false)] four: bool,
    #[values(Kind::Tcp, Kind::Syn, Kind::Udp, Kind::EmptyUdp)] kind: Kind,
) {
    let packet = packet(way, four, kind);
    let sent = frame(&packet.ip());
    let mut lab = lab();
    let outcome =
        lab.send_becomes(&sent, Verdict::Tx, &[Event::Encapsulated], &encapsulated(way, &packet, &packet.ip()));
    assert_well_formed(&outcome, true, &sent);
}

#[rstest]
fn dscp_and_ecn_are_copied_to_the_outer_header(
    #[values(Way::Own4, Way::Own6)] way: Way,
    #[values(true, false)] four: bool,
    #[values(0, 0b10_1110, 0b11_1111)] dscp: u8,
    #[values(0, 1, 2, 3)] ecn: u8,
) {
    let packet = packet(way, four, Kind::Tcp).traffic_class(dscp, ecn);
    let want = encapsulated(way, &packet, &packet.ip());
    let outcome = lab().send_becomes(&frame(&packet.ip()), Verdict::Tx, &[Event::Encapsulated], &want);
    assert_well_formed(&outcome, true, &want);
}

#[rstest]
fn lengths_come_from_the_ip_header_and_padding_is_cut(
    #[values(Way::Own4, Way::Own6)] way: Way,
    #[values(true, false)] four: bool,
    #[values(60, 64, 128, 300)] wire: usize,
) {
    let packet = packet(way, four, Kind::EmptyUdp);
    let sent = padded(frame(&packet.ip()), wire);
    let want = encapsulated(way, &packet, &packet.ip());
    let mut lab = lab();
    let outcome = lab.send(&sent);
    assert_eq!((outcome.verdict, outcome.events()), (Verdict::Tx, vec![Event::Encapsulated]));
    // Padding may trail the outer packet (its lengths do not count it) or be gone.
    assert_eq!(&outcome.frame[..want.len()], &want[..], "the tunnel packet, by its own lengths");
    assert!(outcome.frame.len() <= want.len() + (sent.len() - 14 - packet.ip().len()), "nothing is added behind it");
}

#[rstest]
fn every_size_up_to_the_path_mtu_fits(#[values(Way::Own4, Way::Pod6In6)] way: Way, #[values(true, false)] four: bool) {
    let overhead = if way == Way::Own4 { 32 } else { 72 };
    let mut lab = lab();
    for size in (64..=1500 - overhead).step_by(37).chain([1500 - overhead]) {
        let packet = packet(way, four, Kind::Udp).total_length(size);
        let want = encapsulated(way, &packet, &packet.ip());
        let outcome = lab.send_becomes(&frame(&packet.ip()), Verdict::Tx, &[Event::Encapsulated], &want);
        assert_well_formed(&outcome, true, &want);
    }
}

#[rstest]
fn a_next_hop_behind_another_interface_is_reached_by_redirect(#[values(true, false)] four: bool) {
    let packet = packet(Way::OtherInterface, four, Kind::Tcp);
    let want = encapsulated(Way::OtherInterface, &packet, &packet.ip());
    let outcome = lab().send_becomes(&frame(&packet.ip()), Verdict::Redirect, &[Event::Encapsulated], &want);
    assert_well_formed(&outcome, true, &want);
}

#[rstest]
fn a_packet_that_was_on_its_way_for_long_keeps_its_hop_limit(
    #[values(true, false)] four: bool,
    #[values(1, 2, 255)] hop_limit: u8,
) {
    let mut packet = packet(Way::Own4, four, Kind::Tcp);
    packet.hop_limit = hop_limit;
    let want = encapsulated(Way::Own4, &packet, &packet.ip());
    lab().send_becomes(&frame(&packet.ip()), Verdict::Tx, &[Event::Encapsulated], &want);
}

/// The counters name the frontend and the endpoint.
#[rstest]
fn frontend_and_endpoint_are_counted(#[values(true, false)] four: bool, #[values(Kind::Tcp, Kind::Udp)] kind: Kind) {
    let packet = packet(Way::Pod4In4, four, kind);
    let outcome = lab().send(&frame(&packet.ip()));
    let frontend = outcome.frontend.expect("a frontend");
    assert_eq!((frontend.vip, frontend.port), (vip(four), Way::Pod4In4.port()));
    assert_eq!(frontend.protocol.to_string(), if matches!(kind, Kind::Tcp) { "TCP" } else { "UDP" });
    assert_eq!(outcome.service, Some(Way::Pod4In4.service()));
    assert_eq!(outcome.endpoint, Some(crate::support::bed::POD4));
}
