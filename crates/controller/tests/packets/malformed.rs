//! Packets for a VIP that contradict themselves, by family and layer: dropped by the name of what is wrong, never read beyond
//! their end.

use guenon_controller::simulate::sandbox::Verdict;
use guenon_ebpf::abi::Event;
use guenon_ebpf::reason::DropReason;
use rstest::rstest;

use crate::decap::from_director;
use crate::encapsulation::{Kind, packet};
use crate::support::bed::{Way, client, vip};
use crate::support::expect::encapsulated;
use crate::support::frame::{TPID_Q, ethernet, frame, padded, tagged};
use crate::support::lab::lab;
use crate::support::packet::{Packet, Upper};

/// The frame of a plain packet, its IP packet changed by hand.
fn spoilt(four: bool, kind: Kind, spoil: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut ip = packet(Way::Own4, four, kind).ip();
    spoil(&mut ip);
    ethernet(&[], if four { 0x0800 } else { 0x86dd }, &ip)
}

/// A frame that was cut: the IP header says more than there is.
#[rstest]
fn a_frame_cut_anywhere_behind_the_ip_header_is_truncated(
    #[values(true, false)] four: bool,
    #[values(Kind::Tcp, Kind::Udp)] kind: Kind,
    #[values(false, true)] tag: bool,
) {
    let ip = packet(Way::Own4, four, kind).ip();
    let header = if four { 20 } else { 40 };
    let mut lab = lab();
    for length in header..ip.len() {
        let tags: &[_] = if tag { &[(TPID_Q, 5)] } else { &[] };
        lab.send_dropped(&tagged(tags, &ip[..length]), DropReason::Truncated);
    }
}

/// Likewise a tunnel packet, as soon as it can be told from others.
#[rstest]
fn a_tunnel_packet_cut_anywhere_behind_its_ports_is_truncated(#[values(true, false)] outer_four: bool) {
    let ip = from_director(outer_four, packet(Way::HereLocal, true, Kind::Tcp).ip()).ip();
    let header = if outer_four { 20 } else { 40 };
    let mut lab = lab();
    for length in header + 8..ip.len() {
        lab.send_dropped(&frame(&ip[..length]), DropReason::Truncated);
    }
}

/// Cut in the address itself, nobody can say whose it is.
#[rstest]
fn a_frame_cut_in_the_ip_header_is_nobody_s(#[values(true, false)] four: bool) {
    let ip = packet(Way::Own4, four, Kind::Tcp).ip();
    for length in 0..if four { 20 } else { 40 } {
        let ether_type = if four { 0x0800 } else { 0x86dd };
        lab().send_untouched(&ethernet(&[], ether_type, &ip[..length]));
    }
}

#[rstest]
#[case::another_version(|ip: &mut Vec<u8>| ip[0] = 0x65)]
#[case::version_0(|ip: &mut Vec<u8>| ip[0] = 0x05)]
#[case::header_of_sixteen_bytes(|ip: &mut Vec<u8>| ip[0] = 0x44)]
#[case::header_of_nothing(|ip: &mut Vec<u8>| ip[0] = 0x40)]
#[case::total_shorter_than_the_header(|ip: &mut Vec<u8>| ip[2..4].copy_from_slice(&[0, 19]))]
#[case::total_of_nothing(|ip: &mut Vec<u8>| ip[2..4].copy_from_slice(&[0, 0]))]
fn an_ipv4_header_that_contradicts_itself_is_bad(#[case] spoil: impl FnOnce(&mut Vec<u8>)) {
    lab().send_dropped(&spoilt(true, Kind::Tcp, spoil), DropReason::BadHeader);
}

#[rstest]
fn an_ipv6_header_of_another_version_is_bad(#[values(0x00, 0x45, 0x70, 0xf0)] first: u8) {
    lab().send_dropped(&spoilt(false, Kind::Tcp, |ip| ip[0] = first), DropReason::BadHeader);
}

/// The packet ends by its own length, whatever the frame holds behind it.
#[rstest]
#[case::no_port(Kind::Tcp, 0)]
#[case::half_the_ports(Kind::Udp, 2)]
#[case::udp_without_its_length(Kind::Udp, 4)]
#[case::udp_one_byte_short(Kind::Udp, 7)]
#[case::tcp_ports_alone(Kind::Tcp, 4)]
#[case::tcp_one_byte_short(Kind::Tcp, 19)]
fn a_packet_that_ends_in_its_l4_header_is_truncated(
    #[case] kind: Kind,
    #[case] upper: u16,
    #[values(true, false)] four: bool,
) {
    let sent = spoilt(four, kind, |ip| {
        if four {
            ip[2..4].copy_from_slice(&(20 + upper).to_be_bytes());
        } else {
            ip[4..6].copy_from_slice(&upper.to_be_bytes());
        }
    });
    lab().send_dropped(&sent, DropReason::Truncated);
}

