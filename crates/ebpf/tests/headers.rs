//! Headers, outer headers and answers against etherparse, an independent reader and writer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use guenon_ebpf::abi::{Address, Endpoint, EndpointKind};
use guenon_ebpf::headers::ethernet::{self, Macs};
use guenon_ebpf::headers::ipv4::Ipv4;
use guenon_ebpf::headers::ipv6::Ipv6;
use guenon_ebpf::headers::{Fragment, protocol};
use guenon_ebpf::outer::{self, BASE_V4, BASE_V6, Facts};
use guenon_ebpf::packet::Packet;
use guenon_ebpf::reason::DropReason;
use guenon_ebpf::{answer, checksum, ecn, gue, hash, parse};
use proptest::prelude::*;

fn ipv4() -> impl Strategy<Value = [u8; 4]> {
    any::<[u8; 4]>()
}

fn tcp4(source: [u8; 4], destination: [u8; 4], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12])
        .ipv4(source, destination, 9)
        .tcp(ports.0, ports.1, 1, 2)
        .write(&mut frame, payload)
        .expect("a Vec takes every byte");
    frame
}

/// Completes an endpoint's header as the program does.
fn complete(endpoint: &Endpoint, facts: &Facts) -> Vec<u8> {
    let mut header = endpoint.header[..facts.header_len].to_vec();
    if endpoint.kind == EndpointKind::Tunnel4 as u8 {
        outer::complete_v4(header[..BASE_V4].as_mut().try_into().expect("the base is there"), endpoint.checksum, facts);
    } else {
        outer::complete_v6(header[..BASE_V6].as_mut().try_into().expect("the base is there"), facts);
    }
    header
}

