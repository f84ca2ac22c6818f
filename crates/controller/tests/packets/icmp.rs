//! ICMP to a VIP: echo requests are answered; errors follow the flow that they quote.

use std::net::IpAddr;

use guenon_controller::simulate::sandbox::Verdict;
use guenon_ebpf::abi::Event;
use guenon_ebpf::reason::DropReason;
use rstest::rstest;

use crate::encapsulation::{Kind, packet};
use crate::support::bed::{VIP4, VIP6, Way, client, router, vip};
use crate::support::expect::{client_hash, encapsulated, encapsulated_to, flow_hash};
use crate::support::frame::{NIC_MAC, SENDER_MAC, frame, padded};
use crate::support::lab::{assert_well_formed, lab};
use crate::support::packet::{DESTINATION_OPTIONS, HOP_BY_HOP, Packet, Upper};

fn ping(four: bool, size: usize) -> Packet {
    let kind = if four { 8 } else { 128 };
    Packet::icmp(client(four), vip(four), kind, 0, [0xab, 0xcd, 0, 7])
        .payload((0..size).map(|i| i as u8).collect::<Vec<_>>())
}

#[rstest]
fn an_echo_request_is_answered(
    #[values(true, false)] four: bool,
    #[values(0, 1, 8, 55, 56, 57, 1400)] size: usize,
    #[values(false, true)] pad: bool,
) {
    let ping = ping(four, size);
    let sent = if pad { padded(frame(&ping.ip()), 64.max(48 + size)) } else { frame(&ping.ip()) };
    let outcome = lab().send(&sent);
    assert_eq!((outcome.verdict, outcome.events()), (Verdict::Tx, vec![Event::EchoAnswered]));
    let reply_kind = if four { 0 } else { 129 };
    let mut reply = Packet {
        source: ping.destination,
        destination: ping.source,
        upper: Upper::Icmp { kind: reply_kind, code: 0, rest: [0xab, 0xcd, 0, 7] },
        ..ping.clone()
    };
    let got = &outcome.frame[..14 + ping.ip().len()];
    assert_eq!((&got[..6], &got[6..12]), (&SENDER_MAC[..], &NIC_MAC[..]), "back where it came from");
    // The hop limit of an answer is the answering node's choice, as are id and DF.
    reply.hop_limit = if four { got[22] } else { got[21] };
    if four {
        reply.id = u32::from(u16::from_be_bytes([got[18], got[19]]));
        reply.df = got[20] & 0x40 != 0;
    } else {
        // So is the flow label.
        let label = got[15..18].to_vec();
        let mut want = reply.ip();
        want[1] = want[1] & 0xf0 | label[0] & 0x0f;
        want[2..4].copy_from_slice(&label[1..]);
        assert_eq!(&got[14..], &want[..]);
        assert!(reply.hop_limit > 32, "reaches the client");
        return;
    }
    assert_eq!(&got[14..], &reply.ip()[..]);
    assert!(reply.hop_limit > 32, "reaches the client");
}

#[rstest]
fn other_icmp_to_a_vip_has_no_frontend(#[values(13, 15, 17, 5, 9, 10)] kind: u8) {
    let packet = Packet::icmp(client(true), VIP4, kind, 0, [0; 4]);
    lab().send_dropped(&frame(&packet.ip()), DropReason::NoFrontend);
}

#[rstest]
fn other_icmpv6_to_a_vip_has_no_frontend(#[values(129, 131, 139, 144, 200)] kind: u8) {
    let packet = Packet::icmp(client(false), VIP6, kind, 0, [0; 4]);
    lab().send_dropped(&frame(&packet.ip()), DropReason::NoFrontend);
}

#[rstest]
fn an_echo_reply_to_a_vip_has_no_frontend() {
    let packet = Packet::icmp(client(true), VIP4, 0, 0, [0; 4]);
    lab().send_dropped(&frame(&packet.ip()), DropReason::NoFrontend);
}

/// Neighbour discovery is never ours, even where it is about a VIP.
#[rstest]
fn neighbour_discovery_always_passes(#[values(133, 134, 135, 136, 137)] kind: u8) {
    let target: [u8; 16] = match VIP6 {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(_) => panic!("an IPv6 VIP"),
    };
    for destination in [VIP6, "ff02::1:ff00:10".parse().unwrap(), "ff02::1".parse().unwrap()] {
        let mut packet = Packet::icmp(client(false), destination, kind, 0, [0; 4]).payload(target);
        packet.hop_limit = 255;
        lab().send_untouched(&frame(&packet.ip()));
        let packet = packet.extension(HOP_BY_HOP, &[5, 2, 0, 0, 1, 0]);
        lab().send_untouched(&frame(&packet.ip()));
    }
}

