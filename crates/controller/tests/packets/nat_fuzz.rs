//! Random and mutated packets on both hooks of a node with endpoints of delivery `Nat`: one verdict, and what leaves is in
//! order wherever what came was. `cargo xtask fuzz` makes the long run last.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use guenon_ebpf::abi::Event;
use guenon_ebpf::reason::DropReason;
use rstest::rstest;

use crate::mutations::asked_for;
use crate::nat_in::{pod, target};
use crate::support::bed::{DIRECTOR4, ONE_TAG, TUNNEL4, TWO_TAGS, client, router, vip};
use crate::support::expect::{assert_frame, hex};
use crate::support::frame::{frame, tagged};
use crate::support::guest;
use crate::support::mutate::damage;
use crate::support::nat::{ALT, DROP, NEXT, Node, PASS, Run as Outcome, SHOT, TX, WEB};
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
    match rng.below(9) {
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
        4 => {
            Packet::icmp(from.ip(), to.ip(), if four { 8 } else { 128 }, 0, [1, 2, 3, 4]).payload(payload.clone()).ip()
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
    let mut run = Run::new(0x6e61_7400 ^ u64::from(out));
    let frames = if guest::is_guest() { FRAMES / 10 } else { FRAMES };
    (0..frames).for_each(|_| run.one(out));
    run.assert_variety(out, frames);
}

#[test]
fn a_long_run_if_one_is_asked_for() {
    let Some((seconds, seed)) = asked_for() else { return };
    println!("cargo xtask fuzz --seed {seed} repeats this run");
    let mut run = Run::new(seed);
    let end = Instant::now() + seconds;
    let mut frames = 0_u64;
    while Instant::now() < end {
        run.one(frames.is_multiple_of(2));
        frames += 1;
    }
    println!("{frames} frames: {:?}", run.ends);
}

struct Run {
    rng: Rng,
    node: Node,
    /// The program for older kernels must come to the same end.
    linear: Node,
    /// How often each end was met, of frames that come in (`false`) and that leave (`true`).
    ends: BTreeMap<(bool, String), usize>,
}

impl Run {
    fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), node: Node::new(), linear: Node::with("guenon_linear", 0), ends: BTreeMap::new() }
    }

    /// Both directions keep the flows changing; `out` tells which comes more often.
    fn one(&mut self, out: bool) {
        let rng = &mut self.rng;
        let (four, back) = (rng.one_in(2), out != rng.one_in(4));
        let ip = packet(rng, four, back);
        // To the director itself, or through a tunnel.
        let tunnel = !back && !rng.one_in(4);
        let ip = if tunnel { Tunnel::new(DIRECTOR4, TUNNEL4, ip).naming(pod(four)).ip() } else { ip };
        let tags = *rng.pick(&[&[][..], &[], &[], &ONE_TAG, &TWO_TAGS]);
        let mut sent = tagged(tags, &ip);
        match rng.below(8) {
            0 => {
                // Random bytes behind headers that are looked at.
                let from = (14 + rng.below(100)).min(sent.len());
                let bytes = rng.bytes(sent.len() - from);
                sent[from..].copy_from_slice(&bytes);
            }
            1..=4 => damage(rng, &mut sent),
            _ => {}
        }
        // The kernel takes no packet that leaves for a test run whose IP header is cut.
        let least = if sent[12..14] == [0x86, 0xdd] { 54 } else { 34 };
        if back && sent.len() < least {
            return;
        }
        let run = if back { self.node.send(&sent) } else { self.node.receive(&sent) };
        let general = if back { self.linear.send(&sent) } else { self.linear.receive(&sent) };
        assert_eq!(run, general, "of {}", hex(&sent));
        assert_ne!(run.drop, Some(DropReason::Aborted), "something that cannot be: {}", hex(&sent));
        if back {
            judge_out(&run, &sent)
        } else {
            judge_in(&run, &sent)
        }
        let end = run.drop.map_or_else(|| format!("{:?}", run.events), |reason| reason.name().to_owned());
        *self.ends.entry((back, end)).or_default() += 1;
    }

    /// A run that meets few ends tests little.
    fn assert_variety(&self, out: bool, frames: usize) {
        println!("{:#?}", self.ends);
        let translated = |back: bool, event: Event| -> usize {
            let ends = self.ends.iter().filter(|((way, end), _)| *way == back && end.contains(&format!("{event:?}")));
            ends.map(|(_, count)| count).sum()
        };
        let least = frames / 30;
        assert!(translated(false, Event::Translated) > least && translated(true, Event::ReplyTranslated) > least);
        let ends = self.ends.keys().filter(|(back, _)| *back == out).count();
        // Fewer frames meet fewer of the rare reasons.
        let least = match (out, frames < FRAMES) {
            (true, _) => 3,
            (false, true) => 15,
            (false, false) => 25,
        };
        assert!(ends >= least, "{ends} ends: {:?}", self.ends);
    }
}

/// What came in: dropped for one reason, handed to the stack as it was or translated, or answered.
#[track_caller]
fn judge_in(run: &Outcome, sent: &[u8]) {
    let describe = || format!("{run:?}\nout {}\nof  {}", hex(&run.frame), hex(sent));
    let ours = run.events.iter().any(|event| matches!(event, Event::Translated | Event::EchoAnswered));
    match run.action {
        DROP => assert!(run.drop.is_some() && !ours, "{}", describe()),
        PASS if run.events.contains(&Event::Translated) => {
            assert_eq!(run.drop, None, "{}", describe());
            let (end, start) = read::extent(&run.frame).unwrap_or_else(|| panic!("no IP: {}", describe()));
            assert!(end <= run.frame.len(), "cut: {}", describe());
            // The packet is the last part of what came.
            let inner = sent.len() - (run.frame.len() - start);
            if fault(&sent[inner..]).is_none() {
                assert_eq!(fault(&run.frame[start..]), None, "{}", describe());
            }
        }
        PASS => {
            assert_eq!(run.drop, None, "{}", describe());
            assert_frame("what is not ours", &run.frame, sent);
        }
        TX if ours => {
            assert_eq!((run.drop, run.frame.len()), (None, sent.len()), "{}", describe());
            // An answer is no better than the request.
            if read::fault(sent, false).is_none() {
                assert_eq!(read::fault(&run.frame, false), None, "{}", describe());
            }
        }
        _ => panic!("an action that cannot be: {}", describe()),
    }
}

/// What leaves: dropped for one reason, or on to the next program as it was or translated, always as long as it was.
#[track_caller]
fn judge_out(run: &Outcome, sent: &[u8]) {
    let describe = || format!("{run:?}\nout {}\nof  {}", hex(&run.frame), hex(sent));
    let translated = run.events.contains(&Event::ReplyTranslated);
    match run.action {
        SHOT => assert!(run.drop.is_some() && !translated, "{}", describe()),
        NEXT if translated => {
            assert_eq!((run.drop, run.frame.len()), (None, sent.len()), "{}", describe());
            let (_, start) = read::extent(sent).unwrap_or_else(|| panic!("no IP: {}", describe()));
            assert_eq!(run.frame[..start], sent[..start], "the link header: {}", describe());
            if fault(&sent[start..]).is_none() {
                assert_eq!(fault(&run.frame[start..]), None, "{}", describe());
            }
        }
        NEXT => {
            assert_eq!(run.drop, None, "{}", describe());
            assert_frame("what is not ours", &run.frame, sent);
        }
        _ => panic!("an action that cannot be: {}", describe()),
    }
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
