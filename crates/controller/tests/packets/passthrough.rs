//! What is not for a VIP or a tunnel of ours leaves as it came, bit for bit.

use std::collections::BTreeSet;
use std::sync::MutexGuard;

use guenon_controller::simulate::sandbox::Verdict;
use guenon_ebpf::abi::{FIRST_EVENT, PASSED, RECEIVED, REDIRECTED, TRANSMITTED};
use rstest::rstest;

use crate::support::expect::assert_frame;
use crate::support::guest;
use crate::support::lab::{Lab, decap_lab, director_lab, lab};
use crate::support::noise;
use crate::support::rng::Rng;

const FRAMES: u64 = 12_000;

#[rstest]
#[case::director(director_lab, 1)]
#[case::decap(decap_lab, 2)]
#[case::both(lab, 3)]
fn frames_of_many_kinds_pass_bit_for_bit(#[case] lab: fn() -> MutexGuard<'static, Lab>, #[case] seed: u64) {
    let mut lab = lab();
    let before = lab.sandbox.counters().unwrap();
    let jumbo = !lab.sandbox.is_linear();
    let mut rng = Rng::new(0x6775_656e_6f6e ^ seed);
    let mut kinds = BTreeSet::new();
    let mut bytes = 0;
    // A guest runs on emulated hardware: fewer there.
    let frames = if guest::is_guest() { FRAMES / 4 } else { FRAMES };
    for number in 0..frames {
        let (kind, frame) = noise::frame(&mut rng, jumbo);
        let (verdict, out) = lab.sandbox.run_uncounted(&frame).unwrap();
        assert_eq!(verdict, Verdict::Pass, "frame {number}, {kind}: {}", crate::support::expect::hex(&frame));
        assert_frame(kind, &out, &frame);
        kinds.insert(kind);
        // Bytes count the linear part of a multi-buffer frame: judged where there is no other.
        bytes += if frame.len() <= 3000 { frame.len() as u64 } else { 0 };
    }
    assert_eq!(kinds.len(), noise::kinds(), "every kind was there");

    let after = lab.sandbox.counters().unwrap();
    let packets = |index: usize| after.0[index].packets - before.0[index].packets;
    let counted = |index: usize| after.0[index].bytes - before.0[index].bytes;
    assert_eq!((packets(RECEIVED), packets(PASSED)), (frames, frames));
    assert_eq!((packets(TRANSMITTED), packets(REDIRECTED)), (0, 0));
    assert_eq!(counted(RECEIVED), counted(PASSED));
    assert!(counted(RECEIVED) >= bytes);
    for index in FIRST_EVENT..after.0.len() {
        assert_eq!(packets(index), 0, "counter {index}");
    }
}

/// The least that a frame can be.
#[test]
fn a_bare_ethernet_header_passes() {
    for ether_type in [0x0800_u16, 0x86dd, 0x8100, 0x88a8, 0x0806, 0] {
        let mut frame = vec![2; 12];
        frame.extend(ether_type.to_be_bytes());
        lab().send_untouched(&frame);
    }
}
