//! Who owns a client's port at an endpoint: the rules by which flows through VIPs and direct connections share it.

use std::net::SocketAddr;

use guenon_ebpf::abi::Event;
use guenon_ebpf::reason::DropReason;
use rstest::rstest;

use crate::nat_in::{caller, pod, target, web};
use crate::support::bed::{POD4, TUNNEL4, VIP4, client, vip};
use crate::support::expect::assert_frame;
use crate::support::frame::tagged;
use crate::support::nat::{ALT, GENERATION, HOST, NEXT, Node, PASS, TARGET};
use crate::support::packet::Packet;
use crate::support::read;
use crate::support::segment::{ACK, RST, Segment, data, syn, syn_ack};

const TCP: u8 = 6;
const UDP: u8 = 17;

fn alt(four: bool) -> SocketAddr {
    (vip(four), ALT).into()
}

/// Delivers a segment that must come through; the events but for the ordinary, and the source port that the pod sees.
#[track_caller]
fn deliver(node: &mut Node, four: bool, ip: &[u8]) -> (Vec<Event>, u16) {
    let (run, got) = node.deliver(pod(four), ip);
    assert_eq!((run.action, run.drop), (PASS, None));
    assert_eq!(read::ip_fault(&got, false), None);
    let upper = if four { 20 } else { 40 };
    let port = u16::from_be_bytes([got[upper], got[upper + 1]]);
    let events = run.events.into_iter().filter(|event| !matches!(event, Event::Decapsulated | Event::Translated));
    (events.collect(), port)
}

/// A segment of the pod leaves as `want`.
#[track_caller]
fn leaves_as(node: &mut Node, ip: &[u8], want: &[u8]) {
    let (run, got) = node.leave(ip);
    assert_eq!((run.action, run.drop), (NEXT, None));
    assert_frame("what leaves", &got, want);
}

#[rstest]
fn only_the_answer_to_the_vips_own_syn_confirms(#[values(true, false)] four: bool) {
    let mut node = Node::new();
    deliver(&mut node, four, &syn(1000).ip(caller(four), web(four)));
    // A direct connection's SYN-ACK, from the same port: untouched, and the VIP's flow is none any more.
    let direct = syn_ack(5001).ip(target(four), caller(four));
    leaves_as(&mut node, &direct, &direct);
    let late = data(b"x").ip(target(four), caller(four));
    leaves_as(&mut node, &late, &late);
    // The client repeats the VIP's SYN: from another port now.
    let (events, port) = deliver(&mut node, four, &syn(1000).ip(caller(four), web(four)));
    assert_eq!(events, [Event::FlowClash]);
    assert_ne!(port, 40123);
}

#[rstest]
fn a_direct_connection_first_then_the_vip(#[values(true, false)] four: bool) {
    let mut node = Node::new();
    // The pod answers a SYN of an open connection with a mere ACK.
    assert_eq!(deliver(&mut node, four, &syn(1000).ip(caller(four), web(four))), (vec![], 40123));
    let challenge =
        Segment { flags: ACK, sequence: 9, acknowledgement: 777, payload: b"" }.ip(target(four), caller(four));
    leaves_as(&mut node, &challenge, &challenge);
    let (events, port) = deliver(&mut node, four, &syn(1000).ip(caller(four), web(four)));
    assert_eq!(events, [Event::FlowClash]);
    let substitute = (client(four), port).into();
    // That flow works, in both directions, and keeps its port.
    leaves_as(&mut node, &syn_ack(1001).ip(target(four), substitute), &syn_ack(1001).ip(web(four), caller(four)));
    assert_eq!(deliver(&mut node, four, &data(b"hello").ip(caller(four), web(four))), (vec![], port));
    leaves_as(&mut node, &data(b"world").ip(target(four), substitute), &data(b"world").ip(web(four), caller(four)));
    // So does the direct one.
    let direct = data(b"direct").ip(target(four), caller(four));
    leaves_as(&mut node, &direct, &direct);
    // A repeated SYN keeps the port, too.
    assert_eq!(deliver(&mut node, four, &syn(1000).ip(caller(four), web(four))), (vec![], port));
}

