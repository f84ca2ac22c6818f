//! Whole conversations of clients with an ordinary pod through `guenon simulate --hook both`: what comes of each packet is
//! what scapy builds, flows are remembered from packet to packet, and tshark finds no fault.
//! Needs root (CAP_BPF, CAP_NET_ADMIN), scapy and tshark.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as loudly as tests do")]
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use guenon_controller::simulate::capture::Capture;
use rstest::rstest;
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/simulate-nat")
}

/// What a command says; it must go well.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("cannot run {command:?}: {error}; `cargo xtask setup` installs what tests need")
    });
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn frames(file: &Path) -> Vec<Vec<u8>> {
    let mut capture = Capture::open(file).unwrap();
    std::iter::from_fn(|| capture.next_frame().unwrap()).map(|frame| frame.data).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where scapy has written all conversations: what the node's hooks see, and what must come of it. See conversation.py.
fn conversations() -> &'static Path {
    static WRITTEN: OnceLock<PathBuf> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("simulate-nat");
        std::fs::create_dir_all(&directory).unwrap();
        scapy(&directory, [PORT, PORT]);
        // From which port the pod hears the last connection is for the program to choose.
        let ports = [true, false].map(|four| {
            let (_, got) = Conversation { directory: &directory, four, tunnelled: false }.replay("both");
            let at = if four { 34 } else { 54 };
            u16::from_be_bytes([got[LAST][at], got[LAST][at + 1]])
        });
        assert!(ports.iter().all(|port| *port != PORT), "a direct connection has port {PORT}: {ports:?}");
        scapy(&directory, ports);
        directory
    })
}

/// Packets of a conversation, the first of its last connection, and the client's port.
const PACKETS: usize = 22;
const LAST: usize = 17;
const PORT: u16 = 40_000;

fn scapy(directory: &Path, others: [u16; 2]) {
    // Debian's python has Debian's scapy; another one on PATH may not.
    let mut scapy = Command::new("/usr/bin/python3");
    scapy.arg(fixtures().join("conversation.py")).arg(directory);
    said(scapy.args(others.map(|port| port.to_string())));
}

/// One of them.
struct Conversation<'a> {
    directory: &'a Path,
    four: bool,
    tunnelled: bool,
}

impl Conversation<'_> {
    fn new(four: bool, tunnelled: bool) -> Self {
        Self { directory: conversations(), four, tunnelled }
    }

    fn file(&self, which: &str) -> PathBuf {
        let family = if self.four { "four" } else { "six" };
        let way = if self.tunnelled { "tunnelled" } else { "direct" };
        self.directory.join(format!("{family}-{way}-{which}.pcap"))
    }

    /// Replays it into this file; the lines of JSON.
    fn replay_to(&self, hook: &str, out: &Path) -> Vec<Value> {
        let mut guenon = Command::new(env!("CARGO_BIN_EXE_guenon"));
        guenon.args(["simulate", "--hook", hook, "-o", "json"]).env_remove("GUENON_HASH_KEY_FILE");
        guenon.arg("--manifests").arg(fixtures().join("manifests")).arg("--view").arg(fixtures().join("view.yaml"));
        guenon.arg("--in").arg(self.file("in")).arg("--out").arg(out);
        said(&mut guenon).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Replays it; the lines of JSON, and the frames that came out.
    fn replay(&self, hook: &str) -> (Vec<Value>, Vec<Vec<u8>>) {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out.pcap");
        let lines = self.replay_to(hook, &out);
        (lines, frames(&out))
    }
}

#[rstest]
fn every_packet_becomes_what_scapy_builds(#[values(true, false)] four: bool, #[values(true, false)] tunnelled: bool) {
    let conversation = Conversation::new(four, tunnelled);
    let ((_, got), wanted) = (conversation.replay("both"), frames(&conversation.file("wanted")));
    assert_eq!((got.len(), wanted.len()), (PACKETS, PACKETS));
    for (number, (got, wanted)) in (1..).zip(got.iter().zip(&wanted)) {
        assert!(got == wanted, "packet {number}\n   got {}\nwanted {}", hex(got), hex(wanted));
    }
}

