//! VLAN tags: up to two on the way in; the next hop's on the way out; answers keep those they came with.

use guenon_controller::simulate::sandbox::Verdict;
use guenon_ebpf::abi::Event;
use rstest::rstest;

use crate::encapsulation::{Kind, packet};
use crate::support::bed::{DIRECTOR4, ONE_TAG, POD4, TUNNEL4, TWO_TAGS, Way, client, vip};
use crate::support::expect::{assert_frame, encapsulated};
use crate::support::frame::{NIC_MAC, SENDER_MAC, TPID_AD, TPID_Q, Tag, tagged};
use crate::support::lab::{assert_well_formed, lab};
use crate::support::packet::Packet;
use crate::support::tunnel::Tunnel;

const AD_ALONE: [Tag; 1] = [(TPID_AD, 0x0007)];
const TWO_Q: [Tag; 2] = [(TPID_Q, 0x0001), (TPID_Q, 0x0fff)];

#[rstest]
fn tags_of_the_sender_make_room_for_those_of_the_next_hop(
    #[values(&[], &ONE_TAG, &AD_ALONE, &TWO_TAGS, &TWO_Q)] tags: &[Tag],
    #[values(Way::Own4, Way::Own6, Way::OneTag, Way::TwoTags, Way::OtherInterface)] way: Way,
    #[values(true, false)] four: bool,
) {
    let packet = packet(way, four, Kind::Tcp);
    let verdict = if way == Way::OtherInterface { Verdict::Redirect } else { Verdict::Tx };
    let want = encapsulated(way, &packet, &packet.ip());
    let outcome = lab().send_becomes(&tagged(tags, &packet.ip()), verdict, &[Event::Encapsulated], &want);
    assert_well_formed(&outcome, true, &want);
}

/// A third tag hides the IP header: nobody can say whether such a frame is for a VIP, so it is passed.
#[test]
fn a_third_tag_is_not_looked_behind() {
    let tags = [(TPID_AD, 1), (TPID_Q, 2), (TPID_Q, 3)];
    lab().send_untouched(&tagged(&tags, &packet(Way::Own4, true, Kind::Tcp).ip()));
}

#[rstest]
fn an_echo_answer_keeps_its_tags(#[values(&[], &ONE_TAG, &TWO_TAGS)] tags: &[Tag], #[values(true, false)] four: bool) {
    let (request, reply) = if four { (8, 0) } else { (128, 129) };
    let ping = Packet::icmp(client(four), vip(four), request, 0, [1, 2, 3, 4]);
    let outcome = lab().send(&tagged(tags, &ping.ip()));
    assert_eq!((outcome.verdict, outcome.events()), (Verdict::Tx, vec![Event::EchoAnswered]));
    assert_well_formed(&outcome, false, &ping.ip());
    let start = 14 + 4 * tags.len();
    let icmp = start + if four { 20 } else { 40 };
    assert_eq!(outcome.frame[12..start], tagged(tags, &ping.ip())[12..start], "tags and EtherType");
    assert_eq!(outcome.frame[icmp], reply);
}

#[rstest]
fn a_delivery_to_the_node_keeps_its_tags(#[values(&[], &ONE_TAG, &TWO_TAGS)] tags: &[Tag]) {
    let inner = packet(Way::HereLocal, true, Kind::Tcp).ip();
    let tunnel = Tunnel::new(DIRECTOR4, TUNNEL4, inner.clone());
    lab().send_becomes(&tagged(tags, &tunnel.ip()), Verdict::Pass, &[Event::Decapsulated], &tagged(tags, &inner));
}

#[rstest]
fn a_delivery_to_a_veth_has_none(#[values(&[], &ONE_TAG, &TWO_TAGS)] tags: &[Tag]) {
    let inner = packet(Way::HereVeth, true, Kind::Tcp).ip();
    let tunnel = Tunnel::new(DIRECTOR4, TUNNEL4, inner.clone()).naming(POD4);
    let outcome = lab().send(&tagged(tags, &tunnel.ip()));
    assert_eq!((outcome.verdict, outcome.events()), (Verdict::Redirect, vec![Event::Decapsulated]));
    assert_frame("EtherType and packet", &outcome.frame[12..], &tagged(&[], &inner)[12..]);
}

#[rstest]
fn the_director_s_own_endpoint_gets_them_as_a_decap_node_s_would(
    #[values(&[], &ONE_TAG, &TWO_TAGS)] tags: &[Tag],
    #[values(true, false)] four: bool,
) {
    let mut lab = lab();
    let local = packet(Way::HereLocal, four, Kind::Tcp).ip();
    lab.send_becomes(&tagged(tags, &local), Verdict::Pass, &[Event::DeliveredHere], &tagged(tags, &local));
    let veth = packet(Way::HereVeth, four, Kind::Tcp).ip();
    let outcome = lab.send(&tagged(tags, &veth));
    assert_eq!((outcome.verdict, outcome.events()), (Verdict::Redirect, vec![Event::DeliveredHere]));
    assert_frame("EtherType and packet", &outcome.frame[12..], &tagged(&[], &veth)[12..]);
}

#[rstest]
fn a_too_big_answer_keeps_its_tags(
    #[values(&[], &ONE_TAG, &TWO_TAGS)] tags: &[Tag],
    #[values(true, false)] four: bool,
) {
    let packet = packet(Way::Small4, four, Kind::Tcp).total_length(1400);
    let sent = tagged(tags, &packet.ip());
    let outcome = lab().send(&sent);
    assert_eq!((outcome.verdict, outcome.events()), (Verdict::Tx, vec![Event::TooBigAnswered]));
    assert_well_formed(&outcome, false, &sent);
    let start = 14 + 4 * tags.len();
    assert_eq!(
        (&outcome.frame[..6], &outcome.frame[6..12]),
        (&SENDER_MAC[..], &NIC_MAC[..]),
        "back where it came from"
    );
    assert_eq!(outcome.frame[12..start], sent[12..start], "tags and EtherType");
}
