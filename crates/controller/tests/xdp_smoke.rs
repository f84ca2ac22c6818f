//! The XDP program in the kernel, through BPF_PROG_TEST_RUN: it loads, and the main verdicts are right.
//! Maps are filled by hand, so that nothing but the program is on trial. Needs root (CAP_BPF, CAP_NET_ADMIN).
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod bed;

use std::net::IpAddr;

use bed::{Bed, CLIENT_MAC, GATEWAY_MAC, OUR_MAC, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX, load};
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use guenon_ebpf::abi::{self, Event, Settings};
use guenon_ebpf::reason::DropReason;

const CLIENT: [u8; 4] = [198, 51, 100, 7];
const VIP: [u8; 4] = [203, 0, 113, 10];
const DIRECTOR: [u8; 4] = [172, 17, 2, 2];
const NODE: [u8; 4] = [172, 17, 3, 3];
const ENDPOINT: [u8; 4] = [10, 0, 0, 7];

fn v4(bytes: [u8; 4]) -> IpAddr {
    IpAddr::from(bytes)
}

fn v6(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn tcp4(payload: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, OUR_MAC)
        .ipv4(CLIENT, VIP, 63)
        .tcp(40_000, 80, 1, 1_000)
        .syn()
        .write(&mut frame, &vec![7; payload])
        .unwrap();
    frame
}

fn tcp6(payload: usize) -> Vec<u8> {
    let (IpAddr::V6(client), IpAddr::V6(vip)) = (v6("2001:db8:1::7"), v6("2001:db8::10")) else { unreachable!() };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, OUR_MAC)
        .ipv6(client.octets(), vip.octets(), 63)
        .tcp(40_000, 80, 1, 1_000)
        .syn()
        .write(&mut frame, &vec![7; payload])
        .unwrap();
    frame
}

#[test]
fn each_entry_point_loads() {
    let all = ["guenon_linear", "guenon_pass_linear", "guenon", "guenon_pass"];
    let old = bed::entry_point() == "guenon_linear";
    for program in &all[..if old { 2 } else { 4 }] {
        load(&Settings { roles: abi::ROLE_DIRECTOR | abi::ROLE_DECAP, ..Settings::default() }, program);
    }
}

#[test]
fn a_frame_that_is_nothing_passes_untouched_and_is_counted() {
    let bed = Bed::new();
    let frame = vec![0x5a; 64];
    let (verdict, out) = bed.run(&frame);
    assert_eq!((verdict, out), (XDP_PASS, frame));
    assert_eq!(bed.count(abi::PASSED), 1);
    bed.assert_balanced();
}

#[test]
fn tcp_to_a_vip_is_encapsulated_in_all_four_families() {
    for (name, inner, vip) in [("IPv4", tcp4(100), v4(VIP)), ("IPv6", tcp6(100), v6("2001:db8::10"))] {
        for (source, destination, header, version) in
            [(v4(DIRECTOR), v4(NODE), 40, 4), (v6("fd00::22"), v6("fd00::33"), 60, 6)]
        {
            let mut bed = Bed::new();
            bed.vip(vip, 0, 0);
            bed.tunnel_service(vip, 80, source, destination, v4(ENDPOINT), 1500);
            let (verdict, out) = bed.run(&inner);
            assert_eq!(verdict, XDP_TX, "{name} in {version}");
            assert_eq!(out.len(), inner.len() + header, "{name} in {version}");
            assert_eq!(&out[14 + header..], &inner[14..], "the inner packet is not modified");
            assert_eq!((&out[..6], &out[6..12]), (&GATEWAY_MAC[..], &OUR_MAC[..]));
            let packet = SlicedPacket::from_ethernet(&out).expect("the outer packet is well-formed");
            let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("not UDP: {packet:?}") };
            assert_eq!(udp.destination_port(), 6080);
            assert!(udp.source_port() >= 49_152);
            assert_eq!(usize::from(udp.length()), out.len() - 14 - if version == 4 { 20 } else { 40 });
            if version == 4 {
                let ip = etherparse::Ipv4Header::from_slice(&out[14..]).unwrap().0;
                assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                assert_eq!((ip.time_to_live, ip.dont_fragment), (64, true));
            }
            assert_eq!(bed.count(Event::Encapsulated.index()), 1);
            bed.assert_balanced();
        }
    }
}

