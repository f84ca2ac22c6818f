//! What is on the wire, read by somebody else: tcpdump captures live traffic, tshark judges it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::traffic;
use crate::paths;
use crate::setup::{self, packages};
use crate::shell::cmd;
use crate::topology::layout::Host;
use crate::topology::{Topology, client};

/// Every tunnel packet is well formed, its checksums are right, and what it carries is byte for byte what the director
/// was given.
pub(super) fn wire_format(topology: &mut Topology) -> Result<()> {
    setup::programs(&[packages::READERS])?;
    let given = Capture::start(topology, "t22", "not udp port 6080")?;
    let tunnelled = Capture::start(topology, "t33", "udp port 6080")?;
    traffic::everybody_answers(topology)?;
    traffic::fragments(topology)?;
    let (given, tunnelled) = (given.stop()?, tunnelled.stop()?);

    let bad = "_ws.malformed || _ws.short || ip.checksum.status == 0 || tcp.checksum.status == 0 \
               || udp.checksum.status == 0 || _ws.expert.severity == error";
    let complaints = tshark(&tunnelled, &["-Y", bad])?;
    if !complaints.trim().is_empty() {
        let details = tshark(&tunnelled, &["-Y", bad, "-V", "-x"])?;
        bail!("tshark complains about tunnel packets:\n{details}\n{complaints}");
    }
    let all = tshark(&tunnelled, &["-T", "fields", "-e", "gue_outer.proto"])?;
    ensure!(all.lines().all(|line| !line.is_empty()), "tshark does not take every tunnel packet for GUE");

    let given: BTreeSet<Vec<u8>> = frames(&given)?.iter().filter_map(|frame| Some(frame.get(14..)?.to_vec())).collect();
    let carried = frames(&tunnelled)?;
    ensure!(carried.len() >= 200, "only {} tunnel packets were captured", carried.len());
    for (number, frame) in carried.iter().enumerate() {
        let inner = inner(frame).with_context(|| format!("tunnel packet {number} is cut short"))?;
        ensure!(given.contains(inner), "tunnel packet {number} carries what the director was not given: {inner:02x?}");
    }
    Ok(())
}

/// A running tcpdump.
pub(super) struct Capture {
    tcpdump: Child,
    file: PathBuf,
}

impl Capture {
    /// On a port of the switch. What the switch sends there is seen as it is on the wire, checksums finished.
    pub(super) fn start(topology: &mut Topology, port: &str, filter: &str) -> Result<Self> {
        Self::at(topology, Host::Switch, port, filter)
    }

    /// On a device of any host. Checksums are finished only where no device on the way leaves them to the next.
    pub(super) fn at(topology: &mut Topology, host: Host, device: &str, filter: &str) -> Result<Self> {
        let label = format!("tcpdump-{}-{device}", host.name());
        let file = topology.dir().join(format!("{label}.pcap"));
        let command = topology
            .at(host, "tcpdump")
            .args(["-i", device, "-n", "-s", "0", "-U", "-Z", "root", "--immediate-mode", "-w"])
            .arg(&file)
            .args(filter.split(' '));
        let tcpdump = topology.start(command, &label)?;
        let log = topology.log(&label);
        client::patiently(|| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if said.contains("listening on") { Ok(()) } else { bail!("tcpdump does not start: {said}") }
        })?;
        Ok(Self { tcpdump, file })
    }

    pub(super) fn stop(mut self) -> Result<PathBuf> {
        std::thread::sleep(Duration::from_millis(300)); // what is under way
        kill(Pid::from_raw(self.tcpdump.id().cast_signed()), Signal::SIGTERM).context("cannot end tcpdump")?;
        self.tcpdump.wait().context("cannot wait for tcpdump")?;
        Ok(self.file)
    }
}

/// What tshark says of a capture. It checks every checksum.
pub(super) fn tshark(file: &Path, args: &[&str]) -> Result<String> {
    // tshark has a dissector of its own for GUE from 4.2 on.
    let gue = paths::root().join("crates/controller/tests/packets/gue.lua");
    cmd("tshark")
        .args(["-n", "-X", &format!("lua_script:{}", gue.display()), "-r"])
        .arg(file)
        .args(["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"])
        // Tunnels over IPv6 may leave the UDP checksum out: RFC 6935, RFC 6936.
        .args(["-o", "udp.ignore_ipv6_zero_checksum:TRUE"])
        .args(args)
        .limit(Duration::from_secs(60))
        .read()
}

/// The frames of a pcap file in this machine's byte order.
pub(super) fn frames(file: &Path) -> Result<Vec<Vec<u8>>> {
    const FILE_HEADER: usize = 24;
    const RECORD_HEADER: usize = 16;
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut rest = bytes.get(FILE_HEADER..).context("a pcap file without a header")?;
    let mut frames = Vec::new();
    while let Some(header) = rest.first_chunk::<RECORD_HEADER>() {
        let length = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let Some(frame) = rest.get(RECORD_HEADER..RECORD_HEADER + length) else { break };
        frames.push(frame.to_vec());
        rest = &rest[RECORD_HEADER + length..];
    }
    Ok(frames)
}

/// What is inside Ethernet, IP without options, UDP and GUE.
fn inner(frame: &[u8]) -> Option<&[u8]> {
    const ETHERNET: usize = 14;
    const UDP: usize = 8;
    let ip = if frame.get(ETHERNET)? >> 4 == 4 { 20 } else { 40 };
    let gue = ETHERNET + ip + UDP;
    let private = usize::from(frame.get(gue)? & 31) * 4;
    frame.get(gue + 4 + private..)
}
