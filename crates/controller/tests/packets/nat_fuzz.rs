//! Random and mutated packets on both hooks of a node with endpoints of delivery `Nat`: one verdict, and what leaves is in
//! order wherever what came was.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use guenon_ebpf::abi::Event;
use rstest::rstest;

use crate::nat_in::{pod, target};
use crate::support::bed::{DIRECTOR4, TUNNEL4};
use crate::support::bed::{client, router, vip};
use crate::support::expect::{assert_frame, hex};
use crate::support::frame::frame;
use crate::support::guest;
use crate::support::mutate::damage;
use crate::support::nat::{ALT, DROP, NEXT, Node, PASS, SHOT, WEB};
use crate::support::packet::Packet;
use crate::support::read;
use crate::support::rng::Rng;
use crate::support::segment::Segment;
use crate::support::tunnel::Tunnel;

const FRAMES: usize = 30_000;

/// A packet of a client to one of the VIP's frontends, or the endpoint's answer, of few flows, so that they meet.
fn packet(rng: &mut Rng, four: bool, back: bool) -> Vec<u8> {
    let caller: SocketAddr = (client(four), 40000 + rng.below(3) as u16).into();
    let there: SocketAddr = if back { target(four) } else { (vip(four), *rng.pick(&[WEB, ALT])).into() };
    let (from, to) = if back { (there, caller) } else { (caller, there) };
    let length = rng.below(90);
    let payload = rng.bytes(length);
    let segment = Segment {
        flags: *rng.pick(&[2, 2, 16, 16, 18, 4, 20]),
        sequence: rng.below(3) as u32,
        acknowledgement: rng.below(4) as u32,
        payload: &payload,
    };
    match rng.below(8) {
        0 | 1 => Packet::udp(from, to).payload(payload.clone()).ip(),
        2 => {
            let datagram = Packet::udp(from, to).payload(vec![1; 64]).df(false).id(rng.below(3) as u32);
            datagram.fragments(8 * (1 + rng.below(8)))[rng.below(2)].clone()
        }
        3 => {
            let quote = if rng.one_in(2) { segment.ip(to, from) } else { Packet::udp(to, from).ip() };
            let kind = *rng.pick(if four { &[3, 11, 12] } else { &[1, 2, 3] });
            let quoted = rng.below(quote.len() + 1);
            let sender = if rng.one_in(2) { router(four) } else { from.ip() };
            Packet::icmp(sender, to.ip(), kind, 1, [0; 4]).payload(&quote[..quoted]).ip()
        }
        _ => segment.ip(from, to),
    }
}

/// What is wrong with a packet beside trailing bytes.
fn fault(ip: &[u8]) -> Option<String> {
    let framed = frame(ip);
    let (end, start) = read::extent(&framed)?;
    read::ip_fault(framed.get(start..end)?, false)
}

#[rstest]
#[case::on_the_way_in(false)]
#[case::on_the_way_out(true)]
fn every_packet_ends_under_one_verdict(#[case] out: bool) {
    let mut rng = Rng::new(0x6e61_7400 ^ u64::from(out));
    let (mut node, mut linear) = (Node::new(), Node::with("guenon_linear", 0));
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    let frames = if guest::is_guest() { FRAMES / 10 } else { FRAMES };
    for _ in 0..frames {
        let four = rng.one_in(2);
        // Both directions keep the flows changing; one of them is looked at closely.
        let back = out != rng.one_in(4);
        let ip = packet(&mut rng, four, back);
        let mut sent =
            if back { frame(&ip) } else { frame(&Tunnel::new(DIRECTOR4, TUNNEL4, ip.clone()).naming(pod(four)).ip()) };
        if rng.one_in(2) {
            damage(&mut rng, &mut sent);
        }
        if back && sent.len() < 34 {
            continue;
        }
        let run = if back { node.send(&sent) } else { node.receive(&sent) };
        let general = if back { linear.send(&sent) } else { linear.receive(&sent) };
        assert_eq!(run, general, "of {}", hex(&sent));
        // An action of one hook is another on the other.
        let (goes_on, dropped) = if back { (NEXT, SHOT) } else { (PASS, DROP) };
        if let Some(reason) = run.drop {
            assert_eq!(run.action, dropped, "{reason:?} of {}", hex(&sent));
            assert!(run.events.iter().all(|event| !matches!(event, Event::Translated | Event::ReplyTranslated)));
        } else {
            assert_eq!(run.action, goes_on, "of {}", hex(&sent));
        }
        match run.action {
            _ if run.drop.is_some() => {}
            PASS if run.events.contains(&Event::Translated) => {
                let (end, start) = read::extent(&run.frame).unwrap_or_else(|| panic!("no IP: {}", hex(&run.frame)));
                assert!(end <= run.frame.len() && start == 14, "cut: {}", hex(&run.frame));
                let inner = sent.len() - (run.frame.len() - 14);
                if fault(&sent[inner..]).is_none() {
                    assert_eq!(fault(&run.frame[14..]), None, "{}\nof {}", hex(&run.frame), hex(&sent));
                }
            }
            NEXT if run.events.contains(&Event::ReplyTranslated) => {
                assert_eq!(run.frame.len(), sent.len());
                if fault(&sent[14..]).is_none() {
                    assert_eq!(fault(&run.frame[14..]), None, "{}\nof {}", hex(&run.frame), hex(&sent));
                }
            }
            _ => assert_frame("what is not ours", &run.frame, &sent),
        }
        let end = run.drop.map_or_else(|| format!("{:?}", run.events), |reason| reason.name().to_owned());
        *ends.entry(end).or_default() += 1;
    }
    println!("{ends:#?}");
    assert!(ends.len() >= 8, "{} ends: {ends:?}", ends.len());
}

/// In, then back out: what the client is answered is what the endpoint said, under the name that the client knows.
#[test]
fn in_and_out_are_each_others_reverse() {
    let mut rng = Rng::new(7);
    let mut node = Node::new();
    for round in 0..2000_u32 {
        let four = rng.one_in(2);
        let caller: SocketAddr = (client(four), 1024 + rng.below(60_000) as u16).into();
        let web: SocketAddr = (vip(four), WEB).into();
        let length = rng.below(1300);
        let payload = rng.bytes(length);
        let udp = Packet::udp(caller, web).payload(payload.clone()).id(round).ip();
        let (run, inside) = node.deliver(pod(four), &udp);
        assert_eq!(run.action, PASS);
        assert_frame("in", &inside, &Packet::udp(caller, target(four)).payload(payload.clone()).id(round).ip());
        let (_, back) = node.leave(&Packet::udp(target(four), caller).payload(payload.clone()).ip());
        assert_frame("out", &back, &Packet::udp(web, caller).payload(payload).ip());
    }
}
