//! Delivery `Nat`, read by others: tshark finds no fault in what leaves either program, and scapy, which translates the same
//! packets itself, comes to the same bytes.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;

use guenon_ebpf::abi::Event;

use crate::nat_in::{caller, pod, target, web};
use crate::readers::{capture, read};
use crate::support::bed::{client, vip};
use crate::support::frame::frame;
use crate::support::guest;
use crate::support::nat::{NEXT, Node, PASS};
use crate::support::packet::{DESTINATION_OPTIONS, Packet};
use crate::support::segment::{ACK, RST, Segment, data, syn, syn_ack};

/// IP packets as they were and as they left; those of datagrams in fragments come in order.
struct Translated {
    before: Vec<Vec<u8>>,
    after: Vec<Vec<u8>>,
}

/// Everything that a client and a pod send each other: in, then out, both families.
fn whole() -> Translated {
    let mut all = Translated { before: Vec::new(), after: Vec::new() };
    let mut node = Node::new();
    for four in [true, false] {
        let (caller, web, target) = (caller(four), web(four), target(four));
        let mut go = |back: bool, ip: Vec<u8>| all.go(&mut node, pod(four), back, ip);
        go(false, syn(1000).ip(caller, web));
        go(true, syn_ack(1001).ip(target, caller));
        for payload in [&b""[..], b"odd", b"even", &[0xff; 1400], &[0; 1399]] {
            for (back, from, to) in [(false, caller, web), (true, target, caller)] {
                go(back, data(payload).ip(from, to));
                go(back, Packet::udp(from, to).payload(payload).ip());
                let dressed = Packet::udp(from, to).payload(payload).traffic_class(0b10_1110, 1);
                go(
                    back,
                    if four {
                        dressed.options(&[0x94, 4, 0, 0])
                    } else {
                        dressed.extension(DESTINATION_OPTIONS, &[1, 4, 0, 0, 0, 0])
                    }
                    .ip(),
                );
            }
        }
        // Errors about either direction, with whole quotes.
        let kinds: &[(u8, u8)] = if four { &[(3, 1), (3, 3), (3, 4), (11, 0)] } else { &[(1, 4), (2, 0), (3, 0)] };
        for (kind, code) in kinds.iter().copied() {
            for (back, sender, receiver, to) in [(false, web, caller, vip(four)), (true, caller, target, client(four))]
            {
                let from = if back { pod(four) } else { client(four) };
                for quote in
                    [data(&[3; 101]).ip(sender, receiver), Packet::udp(sender, receiver).payload([3; 100]).ip()]
                {
                    go(back, Packet::icmp(from, to, kind, code, [0, 0, 5, 0]).payload(quote).ip());
                }
            }
        }
        for flags in [ACK | 1, RST] {
            go(false, Segment { flags, ..data(b"") }.ip(caller, web));
            go(true, Segment { flags, ..data(b"") }.ip(target, caller));
        }
    }
    all
}

/// Datagrams in two fragments, in and out.
fn in_parts() -> Translated {
    let mut all = Translated { before: Vec::new(), after: Vec::new() };
    let mut node = Node::new();
    for four in [true, false] {
        let ends: [(bool, SocketAddr, SocketAddr); 2] =
            [(false, caller(four), web(four)), (true, target(four), caller(four))];
        for (id, (back, from, to)) in (5..).zip(ends) {
            for part in Packet::udp(from, to).payload(vec![7; 1001]).df(false).id(id).fragments(512) {
                all.go(&mut node, pod(four), back, part);
            }
        }
    }
    all
}

impl Translated {
    #[track_caller]
    fn go(&mut self, node: &mut Node, pod: IpAddr, back: bool, ip: Vec<u8>) {
        let (run, got) = if back { node.leave(&ip) } else { node.deliver(pod, &ip) };
        let (action, event) = if back { (NEXT, Event::ReplyTranslated) } else { (PASS, Event::Translated) };
        assert!(run.action == action && run.events.contains(&event), "{run:?}");
        self.before.push(ip);
        self.after.push(got);
    }
}

fn write(packets: &[Vec<u8>], file: &Path) {
    capture(packets.iter().map(|ip| frame(ip)), file);
}

#[test]
fn tshark_finds_no_fault() {
    const FIELDS: [&str; 6] = [
        "_ws.malformed",
        "ip.checksum.status",
        "tcp.checksum.status",
        "udp.checksum.status",
        "icmp.checksum.status",
        "icmpv6.checksum.status",
    ];
    if guest::skips("tshark") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("after.pcap");
    let (whole, parts) = (whole(), in_parts());
    write(&[&whole.after[..], &parts.after].concat(), &file);
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(&file);
    for checked in ["ip", "udp", "tcp"] {
        command.arg("-o").arg(format!("{checked}.check_checksum:TRUE"));
    }
    command.args(["-T", "fields", "-E", "separator=|", "-E", "occurrence=a", "-E", "aggregator=;"]);
    FIELDS.iter().for_each(|field| {
        command.args(["-e", field]);
    });
    let lines = read(&mut command);
    assert_eq!(lines.len(), whole.after.len() + parts.after.len());
    let mut reassembled = 0;
    for (number, line) in lines.iter().enumerate() {
        let values: Vec<&str> = line.split('|').collect();
        assert_eq!(values[0], "", "malformed: frame {number}: {line}");
        // Every sum there is: of IPv4 headers and of what they carry, those that errors quote included.
        let sums: Vec<&str> =
            values[1..].iter().flat_map(|sums| sums.split(';')).filter(|sum| !sum.is_empty()).collect();
        assert!(sums.iter().all(|sum| *sum == "1"), "frame {number}: {line}");
        let transports = values[2..].iter().filter(|sums| !sums.is_empty()).count();
        if number < whole.after.len() {
            assert!(transports > 0, "frame {number} has no checksum: {line}");
        } else {
            reassembled += transports;
        }
    }
    assert_eq!(reassembled, 4, "a datagram from two fragments, for each of its direction and family");
}

#[test]
fn scapy_comes_to_the_same_bytes() {
    if guest::skips("scapy") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let whole = whole();
    write(&whole.before, &file("before.pcap"));
    write(&whole.after, &file("after.pcap"));
    std::fs::write(file("nat.py"), include_str!("nat_scapy.py")).unwrap();
    // Debian's python has Debian's scapy; another one on PATH may not.
    let mut command = Command::new("/usr/bin/python3");
    command.arg(file("nat.py")).arg(file("before.pcap")).arg(file("after.pcap"));
    for four in [true, false] {
        command.args([vip(four).to_string(), pod(four).to_string()]);
    }
    assert_eq!(read(&mut command).len(), whole.after.len(), "scapy reads every packet");
}
