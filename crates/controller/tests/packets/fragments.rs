//! Fragments for a VIP: all of a datagram reach one endpoint, or are dropped under their own reason; ports are never
//! read where there are none.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use guenon_controller::apply::Operation;
use guenon_controller::simulate::sandbox::Verdict;
use guenon_ebpf::abi::Event;
use guenon_ebpf::reason::DropReason;
use rstest::rstest;

use crate::encapsulation::{Kind, packet};
use crate::support::bed::{ON_NODE4, ON_NODE6, Way, caller, client, vip};
use crate::support::expect::{assert_frame, datagram_hash, encapsulated, encapsulated_fragment, encapsulated_to};
use crate::support::frame::{frame, padded};
use crate::support::lab::{assert_well_formed, lab};
use crate::support::packet::Packet;

/// A datagram with an id that no other test uses.
fn datagram(way: Way, four: bool, kind: Kind) -> Packet {
    packet(way, four, kind).df(false).payload(vec![0x5a; 200]).id(fresh_id())
}

fn fresh_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0x100);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

const FIRST: &[Event] = &[Event::Encapsulated];
const LATER: &[Event] = &[Event::Encapsulated, Event::FragmentFollowed];

#[rstest]
fn a_later_fragment_follows_the_first(
    #[values(Way::Own4, Way::Own6, Way::Pod6In4, Way::Many)] way: Way,
    #[values(true, false)] four: bool,
    #[values(Kind::Tcp, Kind::Udp)] kind: Kind,
) {
    let datagram = datagram(way, four, kind);
    let hash = datagram_hash(&datagram);
    let mut lab = lab();
    let endpoints = way.endpoints();
    let mut met = Vec::new();
    for (part, events) in datagram.fragments(64).iter().zip([FIRST, LATER]) {
        let outcome = lab.send(&frame(part));
        assert_eq!((outcome.verdict, outcome.events()), (Verdict::Tx, events.to_vec()));
        let to = endpoints.iter().find(|endpoint| Some(endpoint.address) == outcome.endpoint).expect("its endpoint");
        let want = encapsulated_to(to, way, hash, part);
        assert_frame("fragment", &outcome.frame, &want);
        assert_well_formed(&outcome, false, part);
        met.push(to.address);
    }
    assert_eq!(met[0], met[1], "both parts reach one endpoint");
}

#[rstest]
fn a_fragment_whose_first_never_came_is_lost(
    #[values(true, false)] four: bool,
    #[values(Kind::Tcp, Kind::Udp)] kind: Kind,
) {
    let [_, later] = datagram(Way::Own4, four, kind).fragments(64);
    lab().send_dropped(&frame(&later), DropReason::FragmentLost);
}

#[rstest]
fn fragments_that_overtake_the_first_are_lost_those_behind_it_are_not(#[values(true, false)] four: bool) {
    let datagram = datagram(Way::Own4, four, Kind::Udp);
    let [first, later] = datagram.fragments(64);
    let mut lab = lab();
    lab.send_dropped(&frame(&later), DropReason::FragmentLost);
    lab.send_becomes(&frame(&first), Verdict::Tx, FIRST, &encapsulated_fragment(Way::Own4, &datagram, &first));
    for _ in 0..2 {
        lab.send_becomes(&frame(&later), Verdict::Tx, LATER, &encapsulated_fragment(Way::Own4, &datagram, &later));
    }
}

#[rstest]
fn a_datagram_in_many_parts_reaches_one_endpoint_in_any_order_behind_the_first(#[values(true, false)] four: bool) {
    let datagram = datagram(Way::Own6, four, Kind::Udp).payload(vec![7; 2000]);
    let upper = datagram.upper();
    let part = |from: usize, to: usize| datagram.part(&upper[from..to], Some((from as u16, to < upper.len())));
    let mut lab = lab();
    lab.send(&frame(&part(0, 512)));
    for (from, to) in [(1536, upper.len()), (512, 1024), (1024, 1536)] {
        let ip = part(from, to);
        lab.send_becomes(&frame(&ip), Verdict::Tx, LATER, &encapsulated_fragment(Way::Own6, &datagram, &ip));
    }
}