#[test]
fn what_a_director_sends_a_decap_node_unpacks() {
    for (inner, vip) in [(tcp4(100), v4(VIP)), (tcp6(100), v6("2001:db8::10"))] {
        for (source, destination) in [(v4(DIRECTOR), v4(NODE)), (v6("fd00::22"), v6("fd00::33"))] {
            for endpoint in [v4(ENDPOINT), v6("fd00::77"), destination] {
                let mut director = Bed::new();
                director.vip(vip, 0, 0);
                director.tunnel_service(vip, 80, source, destination, endpoint, 1500);
                let (verdict, tunnelled) = director.run(&inner);
                assert_eq!(verdict, XDP_TX);

                let mut decap = Bed::new();
                decap.vip(vip, 0, 0);
                decap.tunnel(destination);
                let (verdict, _) = decap.run(&tunnelled);
                assert_eq!((verdict, decap.drops()), (XDP_DROP, vec![(DropReason::UnknownDirector, 1)]));
                decap.director(source);
                decap.local(vip, 80, endpoint, abi::DeliveryMode::Local);
                let (verdict, out) = decap.run(&tunnelled);
                assert_eq!(verdict, XDP_PASS, "{:?}", decap.drops());
                assert_eq!(&out[14..], &inner[14..]);
                assert_eq!(&out[..6], &GATEWAY_MAC[..], "the MAC by which it came stays");
                assert_eq!(&out[12..14], &inner[12..14], "the EtherType is the inner packet's");
                assert_eq!(decap.count(Event::Decapsulated.index()), 1);
                decap.assert_balanced();
            }
        }
    }
}

#[test]
fn an_endpoint_behind_a_veth_gets_its_own_mac() {
    let mut director = Bed::new();
    director.vip(v4(VIP), 0, 0);
    director.tunnel_service(v4(VIP), 80, v4(DIRECTOR), v4(NODE), v4(ENDPOINT), 1500);
    let (_, tunnelled) = director.run(&tcp4(10));
    let mut decap = Bed::new();
    decap.vip(v4(VIP), 0, 0);
    decap.tunnel(v4(NODE));
    decap.director(v4(DIRECTOR));
    decap.local(v4(VIP), 80, v4(ENDPOINT), abi::DeliveryMode::Veth);
    let (verdict, out) = decap.run(&tunnelled);
    assert_eq!(verdict, XDP_REDIRECT);
    assert_eq!(&out[..6], &bed::ENDPOINT_MAC[..]);
    assert_eq!(&out[14..], &tcp4(10)[14..]);
    decap.assert_balanced();
}

#[test]
fn what_matches_no_frontend_is_dropped_or_passed_where_the_address_is_ours() {
    let mut bed = Bed::new();
    bed.vip(v4(VIP), 0, 0);
    let (verdict, _) = bed.run(&tcp4(0));
    assert_eq!((verdict, bed.drops()), (XDP_DROP, vec![(DropReason::NoFrontend, 1)]));
    bed.vip(v4(VIP), 0, abi::ADDRESS_ON_NODE);
    let (verdict, out) = bed.run(&tcp4(0));
    assert_eq!((verdict, out), (XDP_PASS, tcp4(0)));
    bed.assert_balanced();
}

#[test]
fn a_ping_of_a_vip_is_answered() {
    let mut bed = Bed::new();
    bed.vip(v4(VIP), 0, 0);
    bed.vip(v6("2001:db8::10"), 1, 0);
    let mut four = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, OUR_MAC)
        .ipv4(CLIENT, VIP, 9)
        .icmpv4_echo_request(1, 2)
        .write(&mut four, b"payload")
        .unwrap();
    let (verdict, out) = bed.run(&four);
    assert_eq!(verdict, XDP_TX);
    let mut expected = Vec::new();
    PacketBuilder::ethernet2(OUR_MAC, CLIENT_MAC)
        .ipv4(VIP, CLIENT, 64)
        .icmpv4_echo_reply(1, 2)
        .write(&mut expected, b"payload")
        .unwrap();
    assert_eq!(out, expected);

    let (IpAddr::V6(client), IpAddr::V6(vip)) = (v6("2001:db8:1::7"), v6("2001:db8::10")) else { unreachable!() };
    let mut six = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, OUR_MAC)
        .ipv6(client.octets(), vip.octets(), 9)
        .icmpv6_echo_request(1, 2)
        .write(&mut six, b"payload")
        .unwrap();
    let (verdict, out) = bed.run(&six);
    assert_eq!(verdict, XDP_TX);
    let mut expected = Vec::new();
    PacketBuilder::ethernet2(OUR_MAC, CLIENT_MAC)
        .ipv6(vip.octets(), client.octets(), 64)
        .icmpv6_echo_reply(1, 2)
        .write(&mut expected, b"payload")
        .unwrap();
    assert_eq!(out, expected);
    bed.assert_balanced();
}

