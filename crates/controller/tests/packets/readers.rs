//! What leaves, read by others: tshark and scapy find no fault, every checksum right, and the inner packet byte for byte.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use guenon_controller::simulate::sandbox::Verdict;
use guenon_ebpf::abi::Event;
use pcap_file::pcap::{PcapPacket, PcapWriter};

use crate::encapsulation::{Kind, packet};
use crate::support::bed::Way;
use crate::support::expect::hex;
use crate::support::frame::frame;
use crate::support::guest;
use crate::support::lab::lab;
use crate::support::packet::DESTINATION_OPTIONS;

/// A frame that left, the packet that it carries, and what its private data must be.
struct Sent {
    frame: Vec<u8>,
    inner: Vec<u8>,
    private: String,
}

/// Everything that can be sent into a tunnel: all ways, families, kinds, sizes.
fn sent() -> Vec<Sent> {
    let ways = [
        (Way::Own4, ""),
        (Way::Own6, ""),
        (Way::Pod4In4, "010000000a000007"),
        (Way::Pod6In4, "0100000120010db8f00d00000000000000000007"),
        (Way::Pod4In6, "010000020a000007"),
        (Way::Pod6In6, "0100000320010db8f00d00000000000000000007"),
        (Way::OtherInterface, ""),
        (Way::OneTag, ""),
        (Way::TwoTags, ""),
    ];
    let mut all = Vec::new();
    let mut lab = lab();
    for (way, private) in ways {
        for four in [true, false] {
            for kind in [Kind::Tcp, Kind::Syn, Kind::Udp, Kind::EmptyUdp] {
                let plain = packet(way, four, kind);
                let mut variants = vec![plain.clone(), plain.clone().traffic_class(0b10_1110, 1)];
                variants.push(if four {
                    plain.clone().options(&[0x94, 4, 0, 0])
                } else {
                    plain.clone().extension(DESTINATION_OPTIONS, &[1, 4, 0, 0, 0, 0])
                });
                if matches!(kind, Kind::Tcp | Kind::Udp) {
                    variants.extend([333, 1200, 1428].map(|size| plain.clone().total_length(size)));
                }
                for variant in variants {
                    let inner = variant.ip();
                    let outcome = lab.send(&frame(&inner));
                    assert!(matches!(outcome.verdict, Verdict::Tx | Verdict::Redirect), "{:?}", outcome.reason);
                    assert_eq!(outcome.events(), [Event::Encapsulated]);
                    all.push(Sent { frame: outcome.frame, inner, private: private.to_owned() });
                }
            }
        }
    }
    all
}

pub fn capture(frames: impl Iterator<Item = Vec<u8>>, path: &Path) {
    let mut writer = PcapWriter::new(File::create(path).unwrap()).unwrap();
    for (second, frame) in (1_700_000_000..).zip(frames) {
        writer.write_packet(&PcapPacket::new(Duration::from_secs(second), frame.len() as u32, &frame)).unwrap();
    }
}

/// Runs a reader; its lines.
pub fn read(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap_or_else(|error| {
        panic!("cannot run {command:?}: {error}; `cargo xtask setup` installs what the tests need")
    });
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

const FIELDS: [&str; 14] = [
    "ip.checksum.status",
    "udp.checksum.status",
    "tcp.checksum.status",
    "gue_outer.version",
    "gue_outer.control",
    "gue_outer.flags",
    "gue_outer.hlen",
    "gue_outer.proto",
    "gue_outer.private",
    "gue_outer.inner",
    "_ws.malformed",
    "_ws.expert.severity",
    "_ws.expert.message",
    "ip.ttl",
];

/// tshark's word for a checksum that is right, and for none at all.
const GOOD: &str = "1";
const BAD: &str = "0";
/// Severities from warning on.
const WARNING: u32 = 0x0060_0000;

#[test]
fn tshark_finds_no_fault_and_the_inner_packet_byte_for_byte() {
    if guest::skips("tshark") {
        return;
    }
    let sent = sent();
    let dir = tempfile::tempdir().unwrap();
    let (pcap, lua) = (dir.path().join("sent.pcap"), dir.path().join("gue.lua"));
    capture(sent.iter().map(|sent| sent.frame.clone()), &pcap);
    std::fs::write(&lua, include_str!("gue.lua")).unwrap();
    let mut command = Command::new("tshark");
    command.arg("-r").arg(&pcap).arg("-X").arg(format!("lua_script:{}", lua.display()));
    for checked in ["ip", "udp", "tcp"] {
        command.arg("-o").arg(format!("{checked}.check_checksum:TRUE"));
    }
    // RFC 6935 and 6936: a tunnel over IPv6 needs no UDP checksum.
    command.args(["-o", "udp.ignore_ipv6_zero_checksum:TRUE"]);
    command.args(["-T", "fields", "-E", "separator=|", "-E", "occurrence=a", "-E", "aggregator=;"]);
    FIELDS.iter().for_each(|field| {
        command.args(["-e", field]);
    });
    let lines = read(&mut command);
    assert_eq!(lines.len(), sent.len(), "tshark reads every frame");
    for (number, (line, sent)) in lines.iter().zip(&sent).enumerate() {
        let values: Vec<&str> = line.split('|').collect();
        let field = |name: &str| values[FIELDS.iter().position(|field| *field == name).unwrap()];
        let describe = format!("frame {number}: {line}\n{}", hex(&sent.frame));

        assert!(field("ip.checksum.status").split(';').all(|status| status == GOOD || status.is_empty()), "{describe}");
        assert!(!field("tcp.checksum.status").contains(BAD), "{describe}");
        // The outer sum is absent; the inner one, behind it, is right.
        if let Some((_, inner)) = field("udp.checksum.status").split_once(';') {
            assert_eq!(inner, GOOD, "{describe}");
        }
        assert_eq!(
            (field("gue_outer.version"), field("gue_outer.control"), field("gue_outer.flags")),
            ("0", "0", "0"),
            "{describe}"
        );
        let protocol = if sent.inner[0] >> 4 == 4 { "4" } else { "41" };
        assert_eq!(field("gue_outer.proto"), protocol, "{describe}");
        assert_eq!(field("gue_outer.hlen"), (sent.private.len() / 8).to_string(), "{describe}");
        assert_eq!(field("gue_outer.private").replace(':', ""), sent.private, "{describe}");
        assert_eq!(field("gue_outer.inner").replace(':', ""), hex(&sent.inner), "inner packet, {describe}");
        assert_eq!(field("_ws.malformed"), "", "{describe}");
        let severities = field("_ws.expert.severity").split(';').filter_map(|value| value.parse::<u32>().ok());
        assert_eq!(severities.filter(|severity| *severity >= WARNING).count(), 0, "{describe}");
    }
}

#[test]
fn scapy_builds_the_same_bytes() {
    if guest::skips("scapy") {
        return;
    }
    let sent = sent();
    let dir = tempfile::tempdir().unwrap();
    let (pcap, script) = (dir.path().join("sent.pcap"), dir.path().join("reader.py"));
    capture(sent.iter().map(|sent| sent.frame.clone()), &pcap);
    std::fs::write(&script, include_str!("scapy_reader.py")).unwrap();
    // Debian's python has Debian's scapy; another one on PATH may not.
    let lines = read(Command::new("/usr/bin/python3").arg(&script).arg(&pcap));
    assert_eq!(lines.len(), sent.len(), "scapy reads every frame");
    for (line, sent) in lines.iter().zip(&sent) {
        assert_eq!(line.rsplit(' ').next(), Some(hex(&sent.inner).as_str()), "{line}");
    }
}