/// What a router says: type, code, and the last word of the header, in IPv4 or IPv6.
#[derive(Clone, Copy, Debug)]
pub enum Said {
    Unreachable,
    PortUnreachable,
    AdminProhibited,
    TooBig,
    TimeExceeded,
}

impl Said {
    fn message(self, four: bool) -> (u8, u8, [u8; 4]) {
        match (self, four) {
            (Self::Unreachable, true) => (3, 1, [0; 4]),
            (Self::Unreachable, false) => (1, 0, [0; 4]),
            (Self::PortUnreachable, true) => (3, 3, [0; 4]),
            (Self::PortUnreachable, false) => (1, 4, [0; 4]),
            (Self::AdminProhibited, true) => (3, 10, [0; 4]),
            (Self::AdminProhibited, false) => (1, 1, [0; 4]),
            (Self::TooBig, true) => (3, 4, [0, 0, 0x05, 0x14]),
            (Self::TooBig, false) => (2, 0, [0, 0, 0x05, 0x14]),
            (Self::TimeExceeded, true) => (11, 0, [0; 4]),
            (Self::TimeExceeded, false) => (3, 0, [0; 4]),
        }
    }
}

/// The packet that the endpoint sent to the client, from the VIP: the reply to `flow`.
fn reply(flow: &Packet) -> Packet {
    let upper = match flow.upper {
        Upper::Tcp { source, destination, syn } => Upper::Tcp { source: destination, destination: source, syn },
        Upper::Udp { source, destination } => Upper::Udp { source: destination, destination: source },
        Upper::Icmp { .. } | Upper::Other(_) => panic!("no flow"),
    };
    Packet::new(flow.destination, flow.source, upper).payload(vec![9; 500])
}

/// A router's word about that reply, quoting so many bytes behind its IP headers.
pub fn error(said: Said, quoted: &Packet, bytes: usize) -> Packet {
    let four = quoted.source.is_ipv4();
    let (kind, code, rest) = said.message(four);
    let ip = quoted.ip();
    let headers = ip.len() - quoted.upper().len();
    Packet::icmp(router(four), quoted.source, kind, code, rest).payload(&ip[..headers + bytes])
}

const FOLLOWED: &[Event] = &[Event::Encapsulated, Event::IcmpErrorForwarded];

#[rstest]
fn an_error_follows_the_flow_that_it_quotes(
    #[values(Said::Unreachable, Said::PortUnreachable, Said::AdminProhibited, Said::TooBig, Said::TimeExceeded)]
    said: Said,
    #[values(Way::Own4, Way::Pod6In6)] way: Way,
    #[values(true, false)] four: bool,
    #[values(Kind::Tcp, Kind::Udp)] kind: Kind,
    #[values(8, 20, 508)] quoted: usize,
) {
    let flow = packet(way, four, kind);
    let ip = error(said, &reply(&flow), quoted).ip();
    let outcome = lab().send_becomes(&frame(&ip), Verdict::Tx, FOLLOWED, &encapsulated(way, &flow, &ip));
    assert_well_formed(&outcome, true, &ip);
}

#[rstest]
fn it_takes_the_row_of_its_flow(#[values(true, false)] four: bool, #[values(Way::Many, Way::ManyByClient)] way: Way) {
    let mut lab = lab();
    for port in 2000..2040 {
        let mut flow = packet(way, four, Kind::Tcp);
        flow.upper = Upper::Tcp { source: port, destination: way.port(), syn: false };
        let chosen = lab.send(&frame(&flow.ip())).endpoint;
        let error = error(Said::TooBig, &reply(&flow), 8);
        let outcome = lab.send(&frame(&error.ip()));
        assert_eq!((outcome.verdict, outcome.endpoint), (Verdict::Tx, chosen));
        let endpoints = way.endpoints();
        let to = endpoints.iter().find(|endpoint| Some(endpoint.address) == chosen).expect("an endpoint");
        let hash = flow_hash(&flow);
        assert_eq!(
            outcome.frame,
            encapsulated_to(to, way, hash, &error.ip()),
            "hash of the flow, {:x}",
            client_hash(&flow)
        );
    }
}

