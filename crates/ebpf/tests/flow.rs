//! The rules of flows, and the rewriting of headers, as pure decisions.
#![expect(clippy::unwrap_used, reason = "a test fails")]

use guenon_ebpf::abi::{Address, FlowEntry, FlowSet};
use guenon_ebpf::checksum;
use guenon_ebpf::flow::{self, Arrival, Entry, Fresh, Frontend, Inbound, Outbound, Syn};
use guenon_ebpf::headers::transport::Ports;
use guenon_ebpf::nat::{self, Change, Head, TCP_HEAD, UDP_HEAD};
use proptest::prelude::*;

const KEY: u64 = 0xfedc_ba98_7654_3210;
const WEB: Frontend = Frontend::new(7, 3, 80);
const ALT: Frontend = Frontend::new(7, 3, 81);
const SYN: Syn = Syn { sequence: 1000, length: 0 };

fn live(_: Frontend) -> bool {
    true
}

fn pending() -> FlowSet {
    let mut set = FlowSet::default();
    assert!(!flow::insert(&mut set, KEY, WEB, Fresh::Pending(SYN), 0, 5, live));
    set
}

fn confirmed() -> FlowSet {
    let mut set = pending();
    let (way, _) = flow::find(&set, KEY).unwrap();
    flow::confirm(&mut set, way, KEY, WEB, 1001);
    set
}

fn entry(set: &FlowSet) -> Entry {
    flow::find(set, KEY).unwrap().1
}

#[test]
fn what_a_packet_on_its_way_in_finds() {
    let (pending, confirmed) = (pending(), confirmed());
    let mut direct = confirmed;
    flow::mark_direct(&mut direct, 0, KEY, 5);
    let find = |set: &FlowSet, frontend, arrival, now| flow::inbound(Some(entry(set)), frontend, arrival, now);
    let syn = Arrival::Syn(SYN);
    assert_eq!(flow::inbound(None, WEB, syn, 5), Inbound::New);
    assert_eq!(flow::inbound(None, WEB, Arrival::Datagram, 5), Inbound::New);
    assert_eq!(flow::inbound(None, WEB, Arrival::Other, 5), Inbound::Search);
    for set in [&pending, &confirmed] {
        assert_eq!(find(set, WEB, syn, 5), Inbound::Renew);
        assert_eq!(find(set, WEB, Arrival::Other, 5), Inbound::Known);
        assert_eq!(find(set, ALT, syn, 5), Inbound::Clash);
        assert_eq!(find(set, ALT, Arrival::Other, 5), Inbound::Search);
    }
    // Time frees what was never confirmed, and a silent direct connection, but no TCP flow.
    assert_eq!(find(&pending, ALT, syn, 6 + flow::UNANSWERED_TICKS), Inbound::New);
    assert_eq!(find(&confirmed, ALT, syn, 60_000), Inbound::Clash);
    assert_eq!(find(&direct, WEB, syn, 5 + flow::DIRECT_TICKS), Inbound::Clash);
    assert_eq!(find(&direct, WEB, syn, 6 + flow::DIRECT_TICKS), Inbound::New);
    assert_eq!(find(&direct, WEB, Arrival::Other, 5), Inbound::Search);
}

#[test]
fn what_an_endpoint_sends_means() {
    let (pending, confirmed) = (pending(), confirmed());
    let tcp = |set: &FlowSet, flags, acknowledgement| flow::outbound_tcp(&entry(set), flags, acknowledgement);
    let syn_ack = flow::SYN | flow::ACK;
    assert_eq!(tcp(&pending, syn_ack, 1001), Outbound::Confirm(WEB));
    assert_eq!(tcp(&pending, syn_ack, 1002), Outbound::Direct);
    assert_eq!(tcp(&pending, flow::ACK, 1001), Outbound::Direct);
    assert_eq!(tcp(&pending, flow::RST | flow::ACK, 1001), Outbound::Last(WEB));
    assert_eq!(tcp(&pending, flow::RST, 5), Outbound::Untouched);
    assert_eq!(tcp(&pending, flow::SYN, 0), Outbound::Direct);
    assert_eq!(tcp(&confirmed, flow::ACK, 5), Outbound::Translate(WEB));
    assert_eq!(tcp(&confirmed, syn_ack, 9999), Outbound::Direct);
    for end in [flow::RST, flow::FIN | flow::ACK] {
        let mut set = confirmed;
        assert_eq!(tcp(&set, end, 5), Outbound::Close(WEB));
        flow::close(&mut set, 0, KEY);
        for flags in [end, flow::ACK] {
            assert_eq!(tcp(&set, flags, 5), Outbound::Translate(WEB), "what follows is translated");
        }
        // The client takes the port again.
        assert_eq!(flow::inbound(Some(entry(&set)), WEB, Arrival::Syn(SYN), 5), Inbound::Renew);
        flow::renew(&mut set, 0, KEY, WEB, SYN, 5);
        assert_eq!(tcp(&set, syn_ack, 1001), Outbound::Confirm(WEB));
    }
    assert_eq!(flow::outbound_udp(&entry(&pending)), Outbound::Untouched);
    assert_eq!(flow::outbound_udp(&entry(&confirmed)), Outbound::Translate(WEB));
}

