//! Delivery `Nat` on the way in: a packet for a VIP becomes the packet that its endpoint would have been sent directly, byte
//! for byte; what it should be is etherparse's.

use std::net::{IpAddr, SocketAddr};

use guenon_ebpf::abi::Event;
use guenon_ebpf::reason::DropReason;
use rstest::rstest;

use crate::support::bed::{CLIENT4, ONE_TAG, POD4, POD6, TWO_TAGS, VIP4, client, router, vip};
use crate::support::expect::assert_frame;
use crate::support::frame::{Tag, tagged};
use crate::support::nat::{DROP, Node, PASS, TARGET, WEB};
use crate::support::packet::{DESTINATION_OPTIONS, Packet, Upper};
use crate::support::segment::{ACK, RST, Segment, data, syn};

pub fn pod(four: bool) -> IpAddr {
    if four { POD4 } else { POD6 }
}

pub fn caller(four: bool) -> SocketAddr {
    (client(four), 40123).into()
}

pub fn web(four: bool) -> SocketAddr {
    (vip(four), WEB).into()
}

pub fn target(four: bool) -> SocketAddr {
    (pod(four), TARGET).into()
}

#[rstest]
fn tcp_gets_the_endpoints_address_and_port(
    #[values(true, false)] four: bool,
    #[values("guenon", "guenon_linear")] program: &'static str,
) {
    let mut node = Node::with(program, 0);
    let fin = Segment { flags: ACK | 1, ..data(b"") };
    let reset = Segment { flags: RST, ..data(b"") };
    let fast_open = Segment { payload: b"GET / HTTP/1.0", ..syn(77) };
    for segment in [syn(1), data(b"odd"), data(&[0xff; 1400]), fin, reset, fast_open] {
        let (run, got) = node.deliver(pod(four), &segment.ip(caller(four), web(four)));
        assert_eq!((run.action, run.drop), (PASS, None), "{segment:?}");
        assert_frame("what is passed", &got, &segment.ip(caller(four), target(four)));
        assert_eq!(run.events, [Event::Decapsulated, Event::Translated]);
    }
}

#[rstest]
fn udp_gets_the_endpoints_address_and_port(
    #[values(true, false)] four: bool,
    #[values("guenon", "guenon_linear")] program: &'static str,
) {
    let mut node = Node::with(program, 0);
    for payload in [&b"odd"[..], b"even", b"", &[0xff; 1400]] {
        let ip = Packet::udp(caller(four), web(four)).payload(payload).ip();
        let (run, got) = node.deliver(pod(four), &ip);
        assert_eq!((run.action, run.drop), (PASS, None));
        assert_frame("what is passed", &got, &Packet::udp(caller(four), target(four)).payload(payload).ip());
    }
}

#[rstest]
#[case::no_tag(&[])]
#[case::one_tag(&ONE_TAG)]
#[case::two_tags(&TWO_TAGS)]
fn tags_stay(#[case] tags: &[Tag], #[values(true, false)] four: bool) {
    let mut node = Node::new();
    let (run, got) = node.deliver_tagged(pod(four), &syn(5).ip(caller(four), web(four)), tags);
    assert_eq!((run.action, run.drop), (PASS, None));
    assert_frame("what is passed", &got, &syn(5).ip(caller(four), target(four)));
}

#[rstest]
fn options_and_extension_headers_stay(#[values(true, false)] four: bool) {
    let mut node = Node::new();
    let dressed = |to| {
        let packet = Packet::udp(caller(four), to);
        let packet =
            if four { packet.options(&[1; 8]) } else { packet.extension(DESTINATION_OPTIONS, &[1, 4, 0, 0, 0, 0]) };
        packet.ip()
    };
    let (run, got) = node.deliver(pod(four), &dressed(web(four)));
    assert_eq!((run.action, run.drop), (PASS, None));
    assert_frame("what is passed", &got, &dressed(target(four)));
}

#[rstest]
fn a_udp_checksum_that_is_none_stays_none(#[values(true, false)] four: bool) {
    let mut node = Node::new();
    let bare = |to| {
        let mut ip = Packet::udp(caller(four), to).ip();
        let at = if four { 26 } else { 46 };
        ip[at..at + 2].fill(0);
        ip
    };
    let (run, got) = node.deliver(pod(four), &bare(web(four)));
    assert_eq!((run.action, run.drop), (PASS, None));
    assert_frame("what is passed", &got, &bare(target(four)));
}

/// A sum that only the sender's hardware would have finished: it must hold the seed of the new addresses.
#[rstest]
fn an_unfinished_checksum_stays_unfinished(#[values(true, false)] four: bool, #[values(true, false)] tcp: bool) {
    let mut node = Node::with("guenon", 1);
    let unfinished = |to: SocketAddr| {
        let mut ip = if tcp { data(b"some data").ip(caller(four), to) } else { Packet::udp(caller(four), to).ip() };
        let upper = if four { 20 } else { 40 };
        let length = ip.len() - upper;
        let addresses = if four { &ip[12..20] } else { &ip[8..40] };
        let mut sum: u32 =
            addresses.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        sum += length as u32 + if tcp { 6 } else { 17 };
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        let at = upper + if tcp { 16 } else { 6 };
        ip[at..at + 2].copy_from_slice(&(sum as u16).to_be_bytes());
        ip
    };
    let (run, got) = node.deliver(pod(four), &unfinished(web(four)));
    assert_eq!((run.action, run.drop), (PASS, None));
    assert_frame("what is passed", &got, &unfinished(target(four)));
    // And a finished one is told from it.
    let (_, got) = node.deliver(pod(four), &data(b"more").ip(caller(four), web(four)));
    assert_frame("what is passed", &got, &data(b"more").ip(caller(four), target(four)));
}

