//! Random and mutated packets to a VIP and to the tunnel port: each ends under one verdict and one reason, and nothing
//! malformed is ever sent.
//!
//! `cargo xtask fuzz --seconds N` makes the long run last N seconds, on a seed of its own that it prints (`--seed` repeats
//! one).

use std::collections::BTreeMap;
use std::sync::MutexGuard;
use std::time::{Duration, Instant, SystemTime};

use guenon_controller::simulate::sandbox::{Outcome, Verdict};
use guenon_ebpf::abi::Event;
use guenon_ebpf::reason::DropReason;
use rstest::rstest;

use crate::support::expect::hex;
use crate::support::guest;
use crate::support::lab::{Lab, assert_ledger, lab, linear_lab};
use crate::support::mutate::{damage, garbage, to_tunnel, to_vip};
use crate::support::read;
use crate::support::rng::Rng;

const FRAMES: usize = 50_000;

#[rstest]
#[case::to_a_vip(false)]
#[case::to_the_tunnel_port(true)]
fn every_mutated_packet_ends_under_one_verdict_and_nothing_malformed_leaves(#[case] tunnel: bool) {
    // A guest runs on emulated hardware: fewer there.
    let frames = if guest::is_guest() { FRAMES / 10 } else { FRAMES };
    let mut run = Run::new(0x0d1e_5eed ^ u64::from(tunnel));
    (0..frames).for_each(|_| run.one(tunnel));
    run.assert_variety(tunnel);
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

/// How long a long run lasts, and its seed.
pub fn asked_for() -> Option<(Duration, u64)> {
    let seconds = std::env::var("GUENON_FUZZ_SECONDS").ok()?.parse().ok()?;
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let seed = std::env::var("GUENON_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(clock);
    Some((Duration::from_secs(seconds), seed))
}

struct Run {
    rng: Rng,
    lab: MutexGuard<'static, Lab>,
    /// The program for older kernels: it takes the general way with every packet, and must come to the same end.
    linear: MutexGuard<'static, Lab>,
    /// How often each end was met.
    ends: BTreeMap<String, usize>,
}

impl Run {
    fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), lab: lab(), linear: linear_lab(), ends: BTreeMap::new() }
    }

    fn one(&mut self, tunnel: bool) {
        let rng = &mut self.rng;
        let frame = match rng.below(10) {
            0 if tunnel => to_tunnel(rng),
            0 => to_vip(rng),
            1 => garbage(rng, tunnel),
            _ => {
                let mut frame = if tunnel { to_tunnel(rng) } else { to_vip(rng) };
                damage(rng, &mut frame);
                frame
            }
        };
        let outcome =
            self.lab.sandbox.run_unattributed(&frame).unwrap_or_else(|error| panic!("{error}: {}", hex(&frame)));
        assert_ledger(&outcome, &frame);
        judge(&outcome, &frame);
        let general = self.linear.sandbox.run_unattributed(&frame).unwrap();
        if !outcome.events().contains(&Event::FragmentFollowed) && outcome.reason != Some(DropReason::FragmentLost) {
            assert!(outcome == general, "plain way {outcome:?}\ngeneral way {general:?}\nof {}", hex(&frame));
        }
        let end = match outcome.reason {
            Some(reason) => reason.name().to_owned(),
            None => format!("{:?} {:?}", outcome.verdict, outcome.events()),
        };
        *self.ends.entry(end).or_default() += 1;
    }

    /// A run that meets few ends tests little.
    fn assert_variety(&self, tunnel: bool) {
        println!("{:#?}", self.ends);
        let least = if tunnel { 20 } else { 18 };
        assert!(self.ends.len() >= least, "{} ends: {:?}", self.ends.len(), self.ends);
    }
}

#[track_caller]
fn judge(outcome: &Outcome, sent: &[u8]) {
    let events = outcome.events();
    let describe = || format!("{:?} {events:?}\n in {}\nout {}", outcome.verdict, hex(sent), hex(&outcome.frame));
    assert_ne!(outcome.verdict, Verdict::Aborted, "something that cannot be: {}", describe());
    let fault = || read::fault(&outcome.frame, false);
    match outcome.verdict {
        Verdict::Drop | Verdict::Aborted => {
            assert_eq!(events.iter().find(|event| sends(**event)), None, "{}", describe())
        }
        Verdict::Tx if events.contains(&Event::EchoAnswered) => {
            // An answer is no better than the request: a wrong ICMP checksum stays wrong.
            if read::fault(sent, false).is_none() {
                assert_eq!(fault(), None, "{}", describe());
            }
        }
        Verdict::Tx | Verdict::Redirect
            if events.contains(&Event::Encapsulated) || events.contains(&Event::TooBigAnswered) =>
        {
            let (end, _) = read::extent(&outcome.frame).unwrap_or_else(|| panic!("no IP: {}", describe()));
            assert!(end <= outcome.frame.len(), "cut: {}", describe());
            // Padding of the client's frame may trail behind the tunnel packet.
            let fault = read::fault(&outcome.frame[..end], false);
            assert_eq!(fault, None, "{}", describe());
        }
        Verdict::Redirect => {
            // To an endpoint: the packet as the client sent it, whatever that is, but within its frame.
            let (end, _) = read::extent(&outcome.frame).unwrap_or_else(|| panic!("no IP: {}", describe()));
            assert!(end <= outcome.frame.len(), "cut: {}", describe());
            assert!(ends_with_packet(sent, &outcome.frame), "{}", describe());
        }
        Verdict::Tx => panic!("sent for no reason: {}", describe()),
        Verdict::Pass if events.contains(&Event::Decapsulated) => {
            assert!(ends_with_packet(sent, &outcome.frame), "{}", describe());
        }
        Verdict::Pass => assert_eq!(outcome.frame, sent, "{}", describe()),
    }
}

fn sends(event: Event) -> bool {
    match event {
        Event::Encapsulated
        | Event::Decapsulated
        | Event::DeliveredHere
        | Event::EchoAnswered
        | Event::TooBigAnswered
        | Event::PassedOnNode
        | Event::Translated
        | Event::ReplyTranslated => true,
        Event::IcmpErrorForwarded
        | Event::TunnelTooBig
        | Event::CongestionMarked
        | Event::FragmentFollowed
        | Event::FlowClash
        | Event::FlowEvicted => false,
    }
}

/// Whether what came out is what was sent in from some byte on, but for the ECN bits and the IPv4 checksum.
fn ends_with_packet(sent: &[u8], out: &[u8]) -> bool {
    let Some((_, start)) = read::extent(out) else { return false };
    let inner = &out[start..];
    let Some(original) = sent.len().checked_sub(inner.len()).map(|from| &sent[from..]) else { return false };
    let differs = |at: &usize| inner[*at] != original[*at];
    let four = inner[0] >> 4 == 4;
    (0..inner.len()).filter(differs).all(|at| if four { matches!(at, 1 | 10 | 11) } else { at == 1 })
}