#[test]
fn options_in_the_quote_are_looked_past() {
    let flow = packet(Way::Own4, true, Kind::Tcp);
    let ip = error(Said::TimeExceeded, &reply(&flow).options(&[1; 12]), 8).ip();
    lab().send_becomes(&frame(&ip), Verdict::Tx, FOLLOWED, &encapsulated(Way::Own4, &flow, &ip));
}

#[rstest]
fn a_quoted_first_fragment_has_its_ports(#[values(true, false)] four: bool) {
    let flow = packet(Way::Own4, four, Kind::Udp);
    let [first, _] = reply(&flow).df(false).fragments(64);
    let (kind, code, rest) = Said::TooBig.message(four);
    let ip = Packet::icmp(router(four), vip(four), kind, code, rest).payload(first).ip();
    lab().send_becomes(&frame(&ip), Verdict::Tx, FOLLOWED, &encapsulated(Way::Own4, &flow, &ip));
}

/// Endpoints send none, and the way past them costs every packet.
#[test]
fn other_extension_headers_in_the_quote_are_refused_by_name() {
    let flow = packet(Way::Own4, false, Kind::Tcp);
    let quoted = reply(&flow).extension(DESTINATION_OPTIONS, &[1, 4, 0, 0, 0, 0]);
    lab().send_dropped(&frame(&error(Said::TimeExceeded, &quoted, 8).ip()), DropReason::IcmpQuote);
}

#[rstest]
fn it_reaches_the_director_s_own_endpoint(
    #[values((Way::HereLocal, Verdict::Pass), (Way::HereVeth, Verdict::Redirect))] case: (Way, Verdict),
    #[values(true, false)] four: bool,
) {
    let ip = error(Said::TooBig, &reply(&packet(case.0, four, Kind::Tcp)), 8).ip();
    let outcome = lab().send(&frame(&ip));
    assert_eq!((outcome.verdict, outcome.events()), (case.1, vec![Event::DeliveredHere, Event::IcmpErrorForwarded]));
    assert_eq!(&outcome.frame[14..], &ip[..]);
}

#[rstest]
#[case::not_sent_by_the_vip(|flow: &Packet| Packet { source: client(flow.source.is_ipv4()), ..reply(flow) }, 8)]
#[case::too_short_for_ports(reply, 3)]
#[case::no_l4_at_all(reply, 0)]
#[case::no_tcp_or_udp(|flow: &Packet| Packet { upper: Upper::Other(132), ..reply(flow) }, 8)]
fn an_error_that_quotes_no_packet_of_the_vip_is_refused(
    #[case] quoted: impl Fn(&Packet) -> Packet,
    #[case] bytes: usize,
    #[values(true, false)] four: bool,
) {
    let quoted = quoted(&packet(Way::Own4, four, Kind::Tcp));
    let mut error = error(Said::TooBig, &quoted, bytes);
    error.destination = vip(four);
    lab().send_dropped(&frame(&error.ip()), DropReason::IcmpQuote);
}

/// Eight bytes suffice, whatever the frame is padded with; cut quotes are not read beyond their end.
#[rstest]
fn a_quote_is_not_read_beyond_its_packet(#[values(true, false)] four: bool, #[values(0, 4, 19)] bytes: usize) {
    let quote = reply(&packet(Way::Own4, four, Kind::Tcp)).ip();
    let (kind, code, rest) = Said::TooBig.message(four);
    let error = Packet::icmp(router(four), vip(four), kind, code, rest).payload(&quote[..bytes]);
    let mut sent = frame(&error.ip());
    sent.extend_from_slice(&quote[bytes..]);
    lab().send_dropped(&sent, DropReason::IcmpQuote);
}

#[rstest]
fn an_error_about_a_port_that_is_no_frontend_is_dropped_as_such(#[values(true, false)] four: bool) {
    let mut quoted = reply(&packet(Way::Own4, four, Kind::Tcp));
    quoted.upper = Upper::Tcp { source: 9, destination: 40_123, syn: false };
    lab().send_dropped(&frame(&error(Said::TooBig, &quoted, 8).ip()), DropReason::NoFrontend);
}

/// A later fragment's quote has no ports.
#[rstest]
fn an_error_that_quotes_a_later_fragment_is_refused(#[values(true, false)] four: bool) {
    let [_, later] = reply(&packet(Way::Own4, four, Kind::Udp)).df(false).id(0xee00_0001).fragments(64);
    let (kind, code, rest) = Said::TimeExceeded.message(four);
    let error = Packet::icmp(router(four), vip(four), kind, code, rest).payload(later);
    lab().send_dropped(&frame(&error.ip()), DropReason::IcmpQuote);
}