#[rstest]
fn fragments_arrive_whole_or_not_at_all(#[values(true, false)] four: bool) {
    let mut node = Node::new();
    let parts = |to| Packet::udp(caller(four), to).payload(vec![7; 100]).df(false).fragments(32);
    let (sent, want) = (parts(web(four)), parts(target(four)));
    for (sent, want) in sent.iter().zip(&want) {
        let (run, got) = node.deliver(pod(four), sent);
        assert_eq!((run.action, run.drop), (PASS, None));
        assert_frame("a fragment", &got, want);
    }
    // TCP's checksum is not in a first fragment this short: it cannot be rewritten.
    let short = Packet::tcp(caller(four), web(four)).df(false).fragments(16);
    assert_eq!(node.deliver(pod(four), &short[0]).0.drop, Some(DropReason::FragmentBad));
}

/// Types and codes of errors that follow a flow: unreachable (net, host, protocol, port, too big, refused), time exceeded.
const ERRORS4: [(u8, u8); 7] = [(3, 0), (3, 1), (3, 2), (3, 3), (3, 4), (3, 13), (11, 0)];
const ERRORS6: [(u8, u8); 5] = [(1, 0), (1, 1), (1, 4), (2, 0), (3, 0)];

#[rstest]
fn icmp_errors_speak_of_the_endpoint(
    #[values(true, false)] four: bool,
    #[values(true, false)] tcp: bool,
    #[values(8, 20, 60)] quoted: usize,
    #[values("guenon", "guenon_linear")] program: &'static str,
) {
    let mut node = Node::with(program, 0);
    let said = |kind: u8, code: u8, from: SocketAddr| {
        let quote = if tcp {
            data(&[3; 100]).ip(from, caller(four))
        } else {
            Packet::udp(from, caller(four)).payload([3; 100]).ip()
        };
        let header = if four { 20 } else { 40 };
        let error = Packet::icmp(router(four), from.ip(), kind, code, [0, 0, 5, 0]);
        error.payload(&quote[..header + quoted]).ip()
    };
    for (kind, code) in if four { &ERRORS4[..] } else { &ERRORS6 } {
        let (run, got) = node.deliver(pod(four), &said(*kind, *code, web(four)));
        assert_eq!((run.action, run.drop), (PASS, None), "type {kind} code {code}");
        assert_frame("the error", &got, &said(*kind, *code, target(four)));
    }
}

/// The director's own endpoints: the same, with no tunnel in between.
#[rstest]
fn a_directors_own_endpoint_gets_the_same(
    #[values(true, false)] four: bool,
    #[values("guenon", "guenon_linear")] program: &'static str,
    #[values(&[], &ONE_TAG, &TWO_TAGS)] tags: &[Tag],
) {
    let mut node = Node::with(program, 0);
    let datagram = |to| Packet::udp(caller(four), to).payload(vec![7; 100]).df(false);
    let error = |from: SocketAddr| {
        let quote = data(b"quoted").ip(from, caller(four));
        Packet::icmp(router(four), from.ip(), if four { 3 } else { 1 }, 1, [0; 4]).payload(quote).ip()
    };
    let [first, later] = datagram(web(four)).fragments(32);
    let [first_there, later_there] = datagram(target(four)).fragments(32);
    for (sent, want) in [
        (syn(1).ip(caller(four), web(four)), syn(1).ip(caller(four), target(four))),
        (data(b"x").ip(caller(four), web(four)), data(b"x").ip(caller(four), target(four))),
        (datagram(web(four)).ip(), datagram(target(four)).ip()),
        (first, first_there),
        (later, later_there),
        (error(web(four)), error(target(four))),
    ] {
        let run = node.receive(&tagged(tags, &sent));
        assert_eq!((run.action, run.drop), (PASS, None));
        assert_frame("what is passed", &run.frame, &tagged(tags, &want));
        assert!(run.events.contains(&Event::DeliveredHere) && run.events.contains(&Event::Translated));
    }
}

#[test]
fn what_has_no_delivery_here_is_dropped_as_ever() {
    let mut node = Node::new();
    let nowhere = syn(1).ip(caller(true), (VIP4, 9).into());
    assert_eq!(node.deliver(POD4, &nowhere).0.drop, Some(DropReason::NoFrontend));
    let elsewhere = syn(1).ip(caller(true), web(true));
    let (run, _) = node.deliver(CLIENT4, &elsewhere);
    assert_eq!((run.action, run.drop), (DROP, Some(DropReason::NotOurEndpoint)));
    let quote = Packet::icmp(router(true), VIP4, 3, 4, [0; 4]).payload([0x45; 24]).ip();
    assert_eq!(node.deliver(POD4, &quote).0.drop, Some(DropReason::InnerMalformed));
    let ping = Packet::new(CLIENT4, VIP4, Upper::Icmp { kind: 8, code: 0, rest: [0; 4] }).ip();
    assert_eq!(node.deliver(POD4, &ping).0.drop, Some(DropReason::NoFrontend));
}