#[rstest]
fn icmp_errors_of_a_flow_with_another_port_speak_of_the_clients_own(#[values(true, false)] four: bool) {
    let mut node = Node::new();
    deliver(&mut node, four, &syn(1).ip(caller(four), web(four)));
    let (_, port) = deliver(&mut node, four, &syn(2).ip(caller(four), alt(four)));
    let substitute: SocketAddr = (client(four), port).into();
    let error = |from: std::net::IpAddr, to, quote: Vec<u8>| {
        Packet::icmp(from, to, if four { 3 } else { 1 }, 1, [0; 4]).payload(quote).ip()
    };
    // In: the client's router quotes what the VIP sent to the client's own port.
    let sent = error(client(four), vip(four), data(b"quoted").ip(alt(four), caller(four)));
    let want = error(client(four), pod(four), data(b"quoted").ip(target(four), substitute));
    assert_frame("an error", &node.deliver(pod(four), &sent).1, &want);
    // Out: the pod quotes what it received from the other port.
    let sent = error(pod(four), client(four), syn(2).ip(substitute, target(four)));
    leaves_as(&mut node, &sent, &error(vip(four), client(four), syn(2).ip(caller(four), alt(four))));
}

#[rstest]
fn the_vip_first_then_a_direct_connection(#[values(true, false)] four: bool) {
    let mut node = Node::new();
    deliver(&mut node, four, &syn(1000).ip(caller(four), web(four)));
    leaves_as(&mut node, &syn_ack(1001).ip(target(four), caller(four)), &syn_ack(1001).ip(web(four), caller(four)));
    // Later the client uses the port directly: the pod's SYN-ACK is no answer to the VIP's SYN.
    let direct = syn_ack(0x8000_0001).ip(target(four), caller(four));
    leaves_as(&mut node, &direct, &direct);
    let more = data(b"direct").ip(target(four), caller(four));
    leaves_as(&mut node, &more, &more);
}

#[rstest]
fn two_frontends_of_one_pod_port_with_one_client_port(
    #[values(true, false)] four: bool,
    #[values(true, false)] tcp: bool,
) {
    let mut node = Node::new();
    let to = |to, number: u32| if tcp { syn(number).ip(caller(four), to) } else { Packet::udp(caller(four), to).ip() };
    let from = |client, vip, number: u32| {
        if tcp { syn_ack(number + 1).ip(vip, client) } else { Packet::udp(vip, client).ip() }
    };
    assert_eq!(deliver(&mut node, four, &to(web(four), 10)), (vec![], 40123));
    let (events, port) = deliver(&mut node, four, &to(alt(four), 20));
    assert_eq!(events, [Event::FlowClash]);
    let substitute = (client(four), port).into();
    leaves_as(&mut node, &from(caller(four), target(four), 10), &from(caller(four), web(four), 10));
    leaves_as(&mut node, &from(substitute, target(four), 20), &from(caller(four), alt(four), 20));
    // Both go on with their ports.
    assert_eq!(deliver(&mut node, four, &to(web(four), 10)).1, 40123);
    assert_eq!(deliver(&mut node, four, &to(alt(four), 20)), (vec![], port));
}

#[rstest]
fn a_syn_that_is_repeated_or_comes_anew_keeps_the_flow(#[values(true, false)] four: bool) {
    let mut node = Node::new();
    for _ in 0..2 {
        assert_eq!(deliver(&mut node, four, &syn(1000).ip(caller(four), web(four))), (vec![], 40123));
    }
    for _ in 0..2 {
        leaves_as(&mut node, &syn_ack(1001).ip(target(four), caller(four)), &syn_ack(1001).ip(web(four), caller(four)));
    }
    // A new SYN of the same frontend does not clear it: the old SYN-ACK and data still leave as the VIP's.
    deliver(&mut node, four, &syn(9000).ip(caller(four), web(four)));
    leaves_as(&mut node, &syn_ack(1001).ip(target(four), caller(four)), &syn_ack(1001).ip(web(four), caller(four)));
    leaves_as(&mut node, &data(b"x").ip(target(four), caller(four)), &data(b"x").ip(web(four), caller(four)));
    leaves_as(&mut node, &syn_ack(9001).ip(target(four), caller(four)), &syn_ack(9001).ip(web(four), caller(four)));
}