#[test]
fn halves_of_two_entries_never_make_one() {
    let whole = pending().0[0];
    assert!(Entry::of(&whole).is_some());
    let other = KEY ^ 0xffff << 48;
    let mut set = FlowSet::default();
    flow::insert(&mut set, other, WEB, Fresh::Pending(SYN), 0, 5, live);
    for mixed in [FlowEntry { current: set.0[0].current, ..whole }, FlowEntry { pending: set.0[0].pending, ..whole }] {
        assert_eq!(Entry::of(&mixed), None);
    }
}

/// Makes a confirmed connection.
fn open(set: &mut FlowSet, key: u64, tick: u16) -> usize {
    flow::insert(set, key, WEB, Fresh::Pending(SYN), 0, tick, live);
    let (way, _) = flow::find(set, key).expect("it was made");
    flow::confirm(set, way, key, WEB, 1001);
    way
}

#[test]
fn the_least_useful_entry_gives_way() {
    let mut set = FlowSet::default();
    let key = |n: u64| KEY + (n << 50);
    // Three confirmed flows of different age, and one that was never answered.
    for (n, tick) in [(0, 100), (1, 90), (2, 98)] {
        open(&mut set, key(n), tick);
    }
    flow::insert(&mut set, key(3), WEB, Fresh::Pending(SYN), 0, 100, live);
    let gone = |set: &FlowSet| (0..4).filter(|n| flow::find(set, key(*n)).is_none()).collect::<Vec<_>>();
    assert!(!flow::insert(&mut set, key(4), WEB, Fresh::Datagrams, 0, 100, live), "one that was never confirmed");
    assert_eq!(gone(&set), [3]);
    assert!(!flow::insert(&mut set, key(5), WEB, Fresh::Datagrams, 0, 100, live), "an old one");
    assert_eq!(gone(&set), [1, 3]);
    assert!(flow::insert(&mut set, key(6), WEB, Fresh::Datagrams, 0, 100, live), "one in use");
    assert_eq!(gone(&set), [1, 2, 3]);
    assert!(!flow::insert(&mut set, key(7), ALT, Fresh::Datagrams, 0, 100, |_| false), "one of a VIP that is gone");
}

#[test]
fn what_is_spent_gives_way_before_connections_that_are_idle() {
    let key = |n: u64| KEY + (n << 50);
    for ended in [true, false] {
        let mut set = FlowSet::default();
        for n in 0..3 {
            open(&mut set, key(n), 10);
        }
        if ended {
            let way = open(&mut set, key(3), 94);
            flow::close(&mut set, way, key(3));
        } else {
            flow::insert(&mut set, key(3), WEB, Fresh::Datagrams, 0, 94, live);
        }
        let mut soon = set;
        assert!(!flow::insert(&mut set, key(4), WEB, Fresh::Pending(SYN), 0, 100, live));
        assert_eq!(flow::find(&set, key(3)), None, "silent for six ticks, and no open connection (ended: {ended})");
        assert!((0..3).all(|n| flow::find(&set, key(n)).is_some()), "idle for ninety");
        // In use it is worth as much as any.
        assert!(!flow::insert(&mut soon, key(4), WEB, Fresh::Pending(SYN), 0, 96, live));
        assert!(flow::find(&soon, key(3)).is_some());
    }
}

