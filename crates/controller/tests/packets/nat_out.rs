//! Delivery `Nat` on the way out: replies of known flows get VIP and port back, and nothing else is touched.

use guenon_ebpf::abi::{Address, Event};
use guenon_ebpf::nat;
use guenon_ebpf::reason::DropReason;
use rstest::rstest;

use crate::nat_in::{caller, pod, target, web};
use crate::support::bed::{TUNNEL4, TWO_TAGS, client, router};
use crate::support::expect::assert_frame;
use crate::support::frame::tagged;
use crate::support::nat::{NEXT, Node, PASS, SHOT};
use crate::support::packet::{DESTINATION_OPTIONS, Packet};
use crate::support::segment::{data, syn, syn_ack};

/// A node with a TCP and a UDP flow of both families.
fn with_flows() -> Node {
    let mut node = Node::new();
    for four in [true, false] {
        assert_eq!(node.deliver(pod(four), &syn(1000).ip(caller(four), web(four))).0.action, PASS);
        let (run, got) = node.leave(&syn_ack(1001).ip(target(four), caller(four)));
        assert_eq!((run.action, run.events), (NEXT, vec![Event::ReplyTranslated]));
        assert_frame("the SYN-ACK", &got, &syn_ack(1001).ip(web(four), caller(four)));
        let datagram = Packet::udp(caller(four), web(four)).ip();
        assert_eq!(node.deliver(pod(four), &datagram).0.action, PASS);
    }
    node
}

#[rstest]
fn replies_get_the_vip_back(#[values(true, false)] four: bool) {
    let mut node = with_flows();
    for payload in [&b"odd"[..], b"even", b"", &[0xff; 1400]] {
        let (run, got) = node.leave(&data(payload).ip(target(four), caller(four)));
        assert_eq!((run.action, run.events), (NEXT, vec![Event::ReplyTranslated]));
        assert_frame("a segment", &got, &data(payload).ip(web(four), caller(four)));
        let (_, got) = node.leave(&Packet::udp(target(four), caller(four)).payload(payload).ip());
        assert_frame("a datagram", &got, &Packet::udp(web(four), caller(four)).payload(payload).ip());
    }
}

/// One that could as well be the sum of the pseudo-header, which hardware is to finish: the kernel is asked.
#[rstest]
fn a_checksum_that_looks_unfinished_is_not_taken_for_it(
    #[values(true, false)] four: bool,
    #[values(true, false)] tcp: bool,
) {
    let mut node = with_flows();
    let packet = |from, word: u16| {
        let payload = word.to_be_bytes();
        if tcp { data(&payload).ip(from, caller(four)) } else { Packet::udp(from, caller(four)).payload(payload).ip() }
    };
    let upper = if four { 20 } else { 40 };
    let (at, number) = if tcp { (upper + 16, 6) } else { (upper + 6, 17) };
    let addresses = [pod(four), client(four)].map(Address::from_ip);
    let looks_unfinished = |ip: &[u8]| {
        let seed = nat::seed(addresses[0], addresses[1], ip.len() - upper, number, !four);
        nat::is_same_sum(u16::from_le_bytes([ip[at], ip[at + 1]]), seed)
    };
    let word = (0..=u16::MAX).find(|&word| looks_unfinished(&packet(target(four), word))).expect("one of all words");
    let (run, got) = node.leave(&packet(target(four), word));
    assert_eq!(run.events, vec![Event::ReplyTranslated]);
    assert_frame("a finished packet", &got, &packet(web(four), word));
}

#[rstest]
fn options_and_extension_headers_stay(#[values(true, false)] four: bool) {
    let mut node = with_flows();
    let dressed = |from| {
        let packet = Packet::udp(from, caller(four));
        let packet =
            if four { packet.options(&[1; 8]) } else { packet.extension(DESTINATION_OPTIONS, &[1, 4, 0, 0, 0, 0]) };
        packet.ip()
    };
    assert_frame("a datagram", &node.leave(&dressed(target(four))).1, &dressed(web(four)));
}

#[rstest]
fn a_udp_checksum_that_is_none_stays_none(#[values(true, false)] four: bool) {
    let mut node = with_flows();
    let bare = |from| {
        let mut ip = Packet::udp(from, caller(four)).ip();
        let at = if four { 26 } else { 46 };
        ip[at..at + 2].fill(0);
        ip
    };
    assert_frame("a datagram", &node.leave(&bare(target(four))).1, &bare(web(four)));
}

#[rstest]
fn what_is_no_reply_of_a_known_flow_leaves_untouched(#[values(true, false)] four: bool) {
    let mut node = with_flows();
    let other = (client(four), 9).into();
    let frames = [
        data(b"x").ip(target(four), other),
        syn_ack(1001).ip(target(four), other),
        Packet::udp(target(four), other).ip(),
        data(b"x").ip((pod(four), 8081).into(), caller(four)),
        data(b"x").ip(caller(four), target(four)),
        data(b"x").ip(caller(four), web(four)),
        Packet::icmp(pod(four), client(four), if four { 8 } else { 128 }, 0, [0; 4]).ip(),
        vec![0x45; 30],
    ];
    for ip in frames {
        // Our own pod's address as a destination is another matter: below.
        let (run, got) = node.leave(&ip);
        if run.action == SHOT {
            assert_eq!(run.drop, Some(DropReason::NoRoute));
            continue;
        }
        assert_eq!((run.action, run.events, run.drop), (NEXT, vec![], None));
        assert_frame("what leaves", &got, &ip);
    }
}