proptest! {
    #[test]
    fn a_tcp_packet_is_read_as_etherparse_wrote_it(
        source in ipv4(), destination in ipv4(), ports in any::<(u16, u16)>(), len in 0_usize..64,
    ) {
        let frame = tcp4(source, destination, ports, &vec![0; len]);
        let packet = frame.as_slice();
        let (ethertype, at) = ethernet::payload(&packet).unwrap();
        prop_assert_eq!((ethertype, at), (ethernet::IPV4, 14));
        let ip = parse::ipv4(&packet, at, Ipv4(packet.bytes(at).unwrap())).unwrap();
        prop_assert_eq!(ip.source, Address::from_v4(source));
        prop_assert_eq!(ip.destination, Address::from_v4(destination));
        prop_assert_eq!((ip.upper, ip.end, ip.protocol), (34, frame.len(), protocol::TCP));
        let read = parse::ports(&packet, &ip).unwrap();
        prop_assert_eq!((read.source.swap_bytes(), read.destination_number()), ports);
        prop_assert_eq!(parse::plain_v4(at, Ipv4(packet.bytes(at).unwrap())), Some(parse::Ip { id: 0, ..ip }));
    }

    #[test]
    fn an_ipv6_packet_is_read_as_etherparse_wrote_it(
        source in any::<[u8; 16]>(), destination in any::<[u8; 16]>(), ports in any::<(u16, u16)>(), len in 0_usize..64,
    ) {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([0; 6], [0; 6])
            .ipv6(source, destination, 9)
            .udp(ports.0, ports.1)
            .write(&mut frame, &vec![0; len])
            .unwrap();
        let packet = frame.as_slice();
        let ip = parse::ipv6(&packet, 14, Ipv6(packet.bytes(14).unwrap())).unwrap();
        prop_assert_eq!(ip.source.to_bytes(), source);
        prop_assert_eq!(ip.destination.to_bytes(), destination);
        prop_assert_eq!((ip.upper, ip.end, ip.protocol, ip.fragment), (54, frame.len(), 17, Fragment::Whole));
        let read = parse::ports(&packet, &ip).unwrap();
        prop_assert_eq!((read.source.swap_bytes(), read.destination_number()), ports);
        prop_assert_eq!(parse::plain_v6(14, Ipv6(packet.bytes(14).unwrap())), Some(ip));
    }

    /// What the plain way accepts, the general way judges the same; so that they may not drift apart.
    #[test]
    fn the_plain_way_agrees_with_the_general_way(mut bytes in proptest::collection::vec(any::<u8>(), 64..128), six: bool) {
        bytes[0] = if six { 0x60 | bytes[0] & 0xf } else { 0x45 };
        let packet = bytes.as_slice();
        let (plain, general) = if six {
            let header = Ipv6(packet.bytes(0).unwrap());
            (parse::plain_v6(0, header), parse::ipv6(&packet, 0, header))
        } else {
            let header = Ipv4(packet.bytes(0).unwrap());
            (parse::plain_v4(0, header), parse::ipv4(&packet, 0, header))
        };
        if let Some(plain) = plain.filter(|plain| packet.reaches(plain.end) && plain.end >= plain.upper) {
            prop_assert_eq!(general.map(|ip| parse::Ip { id: 0, ..ip }), Ok(plain));
        }
    }

    /// No bytes, however wild, make the parser read outside or panic.
    #[test]
    fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let packet = bytes.as_slice();
        let Some((_, at)) = ethernet::payload(&packet) else { return Ok(()) };
        if let Some(header) = packet.bytes(at)
            && let Ok(ip) = parse::ipv4(&packet, at, Ipv4(header))
        {
            let _ = (parse::ports(&packet, &ip), parse::icmp(&packet, &ip), parse::quoted(&packet, &ip));
            prop_assert!(ip.end <= bytes.len() && ip.upper <= ip.end);
        }
        if let Some(header) = packet.bytes(at)
            && let Ok(ip) = parse::ipv6(&packet, at, Ipv6(header))
        {
            let _ = (parse::ports(&packet, &ip), parse::icmp(&packet, &ip), parse::quoted(&packet, &ip));
            prop_assert!(ip.end <= bytes.len() && ip.upper <= ip.end);
        }
    }

    #[test]
    fn an_outer_ipv4_header_is_well_formed(
        addresses in any::<([u8; 4], [u8; 4], [u8; 4])>(), port: u16, inner_len in 20_usize..9000, class: u8, entropy: u64,
    ) {
        let (source, destination, address) = addresses;
        prop_assume!(destination != address);
        let ips = addresses_of(source, destination, address);
        let endpoint = outer::endpoint(ips.0, ips.1, ips.2, port).unwrap();
        prop_assert_eq!(endpoint.header_len, 40);
        let facts = Facts {
            header_len: 40, inner_len, protocol: protocol::IPV4, traffic_class: class, entropy,
        };
        let mut packet = complete(&endpoint, &facts);
        packet.resize(40 + inner_len, 0);
        let read = SlicedPacket::from_ip(&packet).unwrap();
        let (header, _) = etherparse::Ipv4Header::from_slice(&packet).unwrap();
        prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
        prop_assert_eq!((header.source, header.destination, header.time_to_live), (source, destination, 64));
        prop_assert_eq!(usize::from(header.total_len), packet.len());
        prop_assert_eq!(packet[1], class);
        let Some(TransportSlice::Udp(udp)) = read.transport else { panic!("no UDP") };
        prop_assert_eq!((udp.source_port(), udp.destination_port()), (hash::source_port(entropy), port));
        prop_assert_eq!((usize::from(udp.length()), udp.checksum()), (packet.len() - 20, 0));
        prop_assert_eq!(&packet[28..36], &[2, 4, 0, 0, 1, 0, 0, 0]);
        prop_assert_eq!(&packet[36..40], &address);
    }

    #[test]
    fn an_outer_ipv6_header_is_well_formed(
        source: [u8; 16], destination: [u8; 16], address: [u8; 16], inner_len in 20_usize..9000, class: u8, entropy: u64,
    ) {
        prop_assume!(destination != address && Ipv6Addr::from(address).to_ipv4_mapped().is_none());
        let [source_ip, destination_ip, address_ip] = [source, destination, address].map(IpAddr::from);
        let endpoint = outer::endpoint(source_ip, destination_ip, address_ip, 6080).unwrap();
        prop_assert_eq!(endpoint.header_len, 72);
        let facts = Facts {
            header_len: 72, inner_len, protocol: protocol::IPV6, traffic_class: class, entropy,
        };
        let mut packet = complete(&endpoint, &facts);
        packet.resize(72 + inner_len, 0);
        let (header, _) = etherparse::Ipv6Header::from_slice(&packet).unwrap();
        prop_assert_eq!((header.source, header.destination, header.hop_limit), (source, destination, 64));
        prop_assert_eq!((header.traffic_class, header.flow_label.value()), (class, hash::flow_label(entropy)));
        prop_assert_eq!(usize::from(header.payload_length), packet.len() - 40);
        prop_assert_eq!(&packet[48..56], &[5, 41, 0, 0, 1, 0, 0, 3]);
        prop_assert_eq!(&packet[56..72], &address);
    }

    #[test]
    fn the_checksum_of_any_words_is_the_naive_one(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut naive: u32 = 0;
        for word in bytes.chunks(2) {
            naive += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
            naive = (naive & 0xffff) + (naive >> 16);
        }
        prop_assert_eq!(checksum::finish(checksum::add(0, &bytes)).to_le_bytes(), (!naive as u16).to_be_bytes());
    }

    #[test]
    fn an_update_is_what_a_new_sum_would_be(mut words in proptest::collection::vec(any::<u16>(), 2..20), new: u16) {
        let sum = |words: &[u16]| checksum::finish(words.iter().map(|&word| u64::from(word)).sum());
        let before = sum(&words);
        let old = std::mem::replace(&mut words[0], new);
        let updated = checksum::update(before, old, new);
        // 0 and 0xffff are the same number in ones' complement.
        prop_assert_eq!(u32::from(updated) % 0xffff, u32::from(sum(&words)) % 0xffff);
    }

    #[test]
    fn a_small_sum_finishes_as_any_other(sum in 0_u32..1 << 20) {
        prop_assert_eq!(checksum::finish_small(sum), checksum::finish(u64::from(sum)));
    }

    #[test]
    fn macs_survive_reading_and_writing(bytes: [u8; 12]) {
        let macs = Macs::read(&bytes);
        let mut out = [0; 12];
        macs.write(&mut out);
        prop_assert_eq!(out, bytes);
        macs.reversed().write(&mut out);
        prop_assert_eq!((&out[..6], &out[6..]), (&bytes[6..], &bytes[..6]));
        prop_assert_eq!(macs.destination, ethernet::mac(bytes[..6].try_into().unwrap()));
    }

    #[test]
    fn setting_a_traffic_class_keeps_the_header_right(source in ipv4(), destination in ipv4(), old: u8, new: u8) {
        let mut header = etherparse::Ipv4Header::new(8, 1, etherparse::IpNumber::UDP, source, destination).unwrap();
        header.dscp = etherparse::IpDscp::try_new(old >> 2).unwrap();
        header.header_checksum = header.calc_header_checksum();
        let mut bytes: [u8; 20] = header.to_bytes().as_slice().try_into().unwrap();
        ecn::set_v4(&mut bytes, new);
        let (read, _) = etherparse::Ipv4Header::from_slice(&bytes).unwrap();
        prop_assert_eq!((bytes[1], read.header_checksum), (new, read.calc_header_checksum()));

        let mut six = [0xff; 40];
        ecn::set_v6(&mut six, new);
        prop_assert_eq!(Ipv6(&six).traffic_class(), new);
        prop_assert_eq!((six[0] >> 4, six[1] & 0xf), (0xf, 0xf));
    }
}