#[rstest]
fn fast_open_data_is_acknowledged_in_part_or_whole(#[values(0, 5, 14)] taken: u32) {
    let mut node = Node::new();
    let opening = Segment { payload: b"GET / HTTP/1.0", ..syn(u32::MAX) };
    deliver(&mut node, true, &opening.ip(caller(true), web(true)));
    let answer = syn_ack(taken);
    leaves_as(&mut node, &answer.ip(target(true), caller(true)), &answer.ip(web(true), caller(true)));
    assert_eq!(node.entry(caller(true), target(true), TCP).map(|entry| entry.current().port()), Some(80));
}

#[rstest]
fn a_port_that_is_closed_answers_as_the_vip_and_is_forgotten(#[values(true, false)] four: bool) {
    let mut node = Node::new();
    deliver(&mut node, four, &syn(1000).ip(caller(four), web(four)));
    let refusal = Segment { flags: RST | ACK, sequence: 0, acknowledgement: 1001, payload: b"" };
    leaves_as(&mut node, &refusal.ip(target(four), caller(four)), &refusal.ip(web(four), caller(four)));
    assert_eq!(node.entry(caller(four), target(four), TCP), None);
    // Another's reset is none of ours.
    deliver(&mut node, four, &syn(1000).ip(caller(four), web(four)));
    let other = Segment { acknowledgement: 5, ..refusal }.ip(target(four), caller(four));
    leaves_as(&mut node, &other, &other);
    leaves_as(&mut node, &syn_ack(1001).ip(target(four), caller(four)), &syn_ack(1001).ip(web(four), caller(four)));
}

#[rstest]
fn a_direct_datagram_takes_the_port_back(#[values(true, false)] four: bool) {
    let mut node = Node::new();
    deliver(&mut node, four, &Packet::udp(caller(four), web(four)).ip());
    let direct = tagged(&[], &Packet::udp(caller(four), target(four)).ip());
    let run = node.receive(&direct);
    assert_eq!((run.action, run.events), (PASS, vec![]));
    assert_frame("a direct datagram", &run.frame, &direct);
    assert_eq!(node.entry(caller(four), target(four), UDP), None);
    let reply = Packet::udp(target(four), caller(four)).ip();
    leaves_as(&mut node, &reply, &reply);
}

#[test]
fn an_endpoint_on_the_nodes_own_address_is_told_from_direct_datagrams_as_well() {
    let mut node = Node::new();
    let (front, back): (SocketAddr, SocketAddr) = ((VIP4, HOST).into(), (TUNNEL4, TARGET).into());
    let (run, got) = node.deliver(TUNNEL4, &Packet::udp(caller(true), front).ip());
    assert_eq!(run.action, PASS);
    assert_frame("a datagram", &got, &Packet::udp(caller(true), back).ip());
    leaves_as(&mut node, &Packet::udp(back, caller(true)).ip(), &Packet::udp(front, caller(true)).ip());
    let direct = tagged(&[], &Packet::udp(caller(true), back).ip());
    assert_frame("a direct datagram", &node.receive(&direct).frame, &direct);
    let reply = Packet::udp(back, caller(true)).ip();
    leaves_as(&mut node, &reply, &reply);
}