#[rstest]
fn what_was_translated_for_a_pod_that_is_gone_does_not_leave(#[values(true, false)] four: bool) {
    let mut node = with_flows();
    let on_its_way = [
        data(b"x").ip(caller(four), target(four)),
        Packet::udp(caller(four), target(four)).ip(),
        Packet::udp(caller(four), target(four)).df(false).fragments(16)[1].clone(),
    ];
    for ip in on_its_way {
        let (run, _) = node.leave(&ip);
        assert_eq!((run.action, run.drop), (SHOT, Some(DropReason::NoRoute)));
    }
}

#[rstest]
fn fragments_of_a_reply_leave_as_the_first_did(#[values(true, false)] four: bool) {
    let mut node = with_flows();
    let parts = |from, id| Packet::udp(from, caller(four)).payload(vec![7; 100]).df(false).id(id).fragments(32);
    for (sent, want) in parts(target(four), 5).iter().zip(&parts(web(four), 5)) {
        let (run, got) = node.leave(sent);
        assert_eq!((run.action, run.events), (NEXT, vec![Event::ReplyTranslated]));
        assert_frame("a fragment", &got, want);
    }
    let (run, _) = node.leave(&parts(target(four), 6)[1]);
    assert_eq!((run.action, run.drop), (SHOT, Some(DropReason::FragReply)), "the first has not been seen");
    // A direct connection's are untouched, first and later.
    let direct = Packet::udp((pod(four), 53).into(), caller(four)).payload(vec![7; 100]).df(false).id(7).fragments(32);
    for part in &direct {
        let (run, got) = node.leave(part);
        assert_eq!((run.action, run.drop), (NEXT, None));
        assert_frame("a fragment", &got, part);
    }
    // So is what a pod sends by other protocols.
    let kind = if four { 0 } else { 129 };
    let echo = Packet::icmp(pod(four), client(four), kind, 0, [0; 4]).payload(vec![7; 100]).df(false).id(9);
    for part in &echo.fragments(32) {
        let (run, got) = node.leave(part);
        assert_eq!((run.action, run.drop), (NEXT, None));
        assert_frame("a fragment", &got, part);
    }
    // So are the node's own.
    let own = Packet::udp((TUNNEL4, 53).into(), caller(true)).df(false).id(8).fragments(16);
    assert_eq!(node.leave(&own[1]).0.action, NEXT);
}

/// Nothing of a datagram leaves whose first fragment had to be dropped, nor by what another one with its id was.
#[rstest]
fn fragments_behind_a_dropped_one_are_dropped(#[values(true, false)] four: bool) {
    let mut node = with_flows();
    let parts = |from| Packet::tcp(from, caller(four)).payload(vec![7; 100]).df(false).id(5).fragments(16);
    let (direct, reply) = (parts((pod(four), 53).into()), parts(target(four)));
    assert_eq!(node.leave(&direct[0]).0.action, NEXT);
    // 16 bytes of a TCP header: its checksum is in the second.
    for part in &reply {
        let (run, _) = node.leave(part);
        assert_eq!((run.action, run.drop), (SHOT, Some(DropReason::FragReply)));
    }
}

#[rstest]
fn icmp_errors_speak_of_the_vip(
    #[values(true, false)] four: bool,
    #[values(true, false)] tcp: bool,
    #[values(8, 20, 60)] quoted: usize,
    #[values(true, false)] by_the_pod: bool,
) {
    let mut node = with_flows();
    let said = |kind: u8, code: u8, to: std::net::SocketAddr| {
        let quote = if tcp {
            data(&[3; 100]).ip(caller(four), to)
        } else {
            Packet::udp(caller(four), to).payload([3; 100]).ip()
        };
        let header = if four { 20 } else { 40 };
        let from = if by_the_pod { to.ip() } else { router(four) };
        Packet::icmp(from, client(four), kind, code, [0, 0, 5, 0]).payload(&quote[..header + quoted]).ip()
    };
    let errors: &[(u8, u8)] = if four { &[(3, 1), (3, 3), (3, 4), (11, 0)] } else { &[(1, 1), (1, 4), (2, 0), (3, 0)] };
    for (kind, code) in errors {
        let (run, got) = node.leave(&said(*kind, *code, target(four)));
        assert_eq!((run.action, run.events), (NEXT, vec![Event::ReplyTranslated]), "type {kind} code {code}");
        assert_frame("the error", &got, &said(*kind, *code, web(four)));
    }
}

#[test]
fn tags_in_the_frame_are_no_hindrance() {
    let mut node = with_flows();
    let run = node.send(&tagged(&TWO_TAGS, &data(b"x").ip(target(true), caller(true))));
    assert_eq!(run.action, NEXT);
    assert_frame("a frame", &run.frame, &tagged(&TWO_TAGS, &data(b"x").ip(web(true), caller(true))));
}