fn addresses_of(source: [u8; 4], destination: [u8; 4], address: [u8; 4]) -> (IpAddr, IpAddr, IpAddr) {
    (Ipv4Addr::from(source).into(), Ipv4Addr::from(destination).into(), Ipv4Addr::from(address).into())
}

#[test]
fn headers_have_the_five_lengths_of_the_abi() {
    let (four, other4) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    let (six, other6) = (IpAddr::from([1; 16]), IpAddr::from([2; 16]));
    let len = |source, destination, address| outer::endpoint(source, destination, address, 6080).unwrap().header_len;
    assert_eq!(len(four, four, four), 32);
    assert_eq!(len(four, four, other4), 40);
    assert_eq!(len(four, four, six), 52);
    assert_eq!(len(six, six, six), 52);
    assert_eq!(len(six, six, four), 60);
    assert_eq!(len(six, six, other6), 72);
    assert_eq!(outer::endpoint(four, six, six, 6080), None, "a tunnel has one family");
}

#[test]
fn gue_headers_are_refused_each_for_its_reason() {
    let parse = |header, payload| gue::parse(&header, payload);
    assert_eq!(parse(gue::header(4, 0), 4), Ok(gue::Gue { private_len: 0, v6: false }));
    assert_eq!(parse(gue::header(41, 8), 12), Ok(gue::Gue { private_len: 8, v6: true }));
    assert_eq!(parse([0x40, 4, 0, 0], 100), Err(DropReason::GueVersion));
    assert_eq!(parse([0x80, 4, 0, 0], 100), Err(DropReason::GueVersion));
    assert_eq!(parse([0x20, 4, 0, 0], 100), Err(DropReason::GueControl));
    assert_eq!(parse([0, 4, 0x80, 0], 100), Err(DropReason::GueFlags));
    assert_eq!(parse([0, 4, 0, 1], 100), Err(DropReason::GueFlags));
    assert_eq!(parse([2, 4, 0, 0], 11), Err(DropReason::GueLength));
    assert_eq!(parse([0, 47, 0, 0], 100), Err(DropReason::GueProtocol));
}

