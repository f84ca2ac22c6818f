//! `guenon simulate` as its users call it: manifests, a view and a capture in; lines and a capture out.
//! Needs root (CAP_BPF, CAP_NET_ADMIN), and tshark for the check by an independent reader.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as loudly as tests do")]
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, PacketBuilder};
use guenon_controller::simulate::capture::{Capture, Frame, Resolution, Writer};
use serde_json::Value;

const CLIENT: [u8; 4] = [198, 51, 100, 7];
const VIP: [u8; 4] = [203, 0, 113, 10];
const T22: [u8; 4] = [172, 17, 2, 2];
const T33: [u8; 4] = [172, 17, 3, 3];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const T22_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x16];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/simulate")
}

fn guenon(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_guenon"))
        .args(arguments)
        .env_remove("GUENON_HASH_KEY_FILE")
        .env_remove("GUENON_DIRECTOR")
        .output()
        .expect("guenon runs")
}

/// A directory with a capture, and the command line that replays it.
struct Replay {
    directory: tempfile::TempDir,
    manifests: PathBuf,
    view: PathBuf,
}

impl Replay {
    fn of(frames: &[Vec<u8>]) -> Self {
        let replay = Self {
            directory: tempfile::tempdir().unwrap(),
            manifests: fixtures().join("manifests"),
            view: fixtures().join("view.yaml"),
        };
        let mut writer = Writer::create(&replay.input(), Resolution::NanoSecond).unwrap();
        for (second, frame) in (1..).zip(frames) {
            writer.write((second, 123_456_789), frame, 0).unwrap();
        }
        writer.finish().unwrap();
        replay
    }
    fn of_bytes(bytes: &[u8]) -> Self {
        let replay = Self::of(&[]);
        std::fs::write(replay.input(), bytes).unwrap();
        replay
    }
    fn input(&self) -> PathBuf {
        self.directory.path().join("in.pcap")
    }
    fn output(&self) -> PathBuf {
        self.directory.path().join("out.pcap")
    }
    fn run(&self, more: &[&str]) -> Output {
        let (input, output) = (self.input(), self.output());
        let mut arguments = vec!["simulate", "--manifests", self.manifests.to_str().unwrap()];
        arguments.extend(["--view", self.view.to_str().unwrap()]);
        arguments.extend(["--in", input.to_str().unwrap(), "--out", output.to_str().unwrap()]);
        arguments.extend(more);
        guenon(&arguments)
    }
    /// The lines of JSON; it must have gone well.
    fn lines(&self, more: &[&str]) -> Vec<Value> {
        let mut arguments = vec!["-o", "json"];
        arguments.extend(more);
        let output = self.run(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
    /// What it says when it refuses: nothing is written then.
    fn refusal(&self, more: &[&str]) -> String {
        let output = self.run(more);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(output.stdout.is_empty() && !self.output().exists(), "something was written, with {error}");
        error
    }
    fn frames_out(&self) -> Vec<Frame> {
        let mut capture = Capture::open(&self.output()).unwrap();
        std::iter::from_fn(|| capture.next_frame().unwrap()).collect()
    }
}

fn bytes(builder: etherparse::PacketBuilderStep<etherparse::TcpHeader>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    builder.write(&mut bytes, payload).unwrap();
    bytes
}

fn tcp(port: u16) -> Vec<u8> {
    tcp_from(40_000, port)
}

fn tcp_from(source: u16, port: u16) -> Vec<u8> {
    let ip = PacketBuilder::ethernet2(ROUTER_MAC, T22_MAC).ipv4(CLIENT, VIP, 64);
    bytes(ip.tcp(source, port, 1, 64_000).syn(), &[])
}

fn tcp6() -> Vec<u8> {
    let (client, vip) = (ip6("2001:db8:f::7"), ip6("2001:db8::10"));
    bytes(PacketBuilder::ethernet2(ROUTER_MAC, T22_MAC).ipv6(client, vip, 64).tcp(40_000, 80, 1, 64_000).syn(), &[])
}

fn udp(source: [u8; 4], destination: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ip = PacketBuilder::ethernet2(ROUTER_MAC, T22_MAC).ipv4(source, destination, 64);
    ip.udp(50_000, port).write(&mut bytes, payload).unwrap();
    bytes
}

fn ping() -> Vec<u8> {
    let mut bytes = Vec::new();
    let ip = PacketBuilder::ethernet2(ROUTER_MAC, T22_MAC).ipv4(CLIENT, VIP, 64);
    ip.icmpv4_echo_request(1, 2).write(&mut bytes, b"hello").unwrap();
    bytes
}

/// What a director at `source` would send for the namespace's endpoint: its private data names it.
fn gue(source: [u8; 4], inner: &[u8]) -> Vec<u8> {
    let mut payload = vec![0x02, 4, 0, 0, 1, 0, 0, 0, 10, 22, 0, 2];
    payload.extend(&inner[14..]);
    udp(source, T22, 6080, &payload)
}

/// A part of a UDP datagram for a frontend: the first has the ports.
fn fragment(offset: u16, payload: &[u8]) -> Vec<u8> {
    let mut ip = Ipv4Header::new(payload.len() as u16, 64, IpNumber::UDP, CLIENT, VIP).unwrap();
    ip.identification = 77;
    ip.dont_fragment = false;
    ip.more_fragments = offset == 0;
    ip.fragment_offset = IpFragOffset::try_new(offset / 8).unwrap();
    ip.header_checksum = ip.calc_header_checksum();
    let mut bytes = Vec::new();
    bytes.extend(T22_MAC);
    bytes.extend(ROUTER_MAC);
    bytes.extend([8, 0]);
    bytes.extend(ip.to_bytes());
    bytes.extend(payload);
    bytes
}

/// The two fragments of a datagram to UDP port 9000, in order.
fn fragments() -> [Vec<u8>; 2] {
    let datagram = &udp(CLIENT, VIP, 9000, &[b'x'; 56])[34..];
    [fragment(0, &datagram[..32]), fragment(32, &datagram[32..])]
}

fn ip6(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

fn packets() -> Vec<Vec<u8>> {
    let mut arp = vec![0xff; 6];
    arp.extend(ROUTER_MAC);
    arp.extend([8, 6]);
    arp.resize(60, 0);
    // Source ports that pick each of the three endpoints.
    let mut packets: Vec<Vec<u8>> = (40_000..40_008).map(|port| tcp_from(port, 80)).collect();
    packets.extend([
        tcp6(),
        tcp(81),
        udp(CLIENT, VIP, 5000, b"for nobody"),
        udp(CLIENT, [192, 0, 2, 1], 7777, b"for somebody else"),
        ping(),
        arp,
        gue(T33, &tcp(80)),
        gue(CLIENT, &tcp(80)),
        gue(T33, &fragments()[1]),
        fragments()[0].clone(),
        fragments()[1].clone(),
        fragment(64, &[b'y'; 8]),
        udp(CLIENT, VIP, 9000, &[0; 8000]),
        vec![2, 0, 0, 0, 0, 0x16],
    ]);
    packets
}

#[test]
fn each_packet_has_a_line_of_the_documented_json() {
    let replay = Replay::of(&packets());
    let output = replay.run(&["-o", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    insta::assert_snapshot!("lines", String::from_utf8(output.stdout).unwrap());
}

#[test]
fn people_get_a_table_and_a_summary() {
    let output = Replay::of(&packets()).run(&[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    insta::assert_snapshot!("table", String::from_utf8(output.stdout).unwrap());
}

#[test]
fn every_frame_that_left_is_in_the_output_in_order_with_its_time() {
    let replay = Replay::of(&packets());
    let lines = replay.lines(&["--hex"]);
    let left: Vec<&Value> = lines
        .iter()
        .filter(|line| ["PASS", "TX", "REDIRECT"].iter().any(|verdict| line["verdict"] == *verdict))
        .collect();
    let frames = replay.frames_out();
    assert_eq!(frames.len(), left.len());
    for (frame, line) in frames.iter().zip(left) {
        let hex: String = frame.data.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(line["frame"].as_str(), Some(hex.as_str()), "{line}");
        assert_eq!(line["length"].as_u64(), Some(frame.data.len() as u64), "{line}");
        assert_eq!(Some(u64::from(frame.timestamp.0)), line["packet"].as_u64(), "seconds are the packet's number here");
        assert_eq!(frame.timestamp.1, 123_456_789);
    }
    for line in lines.iter().filter(|line| line["verdict"] == "DROP") {
        assert!(line["frame"].is_null(), "{line}");
    }
}

#[test]
fn tshark_reads_the_output_without_complaint() {
    let replay = Replay::of(&packets());
    let lines = replay.lines(&[]);
    let tshark = Command::new("tshark")
        .args(["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"])
        .args(["-T", "fields", "-e", "frame.number", "-e", "_ws.malformed", "-e", "_ws.expert.message", "-r"])
        .arg(replay.output())
        .output()
        .expect("tshark is installed (`cargo xtask setup`)");
    let errors = String::from_utf8_lossy(&tshark.stderr);
    let complaints: Vec<&str> = errors.lines().filter(|line| !line.starts_with("Running as user")).collect();
    assert!(tshark.status.success() && complaints.is_empty(), "{complaints:?}");
    let text = String::from_utf8(tshark.stdout).unwrap();
    let left = lines.iter().filter(|line| !line["interface"].is_null() || line["verdict"] == "PASS").count();
    assert_eq!(text.lines().count(), left);
    for line in text.lines() {
        let lower = line.to_lowercase();
        assert!(!lower.contains("malformed") && !lower.contains("bad") && !lower.contains("truncated"), "{line}");
    }
}

#[test]
fn a_packet_that_was_captured_in_part_is_said_to_be() {
    let replay = Replay::of(&[]);
    let mut writer = Writer::create(&replay.input(), Resolution::MicroSecond).unwrap();
    let whole = udp(CLIENT, VIP, 80, &[0; 1000]);
    writer.write((1, 0), &whole[..96], whole.len() as u32 - 96).unwrap();
    writer.finish().unwrap();
    let lines = replay.lines(&[]);
    assert_eq!((&lines[0]["verdict"], &lines[0]["reason"]), (&Value::from("DROP"), &Value::from("truncated")));
    let note = lines[0]["note"].as_str().unwrap();
    assert!(note.contains("only 96 of its 1042 bytes") && note.contains("tcpdump -s 0"), "{note}");
}

#[test]
fn packets_come_in_on_the_interface_that_is_named() {
    let lines = Replay::of(&[tcp6()]).lines(&["--interface", "veth-e"]);
    assert_eq!((&lines[0]["verdict"], &lines[0]["interface"]), (&Value::from("REDIRECT"), &Value::from("eth0")));
    let refusal = Replay::of(&[]).refusal(&["--interface", "eth7"]);
    assert!(refusal.contains("no interface `eth7`; it has `eth0`, `veth-e`"), "{refusal}");
}

#[test]
fn a_packet_that_the_node_has_sent_runs_through_the_program_on_the_way_out() {
    let mut sent = tcp(443);
    sent[..6].copy_from_slice(&ROUTER_MAC);
    sent[6..12].copy_from_slice(&T22_MAC);
    let replay = Replay::of(&[tcp(443), sent.clone()]);
    let programs = |lines: Vec<Value>| lines.iter().map(|line| line["program"].clone()).collect::<Vec<_>>();
    assert_eq!(programs(replay.lines(&["--hook", "both"])), ["guenon", "guenon_egress"]);
    assert_eq!(programs(replay.lines(&[])), ["guenon", "guenon"]);
    let lines = replay.lines(&["--hook", "egress"]);
    assert_eq!((&lines[1]["verdict"], &lines[1]["interface"]), (&Value::from("PASS"), &Value::from("eth0")));
    assert_eq!(replay.frames_out()[1].data, sent, "what is no reply of a translated flow leaves as it is");
}

#[test]
fn another_key_picks_other_endpoints_and_the_same_key_the_same() {
    let replay = Replay::of(&(40_000..40_064).map(|port| tcp_from(port, 80)).collect::<Vec<_>>());
    let key = replay.directory.path().join("key");
    std::fs::write(&key, "000102030405060708090a0b0c0d0e0f\n").unwrap();
    let with_key = replay.lines(&["--hash-key-file", key.to_str().unwrap()]);
    assert_eq!(with_key, replay.lines(&["--hash-key-file", key.to_str().unwrap()]));
    assert!(with_key != replay.lines(&[]), "both keys pick the same endpoints");
}

#[test]
fn a_director_of_the_command_line_is_known() {
    let lines = Replay::of(&[gue(CLIENT, &tcp(80))]).lines(&["--director", "198.51.100.7"]);
    assert_eq!((&lines[0]["verdict"], &lines[0]["endpoint"]), (&Value::from("REDIRECT"), &Value::from("10.22.0.2")));
}

#[test]
fn problems_of_the_manifests_are_told_and_the_others_are_in_force() {
    let mut replay = Replay::of(&[tcp6()]);
    let manifests = replay.directory.path().join("manifests");
    std::fs::create_dir(&manifests).unwrap();
    std::fs::copy(fixtures().join("manifests/shop.yaml"), manifests.join("shop.yaml")).unwrap();
    std::fs::write(manifests.join("bad.yaml"), "apiVersion: guenon.dev/v1alpha1\nkind: VirtualService\nspec: 5\n")
        .unwrap();
    replay.manifests = manifests;
    let output = replay.run(&["-o", "json"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("bad.yaml"), "{error}");
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["service"], "shop/web6");
}

#[test]
fn an_empty_capture_gives_an_empty_one() {
    let replay = Replay::of(&[]);
    assert!(replay.lines(&[]).is_empty());
    assert!(replay.frames_out().is_empty());
}

mod refused {
    use super::*;

    #[test]
    fn a_capture_that_is_cut_off_before_anything_is_written() {
        let replay = Replay::of(&[tcp(80), tcp(80)]);
        let bytes = std::fs::read(replay.input()).unwrap();
        std::fs::write(replay.input(), &bytes[..bytes.len() - 1]).unwrap();
        let refusal = replay.refusal(&[]);
        assert!(refusal.contains("in.pcap is cut off: it ends within packet 2"), "{refusal}");
    }

    #[test]
    fn a_capture_of_another_link_type() {
        let header = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101];
        let bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        let refusal = Replay::of_bytes(&bytes).refusal(&[]);
        assert!(refusal.contains("link type 101 (RAW)"), "{refusal}");
    }

    #[test]
    fn what_is_no_capture() {
        let refusal = Replay::of_bytes(b"kind: Pod").refusal(&[]);
        assert!(refusal.contains("is no capture: it begins with the bytes 6b696e64"), "{refusal}");
    }

    #[test]
    fn a_capture_that_is_not_there() {
        let replay = Replay::of(&[]);
        std::fs::remove_file(replay.input()).unwrap();
        let refusal = replay.refusal(&[]);
        assert!(refusal.contains("cannot open") && refusal.contains("in.pcap: No such file"), "{refusal}");
    }

    #[test]
    fn an_output_that_is_the_input() {
        let replay = Replay::of(&[tcp(80)]);
        let before = std::fs::read(replay.input()).unwrap();
        let input = replay.input();
        std::os::unix::fs::symlink(&input, replay.directory.path().join("again.pcap")).unwrap();
        let again = replay.directory.path().join("again.pcap");
        let (manifests, view) = (replay.manifests.to_str().unwrap(), replay.view.to_str().unwrap());
        let output = guenon(&[
            "simulate",
            "--manifests",
            manifests,
            "--view",
            view,
            "--in",
            input.to_str().unwrap(),
            "--out",
            again.to_str().unwrap(),
        ]);
        assert!(String::from_utf8_lossy(&output.stderr).contains("are the same file"));
        assert_eq!(std::fs::read(replay.input()).unwrap(), before);
    }

    #[test]
    fn a_view_that_is_none_with_line_and_field() {
        let mut replay = Replay::of(&[]);
        replay.view = replay.directory.path().join("view.yaml");
        for (text, expected) in [
            ("node: a\nroles: [router]\n", "unknown variant `router`"),
            ("node: a\nroles: [decap]\ntunnel: []\ninterfaces: []\n", "`interfaces` is empty"),
            ("node: a\nroles: []\ntunnel: []\ninterfaces: [{name: lo, index: 1, mtu: 65536}]\n", "`roles` is empty"),
            (
                "node: a\nroles: [decap]\ntunnel: []\ninterfaces: [{name: lo, index: one, mtu: 1}]\n",
                "interfaces[0].index",
            ),
            ("node: [", "line 1"),
        ] {
            std::fs::write(&replay.view, text).unwrap();
            let refusal = replay.refusal(&[]);
            assert!(refusal.contains("view.yaml is no view") && refusal.contains(expected), "{refusal}");
        }
    }

    #[test]
    fn a_directory_of_manifests_that_is_not_there() {
        let mut replay = Replay::of(&[]);
        replay.manifests = replay.directory.path().join("none");
        let refusal = replay.refusal(&[]);
        assert!(refusal.contains("cannot read the directory of manifests"), "{refusal}");
    }
}
