//! The lessons of the field that show in a packet, each by its number in the design (section 7).

use guenon_controller::simulate::sandbox::Verdict;
use guenon_ebpf::abi::Event;
use rstest::rstest;

use crate::decap::from_director;
use crate::encapsulation::{Kind, packet};
use crate::support::bed::{POD_MAC, POD4, Way};
use crate::support::expect::encapsulated;
use crate::support::frame::{NIC_MAC, frame, padded};
use crate::support::lab::{assert_well_formed, lab};
use crate::support::packet::Upper;

/// `bpf_xdp_adjust_head` with the wrong sign drops every packet, or eats its head.
#[rstest]
fn lesson_2_the_head_grows_by_the_overhead_and_shrinks_by_it(#[values(true, false)] four: bool) {
    let mut lab = lab();
    for (way, overhead) in [
        (Way::Own4, 32),
        (Way::Own6, 52),
        (Way::Pod4In4, 40),
        (Way::Pod6In4, 52),
        (Way::Pod4In6, 60),
        (Way::Pod6In6, 72),
    ] {
        let sent = frame(&packet(way, four, Kind::Tcp).ip());
        let outcome = lab.send(&sent);
        assert_eq!((outcome.verdict, outcome.frame.len()), (Verdict::Tx, sent.len() + overhead), "{way:?}");
        assert_eq!(outcome.frame[14 + overhead..], sent[14..], "the packet itself");
    }
    let tunnel = from_director(true, packet(Way::HereLocal, four, Kind::Tcp).ip());
    let sent = frame(&tunnel.ip());
    assert_eq!(lab.send(&sent).frame.len(), sent.len() - 32);
}

/// "truncated-ip - 14 bytes missing!": lengths that count the Ethernet header, or its padding.
#[rstest]
fn lesson_3_lengths_are_those_of_ip(#[values(Way::Own4, Way::Own6)] way: Way, #[values(0, 4, 14, 50)] pad: usize) {
    let packet = packet(way, true, Kind::EmptyUdp);
    let sent = padded(frame(&packet.ip()), 14 + packet.ip().len() + pad);
    let out = lab().send(&sent).frame;
    let inner = packet.ip().len();
    let (ip_length, udp) = if way == Way::Own4 {
        (usize::from(u16::from_be_bytes([out[16], out[17]])), 34)
    } else {
        (40 + usize::from(u16::from_be_bytes([out[18], out[19]])), 54)
    };
    let udp_length = usize::from(u16::from_be_bytes([out[udp + 4], out[udp + 5]]));
    assert_eq!(udp_length, 8 + 4 + inner);
    assert_eq!(ip_length, udp - 14 + udp_length);
    assert!(out.len() >= 14 + ip_length, "no byte is missing");
}

/// A redirected frame with a foreign MAC dies in `ip_rcv` with no word.
#[rstest]
fn lesson_4_a_redirected_frame_has_the_mac_of_who_receives_it(#[values(true, false)] four: bool) {
    let mut lab = lab();
    let own = frame(&packet(Way::HereVeth, four, Kind::Tcp).ip());
    let tunnelled = frame(&from_director(true, packet(Way::HereVeth, four, Kind::Tcp).ip()).naming(POD4).ip());
    for sent in [own, tunnelled] {
        let outcome = lab.send(&sent);
        assert_eq!((outcome.verdict, &outcome.frame[..6]), (Verdict::Redirect, &POD_MAC[..]));
    }
    // What the stack itself is to take keeps the MAC of the interface it came in on.
    let outcome = lab.send(&frame(&from_director(true, packet(Way::HereLocal, four, Kind::Tcp).ip()).ip()));
    assert_eq!((outcome.verdict, &outcome.frame[..6]), (Verdict::Pass, &NIC_MAC[..]));
}

/// A checksum computed over its own old value is wrong only sometimes: every value of the varying fields is tried.
#[test]
fn lesson_5_the_outer_checksum_is_right_every_time() {
    let mut lab = lab();
    for size in 60..=1468 {
        // All of the 256 traffic classes, in an order that has nothing to do with the size.
        let class = (size * 37 % 256) as u8;
        let packet = packet(Way::Own4, true, Kind::Udp).traffic_class(class >> 2, class & 3).total_length(size);
        let sent = frame(&packet.ip());
        let outcome = lab.send_one_of_many(&sent);
        assert_well_formed(&outcome, false, &sent);
    }
}

/// Source and destination both local is a martian: the director's own endpoint gets no tunnel packet from itself.
#[rstest]
fn lesson_6_the_director_s_own_endpoint_gets_no_tunnel(#[values(true, false)] four: bool) {
    for way in [Way::HereLocal, Way::HereVeth] {
        let sent = frame(&packet(way, four, Kind::Tcp).ip());
        let outcome = lab().send(&sent);
        assert_eq!(outcome.events(), [Event::DeliveredHere], "{way:?}");
        assert_eq!(outcome.frame[14..], sent[14..], "the client's address stays the source");
    }
}

/// Checksums that an offload left unfinished are the sender's to finish: the inner packet is not touched.
#[rstest]
fn lesson_11_an_unfinished_inner_checksum_is_left_as_it_is(#[values(true, false)] four: bool) {
    let packet = packet(Way::Own4, four, Kind::Tcp);
    let mut ip = packet.ip();
    let checksum = ip.len() - packet.upper().len() + 16;
    ip[checksum] ^= 0x5a;
    lab().send_becomes(&frame(&ip), Verdict::Tx, &[Event::Encapsulated], &encapsulated(Way::Own4, &packet, &ip));
}

/// A full-sized packet over an underlay of the same MTU would hang the connection after its handshake.
#[rstest]
fn lesson_12_a_full_sized_packet_is_answered_with_what_fits(
    #[values((Way::Own4, 1468), (Way::Own6, 1448))] case: (Way, u32),
    #[values(true, false)] four: bool,
) {
    let (way, fits) = case;
    let outcome = lab().send(&frame(&packet(way, four, Kind::Tcp).total_length(1500).ip()));
    assert_eq!((outcome.verdict, outcome.events()), (Verdict::Tx, vec![Event::TooBigAnswered]));
    // The MTU is the last word of the ICMP header, in either family.
    let at = 14 + if four { 20 } else { 40 } + 4;
    assert_eq!(u32::from_be_bytes(outcome.frame[at..at + 4].try_into().unwrap()), fits);
}

/// A partial outer sum spoils the inner one behind a veth: what we send has none, what others send may.
#[rstest]
fn lesson_13_the_outer_udp_checksum_is_zero_when_sent_and_free_when_received(
    #[values((Way::Own4, 14 + 20 + 6), (Way::Own6, 14 + 40 + 6))] case: (Way, usize),
    #[values(true, false)] four: bool,
) {
    let (way, checksum) = case;
    let sent = lab().send(&frame(&packet(way, four, Kind::Tcp).ip())).frame;
    assert_eq!(sent[checksum..checksum + 2], [0, 0]);
    let inner = packet(Way::HereLocal, four, Kind::Tcp);
    assert!(matches!(inner.upper, Upper::Tcp { .. }));
    let tunnel = from_director(way == Way::Own4, inner.ip()).with(|tunnel| tunnel.checksum = true);
    crate::decap::delivered_to_node(&mut lab(), &tunnel);
}