/// The same id from another client, to another VIP, or of another protocol is another datagram.
#[rstest]
fn datagrams_are_told_apart(#[values(true, false)] four: bool) {
    let known = datagram(Way::Own4, four, Kind::Udp);
    let [first, later] = known.fragments(64);
    let mut lab = lab();
    lab.send(&frame(&first));
    let stranger = if four { crate::support::bed::ROUTER4 } else { crate::support::bed::ROUTER6 };
    let mut others = vec![Packet { source: stranger, ..known.clone() }, known.clone().id(known.id ^ 0x8000)];
    // In IPv6 only addresses and id tell datagrams apart (RFC 8200, section 4.5).
    if four {
        others.push(datagram(Way::Own4, four, Kind::Tcp).id(known.id));
    }
    others.push(Packet { destination: if four { ON_NODE4 } else { ON_NODE6 }, ..known.clone() });
    for (number, other) in others.iter().enumerate() {
        let outcome = lab.send(&frame(&other.fragments(64)[1]));
        assert!(!outcome.events().contains(&Event::FragmentFollowed), "stranger {number} followed");
    }
    lab.send_becomes(&frame(&later), Verdict::Tx, LATER, &encapsulated_fragment(Way::Own4, &known, &later));
}

#[rstest]
fn many_datagrams_at_once_are_all_followed(#[values(true, false)] four: bool) {
    let datagrams: Vec<_> = (0..500).map(|_| datagram(Way::Own4, four, Kind::Udp)).collect();
    let mut lab = lab();
    for datagram in &datagrams {
        lab.send_one_of_many(&frame(&datagram.fragments(64)[0]));
    }
    let followed = datagrams
        .iter()
        .filter(|datagram| lab.send_one_of_many(&frame(&datagram.fragments(64)[1])).verdict == Verdict::Tx);
    assert_eq!(followed.count(), 500);
}

/// Eight bytes of the first fragment hold the ports; less does not.
#[rstest]
fn a_first_fragment_without_ports_is_bad(#[values(true, false)] four: bool, #[values(0, 1, 3)] bytes: usize) {
    let datagram = datagram(Way::Own4, four, Kind::Udp);
    let part = datagram.part(&datagram.upper()[..bytes], Some((0, true)));
    let mut lab = lab();
    lab.send_dropped(&padded(frame(&part), 90), DropReason::FragmentBad);
    lab.send_dropped(&frame(&datagram.fragments(64)[1]), DropReason::FragmentLost);
}

#[rstest]
fn a_first_fragment_of_eight_bytes_is_enough(
    #[values(true, false)] four: bool,
    #[values(Kind::Tcp, Kind::Udp)] kind: Kind,
) {
    let datagram = datagram(Way::Own4, four, kind);
    let [first, later] = datagram.fragments(8);
    let mut lab = lab();
    lab.send_becomes(&frame(&first), Verdict::Tx, FIRST, &encapsulated_fragment(Way::Own4, &datagram, &first));
    lab.send_becomes(&frame(&later), Verdict::Tx, LATER, &encapsulated_fragment(Way::Own4, &datagram, &later));
}

/// Bytes of a later fragment that look like ports of another frontend are not read as ports.
#[rstest]
fn what_looks_like_ports_in_a_later_fragment_is_not_read(#[values(true, false)] four: bool) {
    let mut datagram = datagram(Way::Own6, four, Kind::Udp);
    let lookalike = [1, 2, Way::Own4.port().to_be_bytes()[0], Way::Own4.port().to_be_bytes()[1]];
    datagram.payload = lookalike.repeat(50);
    let [first, later] = datagram.fragments(64);
    let mut lab = lab();
    lab.send_dropped(&frame(&later), DropReason::FragmentLost);
    lab.send(&frame(&first));
    lab.send_becomes(&frame(&later), Verdict::Tx, LATER, &encapsulated_fragment(Way::Own6, &datagram, &later));
}

