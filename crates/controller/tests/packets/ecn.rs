//! Congestion marks through the tunnel: RFC 6040, figure 4, all sixteen combinations, both families on either side.

use guenon_controller::simulate::sandbox::Verdict;
use guenon_ebpf::abi::Event;
use guenon_ebpf::reason::DropReason;
use rstest::rstest;

use crate::decap::from_director;
use crate::encapsulation::{Kind, packet};
use crate::support::bed::{POD4, Way};
use crate::support::expect::{assert_frame, traffic_class};
use crate::support::frame::frame;
use crate::support::lab::{assert_well_formed, lab};

const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

#[rstest]
#[case(NOT_ECT, NOT_ECT, Some(NOT_ECT))]
#[case(NOT_ECT, ECT_0, Some(NOT_ECT))]
#[case(NOT_ECT, ECT_1, Some(NOT_ECT))]
#[case(NOT_ECT, CE, None)]
#[case(ECT_0, NOT_ECT, Some(ECT_0))]
#[case(ECT_0, ECT_0, Some(ECT_0))]
#[case(ECT_0, ECT_1, Some(ECT_1))]
#[case(ECT_0, CE, Some(CE))]
#[case(ECT_1, NOT_ECT, Some(ECT_1))]
#[case(ECT_1, ECT_0, Some(ECT_1))]
#[case(ECT_1, ECT_1, Some(ECT_1))]
#[case(ECT_1, CE, Some(CE))]
#[case(CE, NOT_ECT, Some(CE))]
#[case(CE, ECT_0, Some(CE))]
#[case(CE, ECT_1, Some(CE))]
#[case(CE, CE, Some(CE))]
fn the_inner_mark_after_the_tunnel(
    #[case] inner: u8,
    #[case] outer: u8,
    #[case] after: Option<u8>,
    #[values(true, false)] four: bool,
    #[values(true, false)] outer_four: bool,
    #[values(Way::HereLocal, Way::HereVeth)] way: Way,
) {
    const INNER_DSCP: u8 = 0b01_1010;
    let given = packet(way, four, Kind::Tcp).traffic_class(INNER_DSCP, inner);
    let mut tunnel = from_director(outer_four, given.ip()).with(|tunnel| {
        tunnel.ecn = outer;
        // The outer DSCP is the tunnel's affair and does not touch the inner one (RFC 2983, pipe).
        tunnel.dscp = 0b10_1110;
    });
    if way == Way::HereVeth {
        tunnel = tunnel.naming(POD4);
    }
    let sent = frame(&tunnel.ip());
    let Some(after) = after else {
        return lab().send_dropped(&sent, DropReason::CongestionLost);
    };
    let outcome = lab().send(&sent);
    assert!(matches!(outcome.verdict, Verdict::Pass | Verdict::Redirect), "{:?}", outcome.reason);
    let want = given.traffic_class(INNER_DSCP, after);
    assert_frame("the inner packet, checksum included", &outcome.frame[14..], &want.ip());
    assert_well_formed(&outcome, false, &sent);
    let marked = outcome.events().contains(&Event::CongestionMarked);
    assert_eq!(marked, after == CE && inner != CE, "counted as marked");
}

/// The checksum is updated, not computed: any header must come out right.
#[test]
fn a_mark_leaves_every_header_checksum_right() {
    let mut lab = lab();
    for id in (0..0x1_0000).step_by(97) {
        let given = packet(Way::HereLocal, true, Kind::EmptyUdp).traffic_class((id % 64) as u8, ECT_0).id(id);
        let tunnel = from_director(true, given.ip()).with(|tunnel| tunnel.ecn = CE);
        let outcome = lab.send_one_of_many(&frame(&tunnel.ip()));
        assert_well_formed(&outcome, false, &tunnel.ip());
        assert_eq!(traffic_class(&outcome.frame[14..]).1, CE);
    }
}