#[test]
fn private_data_holds_exactly_what_it_says() {
    let parse = |header, len| gue::parse_private(&header, len);
    assert_eq!(parse(gue::private_header(false, false), 8), Ok(false));
    assert_eq!(parse(gue::private_header(true, false), 20), Ok(true));
    assert_eq!(parse([1, 0, 1, 0], 4 + 4 + 8), Ok(false), "one alternative of two IPv4 addresses");
    assert_eq!(parse([1, 1, 1, 3], 4 + 16 + 32), Ok(true), "one alternative of two IPv6 addresses, tried");
    assert_eq!(parse([2, 0, 0, 0], 8), Err(DropReason::PrivateType));
    assert_eq!(parse([1, 0, 0, 4], 8), Err(DropReason::PrivateType), "an unknown family bit");
    assert_eq!(parse([1, 0, 0, 0], 4), Err(DropReason::PrivateCount));
    assert_eq!(parse([1, 0, 0, 0], 12), Err(DropReason::PrivateCount));
    assert_eq!(parse([1, 0, 1, 0], 8), Err(DropReason::PrivateCount));
    assert_eq!(parse([1, 1, 0, 0], 8), Err(DropReason::PrivateCount), "more tried than there are");
}

#[test]
fn congestion_is_carried_over_as_rfc_6040_says() {
    // Figure 4: rows are the inner field, columns the outer; Not-ECT, ECT(0), ECT(1), CE.
    let order = [ecn::NOT_ECT, ecn::ECT_0, ecn::ECT_1, ecn::CE];
    let figure = [
        [Some(0), Some(0), Some(0), None],
        [Some(2), Some(2), Some(1), Some(3)],
        [Some(1), Some(1), Some(1), Some(3)],
        [Some(3), Some(3), Some(3), Some(3)],
    ];
    for (row, inner) in figure.iter().zip(order) {
        for (expected, outer) in row.iter().zip(order) {
            for dscp in [0, 0xb8] {
                let expected = expected.map(|ecn: u8| dscp | ecn);
                assert_eq!(ecn::decapsulate(outer, dscp | inner), expected, "inner {inner}, outer {outer}");
            }
        }
    }
}

#[test]
fn extension_headers_are_walked_and_bounded() {
    let ipv6 = |next: u8, extensions: &[u8]| {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        packet.extend([0x20; 32]);
        packet.extend(extensions);
        packet.extend([0; 20]);
        let len = (packet.len() - 40) as u16;
        packet[4..6].copy_from_slice(&len.to_be_bytes());
        packet
    };
    let judge = |packet: Vec<u8>| {
        let packet = packet.as_slice();
        parse::ipv6(&packet, 0, Ipv6(packet.bytes(0).unwrap()))
    };
    let hop_by_hop = judge(ipv6(0, &[6, 0, 0, 0, 0, 0, 0, 0])).unwrap();
    assert_eq!((hop_by_hop.upper, hop_by_hop.protocol), (48, protocol::TCP));
    let long = judge(ipv6(60, &[[17, 1, 0, 0, 0, 0, 0, 0], [0; 8]].concat())).unwrap();
    assert_eq!((long.upper, long.protocol), (56, protocol::UDP));
    let authenticated = judge(ipv6(51, &[[17, 1, 0, 0, 0, 0, 0, 0].as_slice(), &[0; 4]].concat())).unwrap();
    assert_eq!((authenticated.upper, authenticated.protocol), (52, protocol::UDP), "AH counts in words of four");
    let first = judge(ipv6(44, &[17, 0, 0, 1, 1, 2, 3, 4])).unwrap();
    assert_eq!((first.fragment, first.id, first.upper), (Fragment::First, 0x0102_0304, 48));
    let later = judge(ipv6(44, &[17, 0, 0, 8, 1, 2, 3, 4])).unwrap();
    assert_eq!((later.fragment, later.id), (Fragment::Later, 0x0102_0304));
    let atomic = judge(ipv6(44, &[17, 0, 0, 0, 1, 2, 3, 4])).unwrap();
    assert_eq!(atomic.fragment, Fragment::Whole, "RFC 6946");
    assert_eq!(judge(ipv6(50, &[])), Err(DropReason::OptionsTooLong), "ESP hides the ports");
    assert_eq!(judge(ipv6(0, &[6, 9, 0, 0, 0, 0, 0, 0])), Err(DropReason::Truncated));
    let chain = [60, 0, 0, 0, 0, 0, 0, 0].repeat(9);
    assert_eq!(judge(ipv6(60, &chain)), Err(DropReason::OptionsTooLong));
}

#[test]
fn only_decent_sources_are_answered() {
    let macs = Macs { destination: 2, source: 4 };
    for (text, answerable) in [
        ("198.51.100.7", true),
        ("0.0.0.0", false),
        ("127.0.0.1", false),
        ("224.0.0.1", false),
        ("255.255.255.255", false),
        ("2001:db8::1", true),
        ("fe80::1", true),
        ("::1", false),
        ("::", false),
        ("ff02::1", false),
    ] {
        let source = Address::from_ip(text.parse().unwrap());
        assert_eq!(answer::is_answerable(source, macs), answerable, "{text}");
    }
    let source = Address::from_ip("198.51.100.7".parse().unwrap());
    assert!(!answer::is_answerable(source, Macs { destination: 1, source: 4 }), "sent to a group");
}
