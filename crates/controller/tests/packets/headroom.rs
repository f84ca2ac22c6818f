//! A driver that leaves no room in front of the frame: dropped by that name, never cut or overwritten.

use guenon_controller::simulate::sandbox::{Outcome, Verdict};
use guenon_ebpf::abi::{Counter, FIRST_DROP, PASSED, RECEIVED, REDIRECTED};
use guenon_ebpf::reason::DropReason;
use rstest::rstest;

use crate::encapsulation::{Kind, packet};
use crate::support::bed::Way;
use crate::support::frame::frame;
use crate::support::headless;
use crate::support::lab::lab;

#[rstest]
fn without_headroom_a_packet_for_a_tunnel_is_dropped_by_that_name(
    #[values(Way::Own4, Way::Pod6In6, Way::OtherInterface)] way: Way,
    #[values(true, false)] four: bool,
) {
    let sent = frame(&packet(way, four, Kind::Tcp).ip());
    let counted = run(&sent, Verdict::Drop);
    assert_eq!(counted(RECEIVED).packets, 1);
    assert_eq!(counted(FIRST_DROP + DropReason::NoHeadroom as usize).packets, 1);
}

/// What needs no room is not touched by the want of it.
#[test]
fn without_headroom_everything_else_goes_on() {
    let local = frame(&packet(Way::HereLocal, true, Kind::Tcp).ip());
    assert_eq!(run(&local, Verdict::Pass)(PASSED).packets, 1);
    let veth = frame(&packet(Way::HereVeth, true, Kind::Tcp).ip());
    assert_eq!(run(&veth, Verdict::Redirect)(REDIRECTED).packets, 1);
}

/// Runs it; what each counter has counted.
#[track_caller]
fn run(sent: &[u8], verdict: Verdict) -> impl Fn(usize) -> Counter {
    let mut lab = lab();
    let before = lab.sandbox.counters().unwrap();
    assert_eq!(headless::run(&lab.sandbox, sent), verdict);
    let after = lab.sandbox.counters().unwrap();
    // The sandbox reads the counters' difference from run to run: this one was not its own.
    let _: Outcome = lab.sandbox.run(&frame(&[])).unwrap();
    move |index| Counter {
        packets: after.0[index].packets - before.0[index].packets,
        bytes: after.0[index].bytes - before.0[index].bytes,
    }
}
