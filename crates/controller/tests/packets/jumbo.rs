//! Multi-buffer frames (kernel 5.18 on): only their head is touched.

use std::sync::MutexGuard;

use guenon_controller::simulate::sandbox::Verdict;
use guenon_ebpf::abi::Event;
use guenon_ebpf::reason::DropReason;
use rstest::rstest;

use crate::decap::from_director;
use crate::encapsulation::{Kind, packet};
use crate::support::bed::Way;
use crate::support::expect::encapsulated;
use crate::support::frame::frame;
use crate::support::lab::{Lab, assert_well_formed, lab};

/// The lab, where the kernel takes such frames; else says so.
fn jumbo_lab() -> Option<MutexGuard<'static, Lab>> {
    let lab = lab();
    if lab.sandbox.is_linear() {
        eprintln!("skipped: this kernel (before 5.18) has no multi-buffer frames for XDP");
        return None;
    }
    Some(lab)
}

#[rstest]
fn a_jumbo_frame_is_encapsulated(
    #[values(true, false)] four: bool,
    #[values(3400, 3500, 3600, 4000, 8000, 8968)] size: usize,
) {
    let Some(mut lab) = jumbo_lab() else { return };
    let packet = packet(Way::Jumbo, four, Kind::Tcp).total_length(size);
    let want = encapsulated(Way::Jumbo, &packet, &packet.ip());
    let outcome = lab.send_becomes(&frame(&packet.ip()), Verdict::Tx, &[Event::Encapsulated], &want);
    assert_well_formed(&outcome, true, &want);
}

#[rstest]
fn a_jumbo_frame_is_decapsulated(#[values(true, false)] outer_four: bool, #[values(3500, 5000, 8900)] size: usize) {
    let Some(mut lab) = jumbo_lab() else { return };
    let inner = packet(Way::HereLocal, true, Kind::Tcp).total_length(size).ip();
    let sent = frame(&from_director(outer_four, inner.clone()).ip());
    lab.send_becomes(&sent, Verdict::Pass, &[Event::Decapsulated], &frame(&inner));
}

/// The answer quotes its head and cuts the rest, buffers and all.
#[rstest]
fn a_jumbo_frame_that_does_not_fit_is_answered(#[values(true, false)] four: bool, #[values(3600, 8000)] size: usize) {
    let Some(mut lab) = jumbo_lab() else { return };
    let sent = frame(&packet(Way::Own4, four, Kind::Tcp).total_length(size).ip());
    let outcome = lab.send(&sent);
    assert_eq!((outcome.verdict, outcome.events()), (Verdict::Tx, vec![Event::TooBigAnswered]));
    assert_well_formed(&outcome, false, &sent);
    assert!(outcome.frame.len() <= 14 + 1280);
}

/// The length is that of all buffers: a packet longer than its frame is told from a jumbo one.
#[rstest]
fn a_jumbo_frame_that_is_cut_is_truncated(#[values(true, false)] four: bool, #[values(3600, 8000)] size: usize) {
    let Some(mut lab) = jumbo_lab() else { return };
    let mut sent = frame(&packet(Way::Jumbo, four, Kind::Tcp).total_length(size).ip());
    sent.pop();
    lab.send_dropped(&sent, DropReason::Truncated);
}