proptest! {
    #[test]
    fn a_syn_is_answered_by_what_acknowledges_it_or_its_data(sequence: u32, length in 0_u32..5000, taken in 0_u32..5000) {
        let mut set = FlowSet::default();
        flow::insert(&mut set, KEY, WEB, Fresh::Pending(Syn { sequence, length }), 0, 5, live);
        let answer = sequence.wrapping_add(1).wrapping_add(taken);
        let outbound = flow::outbound_tcp(&entry(&set), flow::SYN | flow::ACK, answer);
        if taken <= length {
            prop_assert_eq!(outbound, Outbound::Confirm(WEB));
        } else if taken > length + 256 || length == 0 {
            prop_assert_eq!(outbound, Outbound::Direct);
        }
    }

    #[test]
    fn frontends_and_ports_survive(vip in 0_u32..1 << 20, generation: u8, port: u16, own: u16, tick: u16) {
        let frontend = Frontend::new(vip, u64::from(generation) | 0x5_00, port);
        prop_assert_eq!((frontend.vip(), frontend.generation(), frontend.port()), (vip, generation, port));
        prop_assert_eq!(Frontend::from_bits(frontend.bits() | 0xfff << 44), frontend);
        let mut set = FlowSet::default();
        flow::insert(&mut set, KEY, frontend, Fresh::Datagrams, own, tick, live);
        let found = entry(&set);
        prop_assert_eq!((found.current(), found.port(), found.age(tick.wrapping_add(3))), (frontend, own, 3));
    }

    #[test]
    fn substitutes_are_eight_ports_of_the_upper_half(key: u64) {
        let ports: std::collections::BTreeSet<u16> =
            (0..flow::PORT_TRIES).map(|attempt| u16::from_be(flow::substitute(key, attempt))).collect();
        prop_assert_eq!(ports.len(), 8);
        prop_assert!(ports.iter().all(|port| *port >= 0x8000));
    }

    /// Updated by what changes, a checksum is what a new sum would be; and the change undone gives the old one back.
    #[test]
    fn checksums_follow_changes(old: [u8; 16], new: [u8; 16], ports: [u16; 4], rest: Vec<u8>, v6: bool) {
        let (old, new) = (Address::from_bytes(old), Address::from_bytes(new));
        let family = |address: Address| if v6 { address } else { Address::from_v4((address.lo as u32).to_le_bytes()) };
        let (old, new) = (family(old), family(new));
        let [a, b, c, d] = ports;
        let (before, after) = (Ports { source: a, destination: b }, Ports { source: c, destination: d });
        let sum = |address: Address, ports: Ports| {
            let bytes = address.to_bytes();
            let shown = if v6 { &bytes[..] } else { &bytes[12..] };
            let ports = [ports.source.to_le_bytes(), ports.destination.to_le_bytes()].concat();
            checksum::finish(checksum::add(checksum::add(checksum::add(1, shown), &ports), &rest))
        };
        let change = Change::address(old, new, v6).and(Change::ports(before, after));
        let updated = change.apply(sum(old, before));
        prop_assert_eq!(updated, sum(new, after));
        let back = Change::address(new, old, v6).and(Change::ports(after, before));
        prop_assert_eq!(back.apply(updated), sum(old, before));
        // Whether the kernel holds a sum for finished shows in what the probe does to it, whatever the sum.
        let probe = Change::word(0, 1);
        prop_assert!(nat::was_finished(updated, probe.apply(updated)));
        prop_assert!(!nat::was_finished(updated, probe.apply_unfinished(updated)));
    }

    /// A header as words is the header: what is set is what bytes would say, all else stays.
    #[test]
    fn heads_are_their_headers(tcp: [u8; TCP_HEAD], udp: [u8; UDP_HEAD], source: u16, destination: u16, sum: u16) {
        let acknowledgement = u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]);
        prop_assert_eq!(Head::tcp(&tcp).acknowledgement(), (tcp[13], acknowledgement));
        let new = Ports { source, destination };
        for (head, bytes, at) in [(Head::tcp(&tcp), &tcp[..], 16), (Head::udp(&udp), &udp[..], 6)] {
            let is_udp = at == 6;
            let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            prop_assert_eq!(head.checksum(is_udp), word(at));
            prop_assert_eq!(head.ports(), Ports { source: word(0), destination: word(2) });
            let mut expected = bytes.to_vec();
            expected[..2].copy_from_slice(&source.to_le_bytes());
            expected[2..4].copy_from_slice(&destination.to_le_bytes());
            expected[at..at + 2].copy_from_slice(&sum.to_le_bytes());
            let written: Vec<u8> = head.with(new, sum, is_udp).0.iter().flat_map(|word| word.to_le_bytes()).collect();
            prop_assert_eq!(&written[..bytes.len()], expected.as_slice());
        }
    }

    /// Zero has two forms; every other sum has one.
    #[test]
    fn sums_are_the_same_as_numbers_of_ones_complement(a: u16, b: u16) {
        prop_assert_eq!(nat::is_same_sum(a, b), a % 0xffff == b % 0xffff);
        prop_assert!(nat::is_same_sum(0, 0xffff) && nat::is_same_sum(a, a));
    }
}