#[test]
fn flows_of_a_vip_that_is_gone_are_void() {
    let mut node = Node::new();
    deliver(&mut node, true, &syn(1000).ip(caller(true), web(true)));
    leaves_as(&mut node, &syn_ack(1001).ip(target(true), caller(true)), &syn_ack(1001).ip(web(true), caller(true)));
    node.vip(1, VIP4, GENERATION + 1);
    let late = data(b"x").ip(target(true), caller(true));
    leaves_as(&mut node, &late, &late);
    // The id's next VIP has the port for itself.
    assert_eq!(deliver(&mut node, true, &syn(5).ip(caller(true), web(true))), (vec![], 40123));
    leaves_as(&mut node, &syn_ack(6).ip(target(true), caller(true)), &syn_ack(6).ip(web(true), caller(true)));
}

#[test]
fn a_flow_in_use_that_gives_way_is_counted_and_an_old_one_is_not() {
    let mut node = Node::new();
    node.clock(100);
    // 256 places; many more flows.
    let flood = |node: &mut Node, first: u16| {
        let ports = first..first + 1000;
        let count = |port| {
            let datagram = Packet::udp((client(true), port).into(), web(true)).ip();
            let (events, _) = deliver(node, true, &datagram);
            usize::from(events.contains(&Event::FlowEvicted))
        };
        ports.map(count).sum::<usize>()
    };
    let evicted = flood(&mut node, 1000);
    assert!((744..900).contains(&evicted), "{evicted} of 1,000 flows for 256 places");
    node.clock(105);
    let evicted = flood(&mut node, 3000);
    assert!((600..780).contains(&evicted), "{evicted}: the first 256 were old");
}

#[test]
fn clients_that_cannot_be_answered_by_an_uplink_are_refused() {
    let mut node = Node::new();
    let inside = SocketAddr::new([10, 244, 3, 9].into(), 5555);
    node.hairpin([10, 244, 0, 0].into(), 96 + 16, 1);
    let (run, _) = node.deliver(POD4, &syn(1).ip(inside, web(true)));
    assert_eq!(run.drop, Some(DropReason::Hairpin));
    let (run, _) = node.deliver(POD4, &Packet::udp(inside, web(true)).ip());
    assert_eq!(run.drop, Some(DropReason::Hairpin));
    // A narrower prefix that an uplink leads to.
    node.hairpin([10, 244, 3, 0].into(), 96 + 24, 0);
    assert_eq!(node.deliver(POD4, &syn(1).ip(inside, web(true))).0.action, PASS);
    // This node, and its endpoints.
    for here in [TUNNEL4, POD4] {
        let (run, _) = node.deliver(POD4, &syn(1).ip((here, 5555).into(), web(true)));
        assert_eq!(run.drop, Some(DropReason::Hairpin));
    }
}

#[test]
fn a_flow_that_finds_no_port_is_refused() {
    use guenon_ebpf::flow;
    let mut node = Node::new();
    deliver(&mut node, true, &syn(1).ip(caller(true), web(true)));
    // All ports of the upper half are taken: every one by a flow of its own, of which few are left, so take those that
    // would be tried alone.
    let schedule = guenon_ebpf::hash::Schedule::new(guenon_ebpf::hash::DEFAULT_KEY);
    let ports = guenon_ebpf::headers::transport::Ports { source: 40123_u16.to_be(), destination: TARGET.to_be() };
    let (from, to) = (client(true), POD4);
    let key = flow::key(
        &schedule,
        guenon_ebpf::abi::Address::from_ip(from),
        guenon_ebpf::abi::Address::from_ip(to),
        ports,
        TCP,
    );
    let clash = flow::clash_key(key, flow::Frontend::new(1, GENERATION, ALT));
    for attempt in 0..flow::PORT_TRIES {
        let port = u16::from_be(flow::substitute(clash, attempt));
        deliver(&mut node, true, &syn(1).ip((client(true), port).into(), web(true)));
    }
    let (run, _) = node.deliver(POD4, &syn(2).ip(caller(true), alt(true)));
    assert_eq!(run.drop, Some(DropReason::NoPort));
}