#[rstest]
#[case::tcp_offset_0(Kind::Tcp, 12, 0x00)]
#[case::tcp_offset_16_bytes(Kind::Tcp, 12, 0x40)]
#[case::tcp_offset_beyond_the_packet(Kind::Tcp, 12, 0xf0)]
#[case::udp_longer_than_ip(Kind::Udp, 4, 0x10)]
fn an_l4_header_that_contradicts_itself_is_bad(
    #[case] kind: Kind,
    #[case] at: usize,
    #[case] value: u8,
    #[values(true, false)] four: bool,
) {
    let header = if four { 20 } else { 40 };
    let mut packet = packet(Way::Own4, four, kind);
    packet.payload.truncate(20);
    let mut ip = packet.ip();
    ip[header + at] = value;
    lab().send_dropped(&frame(&ip), DropReason::BadHeader);
}

#[rstest]
fn a_udp_length_shorter_than_its_header_is_bad(#[values(true, false)] four: bool, #[values(0, 7)] length: u8) {
    let header = if four { 20 } else { 40 };
    let sent = spoilt(four, Kind::Udp, |ip| ip[header + 4..header + 6].copy_from_slice(&[0, length]));
    lab().send_dropped(&sent, DropReason::BadHeader);
}

/// Bytes between the end of UDP and the end of IP are legal and carried along (RFC 768 says nothing against them).
#[rstest]
fn a_udp_datagram_shorter_than_its_packet_is_carried_whole(#[values(true, false)] four: bool) {
    let packet = packet(Way::Own4, four, Kind::Udp);
    let header = if four { 20 } else { 40 };
    let mut ip = packet.ip();
    ip[header + 4..header + 6].copy_from_slice(&[0, 9]);
    let want = encapsulated(Way::Own4, &packet, &ip);
    lab().send_becomes(&frame(&ip), Verdict::Tx, &[Event::Encapsulated], &want);
}

/// The frame's other bytes are not the packet's: ports are never read from padding.
#[rstest]
fn padding_is_never_read_as_ports(#[values(true, false)] four: bool) {
    let empty = Packet::new(client(four), vip(four), Upper::Other(6)).payload([]);
    let mut sent = frame(&empty.ip());
    sent.extend_from_slice(&packet(Way::Own4, four, Kind::Tcp).upper());
    lab().send_dropped(&sent, DropReason::Truncated);
}

/// An IPv4 packet under IPv6's EtherType, and the other way round: for nobody, or bad, never sent.
#[rstest]
fn the_ethertype_decides_what_is_read(#[values(true, false)] four: bool) {
    let ip = packet(Way::Own4, four, Kind::Tcp).ip();
    let sent = ethernet(&[], if four { 0x86dd } else { 0x0800 }, &ip);
    lab().send_untouched(&sent);
}

/// An IPv4 VIP written as an IPv4-mapped IPv6 address is another address: no packet's (RFC 4291).
#[test]
fn an_ipv4_mapped_destination_is_no_vip() {
    let mut ip = packet(Way::Own4, false, Kind::Tcp).ip();
    ip[24..40].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 10]);
    lab().send_untouched(&frame(&ip));
}

/// Who is no host is not answered: groups, loopback, nobody; nor is a frame that was for all.
#[rstest]
fn no_answer_goes_to_who_is_no_host(
    #[values("0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1")] source: &str,
) {
    let source: std::net::IpAddr = source.parse().unwrap();
    let four = source.is_ipv4();
    let ping = Packet::icmp(source, vip(four), if four { 8 } else { 128 }, 0, [0; 4]);
    let mut big = packet(Way::Small4, four, Kind::Udp).total_length(1400);
    big.source = source;
    for packet in [ping, big] {
        let outcome = lab().send(&frame(&packet.ip()));
        assert_eq!(outcome.verdict, Verdict::Drop, "{:?}", outcome.events());
    }
}

#[rstest]
fn no_answer_goes_to_a_frame_that_was_for_all(#[values(true, false)] four: bool) {
    let ping = Packet::icmp(client(four), vip(four), if four { 8 } else { 128 }, 0, [0; 4]);
    for group in [[0xff; 6], [0x01, 0, 0x5e, 0, 0, 1]] {
        let mut sent = padded(frame(&ping.ip()), 60);
        sent[..6].copy_from_slice(&group);
        assert_eq!(lab().send(&sent).verdict, Verdict::Drop);
    }
}