#[rstest]
fn each_packet_has_a_line_that_says_how(#[values(true, false)] four: bool, #[values(true, false)] tunnelled: bool) {
    const HTTP: &str = "80/TCP";
    const ECHO: &str = "7777/UDP";
    let (vip, pod) = if four { ("203.0.113.20", "10.33.1.10") } else { ("[2001:db8:f::20]", "2001:db8:331::10") };
    // In through the VIP, to the pod itself, and out.
    let (http, echo, direct, out) = (Some(HTTP), Some(ECHO), None, Some(""));
    let wanted = [
        [http, out, http, http, out, out, out, http, out].as_slice(),
        // A datagram, its answer, an ICMP error about that.
        &[echo, out, echo],
        // The pod itself, and the VIP again.
        &[direct, out, direct, direct, out],
        &[http, out, http, http, out],
    ]
    .concat();
    let (lines, _) = Conversation::new(four, tunnelled).replay("both");
    assert_eq!(lines.len(), wanted.len());
    for (line, wanted) in lines.iter().zip(wanted) {
        assert_eq!((&line["verdict"], &line["reason"]), (&Value::from("PASS"), &Value::Null), "{line}");
        let leaves = wanted == out;
        let (program, interface) = if leaves { ("guenon_egress", Some("eth0")) } else { ("guenon", None) };
        assert_eq!((line["program"].as_str(), line["interface"].as_str()), (Some(program), interface), "{line}");
        let frontend = wanted.filter(|_| !leaves).map(|port| format!("{vip}:{port}"));
        assert_eq!(line["frontend"].as_str(), frontend.as_deref(), "{line}");
        assert_eq!(line["service"].as_str(), frontend.as_ref().map(|_| "demo/pods"), "{line}");
        assert_eq!(line["endpoint"].as_str(), frontend.as_ref().map(|_| pod), "{line}");
    }
}

#[rstest]
fn tshark_finds_no_fault_in_what_comes_out(#[values(true, false)] four: bool, #[values(true, false)] tunnelled: bool) {
    const SUMS: [&str; 5] = [
        "ip.checksum.status",
        "tcp.checksum.status",
        "udp.checksum.status",
        "icmp.checksum.status",
        "icmpv6.checksum.status",
    ];
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out.pcap");
    Conversation::new(four, tunnelled).replay_to("both", &out);
    let mut tshark = Command::new("tshark");
    tshark.arg("-n").arg("-r").arg(&out);
    for checked in ["ip", "tcp", "udp"] {
        tshark.args(["-o", &format!("{checked}.check_checksum:TRUE")]);
    }
    tshark.args(["-T", "fields", "-E", "separator=|", "-E", "occurrence=f", "-e", "_ws.malformed"]);
    SUMS.iter().for_each(|field| {
        tshark.args(["-e", field]);
    });
    let lines = said(&mut tshark);
    assert_eq!(lines.lines().count(), PACKETS, "{lines}");
    for line in lines.lines() {
        let values: Vec<&str> = line.split('|').collect();
        assert_eq!(values[0], "", "malformed: {line}");
        assert_eq!(values[1], if four { "1" } else { "" }, "IPv4: {line}");
        // An ICMP error has its own, and that of the datagram that it quotes, of which no more than a part is there.
        let error = !values[4].is_empty() || !values[5].is_empty();
        let own = if error { &values[4..] } else { &values[2..4] };
        assert_eq!(own.concat(), "1", "{line}");
    }
}

/// The state that flows leave is what makes replies the VIP's: alone, the program on the way out leaves all as it is.
#[rstest]
fn replies_alone_are_left_as_they_are(#[values(true, false)] four: bool) {
    let conversation = Conversation::new(four, false);
    let (_, got) = conversation.replay("egress");
    assert!(got == frames(&conversation.file("in")));
}