/// RFC 6946: a fragment header that fragments nothing.
#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    let packet = packet(Way::Own4, false, Kind::Tcp).id(fresh_id());
    let ip = packet.part(&packet.upper(), Some((0, false)));
    lab().send_becomes(&frame(&ip), Verdict::Tx, FIRST, &encapsulated(Way::Own4, &packet, &ip));
}

/// A service that went between two fragments takes its memory of the first with it.
#[rstest]
fn a_fragment_whose_frontend_is_gone_is_lost(#[values(true, false)] four: bool) {
    let [first, later] = datagram(Way::Own6, four, Kind::Udp).fragments(64);
    let service = Way::Own6.service();
    let mut lab = lab();
    lab.send(&frame(&first));
    lab.sandbox.execute(&Operation::RemoveService(service.clone())).unwrap();
    let outcome = lab.send(&frame(&later));
    lab.sandbox.execute(&Operation::PutService(service, Way::Own6.state().into())).unwrap();
    assert_eq!(outcome.reason, Some(DropReason::FragmentLost));
}

#[rstest]
fn fragments_for_no_frontend_are_dropped_the_first_by_that_name(#[values(true, false)] four: bool) {
    let closed = SocketAddr::new(vip(four), 9);
    let datagram = Packet::udp(caller(four), closed).df(false).payload(vec![1; 100]).id(fresh_id());
    let [first, later] = datagram.fragments(64);
    let mut lab = lab();
    lab.send_dropped(&frame(&first), DropReason::NoFrontend);
    lab.send_dropped(&frame(&later), DropReason::FragmentLost);
}

/// What a node's own stack is to get, it gets whole.
#[rstest]
fn fragments_for_an_address_of_this_node_pass(#[values(true, false)] four: bool) {
    let open = SocketAddr::new(if four { ON_NODE4 } else { ON_NODE6 }, 22);
    let datagram = Packet::tcp(caller(four), open).df(false).payload(vec![1; 100]).id(fresh_id());
    let mut lab = lab();
    for part in datagram.fragments(64) {
        let outcome = lab.send(&frame(&part));
        assert_eq!((outcome.verdict, outcome.events()), (Verdict::Pass, vec![Event::PassedOnNode]));
        assert_frame("fragment", &outcome.frame, &frame(&part));
    }
}

#[rstest]
fn the_director_s_own_endpoint_gets_all_parts(
    #[values((Way::HereLocal, Verdict::Pass), (Way::HereVeth, Verdict::Redirect))] case: (Way, Verdict),
    #[values(true, false)] four: bool,
) {
    let (way, verdict) = case;
    let datagram = datagram(way, four, Kind::Udp);
    let mut lab = lab();
    for (part, events) in datagram
        .fragments(64)
        .iter()
        .zip([&[Event::DeliveredHere][..], &[Event::DeliveredHere, Event::FragmentFollowed][..]])
    {
        let outcome = lab.send(&frame(part));
        assert_eq!((outcome.verdict, outcome.events()), (verdict, events.to_vec()));
        assert_eq!(&outcome.frame[14..], &part[..]);
    }
}

#[rstest]
fn a_fragment_of_an_echo_request_is_not_answered(#[values(true, false)] four: bool) {
    let kind = if four { 8 } else { 128 };
    let ping =
        Packet::icmp(client(four), vip(four), kind, 0, [0, 1, 0, 1]).df(false).payload(vec![3; 200]).id(fresh_id());
    let mut lab = lab();
    for part in ping.fragments(64) {
        let outcome = lab.send(&frame(&part));
        assert_eq!(outcome.verdict, Verdict::Drop, "half an echo request has no answer: {:?}", outcome.events());
    }
}