#[test]
fn a_packet_that_is_too_big_is_answered_with_the_right_mtu() {
    let mut bed = Bed::new();
    bed.vip(v4(VIP), 0, 0);
    bed.tunnel_service(v4(VIP), 80, v4(DIRECTOR), v4(NODE), v4(ENDPOINT), 1500);
    let big = tcp4(1421);
    assert_eq!(big.len(), 14 + 1461);
    let (verdict, out) = bed.run(&big);
    assert_eq!(verdict, XDP_TX, "{:?}", bed.drops());
    assert_eq!(out.len(), 14 + 576);
    let packet = SlicedPacket::from_ethernet(&out).unwrap();
    let Some(TransportSlice::Icmpv4(icmp)) = packet.transport else { panic!("{packet:?}") };
    assert_eq!((icmp.type_u8(), icmp.code_u8()), (3, 4));
    assert_eq!(icmp.bytes5to8()[2..], 1460u16.to_be_bytes());
    assert_eq!(icmp.payload(), &big[14..14 + 548]);
    assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
    let ip = etherparse::Ipv4Header::from_slice(&out[14..]).unwrap().0;
    assert_eq!((ip.source, ip.destination, ip.header_checksum), (VIP, CLIENT, ip.calc_header_checksum()));

    let mut no_df = big.clone();
    no_df[20] &= !0x40;
    let (verdict, _) = bed.run(&no_df);
    assert_eq!((verdict, bed.drops()), (XDP_DROP, vec![(DropReason::TooBigNoDf, 1)]));
    bed.assert_balanced();

    let six = v6("2001:db8::10");
    let mut bed = Bed::new();
    bed.vip(six, 0, 0);
    bed.tunnel_service(six, 80, v4(DIRECTOR), v4(NODE), v4(ENDPOINT), 1500);
    let big = tcp6(1401);
    let (verdict, out) = bed.run(&big);
    assert_eq!((verdict, out.len()), (XDP_TX, 14 + 1280), "{:?}", bed.drops());
    let packet = SlicedPacket::from_ethernet(&out).unwrap();
    let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("{packet:?}") };
    assert_eq!((icmp.type_u8(), icmp.bytes5to8()), (2, 1460u32.to_be_bytes()));
    let ip = etherparse::Ipv6Header::from_slice(&out[14..]).unwrap().0;
    let sum = icmp.icmp_type().calc_checksum(ip.source, ip.destination, icmp.payload()).unwrap();
    assert_eq!(icmp.checksum(), sum);
    bed.assert_balanced();
}

#[test]
fn vlan_tags_are_read_and_answers_keep_them() {
    let mut bed = Bed::new();
    bed.vip(v4(VIP), 0, 0);
    bed.tunnel_service(v4(VIP), 80, v4(DIRECTOR), v4(NODE), v4(ENDPOINT), 1500);
    let plain = tcp4(10);
    let (_, expected) = bed.run(&plain);
    for tags in [&[0x81, 0, 0, 5][..], &[0x88, 0xa8, 0, 9, 0x81, 0, 0, 5]] {
        let tagged = [&plain[..12], tags, &plain[12..]].concat();
        let (verdict, out) = bed.run(&tagged);
        assert_eq!((verdict, &out), (XDP_TX, &expected), "tags of the way in are gone, those of the way out are none");
    }
    let big = tcp4(1460);
    let tagged = [&big[..12], &[0x81, 0, 0, 5], &big[12..]].concat();
    let (verdict, out) = bed.run(&tagged);
    assert_eq!((verdict, &out[12..18]), (XDP_TX, &[0x81, 0, 0, 5, 8, 0][..]));
    bed.assert_balanced();
}

#[test]
fn fragments_follow_the_first_or_are_lost() {
    let mut bed = Bed::new();
    bed.vip(v4(VIP), 0, 0);
    bed.tunnel_service(v4(VIP), 80, v4(DIRECTOR), v4(NODE), v4(ENDPOINT), 1500);
    let mut first = tcp4(8);
    first[18..20].copy_from_slice(&[0x12, 0x34]);
    first[20..22].copy_from_slice(&[0x20, 0]);
    let mut later = first.clone();
    later[20..22].copy_from_slice(&[0, 3]);
    let (verdict, _) = bed.run(&later);
    assert_eq!((verdict, bed.drops()), (XDP_DROP, vec![(DropReason::FragmentLost, 1)]));
    let (verdict, out_first) = bed.run(&first);
    assert_eq!(verdict, XDP_TX);
    let (verdict, out_later) = bed.run(&later);
    assert_eq!(verdict, XDP_TX);
    assert_eq!(out_first[34..36], out_later[34..36], "the same source port");
    assert_eq!(bed.count(Event::FragmentFollowed.index()), 1);
    bed.assert_balanced();
}

#[test]
fn an_icmp_error_follows_the_flow_that_it_quotes() {
    let mut bed = Bed::new();
    bed.vip(v4(VIP), 0, 0);
    bed.tunnel_service(v4(VIP), 80, v4(DIRECTOR), v4(NODE), v4(ENDPOINT), 1500);
    let (_, flow) = bed.run(&tcp4(0));
    let mut reply = Vec::new();
    PacketBuilder::ipv4(VIP, CLIENT, 60).tcp(80, 40_000, 1, 1).write(&mut reply, &[]).unwrap();
    let error = etherparse::Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Network);
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, OUR_MAC)
        .ipv4([192, 0, 2, 1], VIP, 63)
        .icmpv4(error)
        .write(&mut frame, &reply[..28])
        .unwrap();
    let (verdict, out) = bed.run(&frame);
    assert_eq!(verdict, XDP_TX, "{:?}", bed.drops());
    assert_eq!(out[34..36], flow[34..36], "the same entropy as the flow");
    assert_eq!(&out[54..], &frame[14..]);
    bed.assert_balanced();
}
