//! Delivery `Nat`, both ways, of established flows: what rewriting adds to decapsulation, and what the program on the way out
//! adds to a packet that leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};
use guenon_controller::model::{
    EndpointState, Frontend, LocalDelivery, Path, Protocol, ServiceName, ServiceState, State,
};
use guenon_controller::simulate::sandbox::{Sandbox, Setup};
use guenon_controller::table::{Builder, Candidate, Group};
use guenon_ebpf::abi::{Address, ROLE_DECAP, ROLE_DIRECTOR};
use guenon_ebpf::hash::{DEFAULT_KEY, Schedule};
use guenon_ebpf::nat;

use crate::datapath::{in_gue, template};
use crate::harness::{Harness, Template, median};
use crate::machine;
use crate::report::{Figure, Report};
use crate::scene::{self, DEVICE_MAC, DIRECTOR, GATEWAY_MAC, SELF};

/// Where the endpoint listens.
const TARGET: u16 = 8080;
const ENDPOINT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xe, 0, 0, 0, 0, 5);
/// Of every segment.
const SEQUENCE: u32 = 1;
/// A reply whose checksum is what hardware would be left to finish: the program has to ask the kernel. (In a test run the
/// kernel then says that it is finished, and takes as long to say so.)
const UNFINISHED: &str = "a reply, 1024 flows, checksum for hardware";
/// Flows, as the harness makes them: 2^14 ports of each client address.
const FEW: u64 = 1_024;
const MANY: u64 = 131_072;

pub(crate) fn measure(report: &mut Report, quick: bool) -> anyhow::Result<()> {
    eprintln!("delivery Nat, ns a packet net of the harness:");
    machine::pin(0)?;
    let (rounds, repeat) = if quick { (5, 200_000) } else { (15, 1_000_000) };
    let mut harness = Harness::new()?;
    for (family, vip) in [("IPv4", scene::VIP4), ("IPv6", scene::VIP6)] {
        let mut bed = Bed::new(vip)?;
        bed.establish(MANY)?;
        // In an IPv4 tunnel the packet would have to name an IPv6 endpoint; what that costs is not asked here.
        if vip.is_ipv4() {
            for flows in [FEW, MANY] {
                inwards(report, &mut harness, &bed, flows, (rounds, repeat))?;
            }
        }
        let (endpoint, stranger) = (bed.endpoint(), bed.stranger());
        for (what, from, flows, aim) in [
            ("a port that nobody dials", (stranger, 9), FEW, 15.0),
            ("a target port, but no flow", (stranger, TARGET), FEW, 60.0),
            ("a reply, 1024 flows", (endpoint, TARGET), FEW, 60.0),
            (UNFINISHED, (endpoint, TARGET), FEW, 60.0),
            ("a reply, 131072 flows", (endpoint, TARGET), MANY, 60.0),
        ] {
            let name = format!("on the way out, {family} TCP, {what}");
            let mut packet = bed.answer(0, from, false);
            if what == UNFINISHED {
                leave_unfinished(&mut packet, from.0, client(vip, 0).0);
            }
            let case =
                Case { name, template: template(&packet, flows, 1), translated: from == (endpoint, TARGET), aim };
            outwards(report, &mut harness, &mut bed, case, (rounds, repeat))?;
        }
    }
    Ok(())
}

fn inwards(
    report: &mut Report,
    harness: &mut Harness,
    bed: &Bed,
    flows: u64,
    (rounds, repeat): (usize, u32),
) -> anyhow::Result<()> {
    const HARNESS: &str = "harness_v4_in_v4";
    let name = format!("decap and rewrite, IPv4 in IPv4, {flows} flows");
    let template = template(&in_gue(&bed.question(0, false)), flows, 1);
    let target = bed.sandbox.program().fd()?;
    let outcome = harness.once(HARNESS, target, &template)?;
    let translated = outcome.verdict == 2 && bed.port(&outcome.frame, 2) == TARGET;
    ensure!(translated, "{name}: the packet is not translated");
    let (mut net, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let null = harness.time_own(HARNESS, "guenon_null", &template, repeat)?;
        floor.push(harness.time_own(HARNESS, "guenon_bare_decap", &template, repeat)? - null);
        net.push(harness.time(HARNESS, target, &template, repeat)? - null);
    }
    add(report, name, median(net), Some(median(floor)), 40.0);
    Ok(())
}

/// A packet on its way out.
struct Case {
    name: String,
    template: Template,
    translated: bool,
    aim: f64,
}

fn outwards(
    report: &mut Report,
    harness: &mut Harness,
    bed: &mut Bed,
    case: Case,
    (rounds, repeat): (usize, u32),
) -> anyhow::Result<()> {
    let Case { name, template, translated, aim } = case;
    let program = if bed.vip.is_ipv4() { "harness_out_v4" } else { "harness_out_v6" };
    let target = bed.sandbox.program_mut().egress()?.try_clone()?;
    let frame = harness.once_out(program, &target, &template)?;
    ensure!((bed.port(&frame, 0) == 80) == translated, "{name}: it leaves from port {}", bed.port(&frame, 0));
    let mut net = Vec::new();
    for _ in 0..rounds {
        let null = harness.time_own_out(program, "guenon_out_null", &template, repeat)?;
        net.push(harness.time_out(program, &target, &template, repeat)? - null);
    }
    add(report, name, median(net), None, aim);
    Ok(())
}

fn add(report: &mut Report, name: String, value: f64, floor: Option<f64>, aim: f64) {
    let over = value - floor.unwrap_or(0.0);
    let words = match floor {
        None => format!("<= {aim:.0} ns over the bare program"),
        Some(_) => format!("<= floor + {aim:.0} ns (is {over:+.1})"),
    };
    report.add(Figure { subject: "pods", name, value, unit: "ns", floor, aim: Some((words, over <= aim)) });
}

/// The real programs on maps with one service, whose one endpoint is translated.
struct Bed {
    vip: IpAddr,
    sandbox: Sandbox,
}

impl Bed {
    fn new(vip: IpAddr) -> anyhow::Result<Self> {
        let endpoint = if vip.is_ipv4() { IpAddr::from(SELF) } else { ENDPOINT6.into() };
        let members = vec![Candidate { address: endpoint, weight: 1 }];
        let table =
            Builder::new(&Schedule::new(DEFAULT_KEY)).build(&[Group { name: String::new(), weight: 1, members }]);
        let ports = Arc::new(BTreeMap::from([((Protocol::Tcp, 80), TARGET)]));
        let service = ServiceState {
            frontends: BTreeSet::from([Frontend { vip, protocol: Protocol::Tcp, port: 80 }]),
            client_ip: false,
            endpoints: vec![EndpointState { address: endpoint, path: Path::Local(LocalDelivery::Nat { ports }) }],
            rows: table.rows,
        };
        let state = State {
            tunnels: BTreeSet::from([SELF.into()]),
            directors: BTreeSet::from([DIRECTOR.into()]),
            services: BTreeMap::from([(ServiceName::new("bench", "pods"), Arc::new(service))]),
            ..State::default()
        };
        // As many as an agent remembers by default: of 131,072 none is forgotten.
        let setup = Setup { roles: ROLE_DIRECTOR | ROLE_DECAP, flows: 262_144, ..Setup::default() };
        Ok(Self { vip, sandbox: Sandbox::new(&state, &setup)? })
    }

    /// Handshakes of so many flows, with the director's own endpoint.
    fn establish(&mut self, flows: u64) -> anyhow::Result<()> {
        for flow in 0..flows {
            self.sandbox.run_uncounted(&self.question(flow, true)).context("a SYN")?;
            let answer = self.answer(flow, (self.endpoint(), TARGET), true);
            self.sandbox.run_egress_uncounted(&answer).context("its answer")?;
        }
        Ok(())
    }

    fn endpoint(&self) -> IpAddr {
        if self.vip.is_ipv4() { SELF.into() } else { ENDPOINT6.into() }
    }

    /// An address that no flow has.
    fn stranger(&self) -> IpAddr {
        if self.vip.is_ipv4() { scene::OTHER4 } else { scene::OTHER6 }
    }

    /// From the client to the VIP.
    fn question(&self, flow: u64, syn: bool) -> Vec<u8> {
        let (client, port) = client(self.vip, flow);
        segment((client, port), (self.vip, 80), |tcp| if syn { tcp.syn() } else { tcp.ack(1) })
    }

    /// Back to the client, from there.
    fn answer(&self, flow: u64, from: (IpAddr, u16), syn: bool) -> Vec<u8> {
        segment(from, client(self.vip, flow), |tcp| if syn { tcp.syn().ack(SEQUENCE + 1) } else { tcp.ack(1) })
    }

    /// A port of a plain frame: of its source (`0`) or destination (`2`).
    fn port(&self, frame: &[u8], behind: usize) -> u16 {
        let at = if self.vip.is_ipv4() { 34 } else { 54 } + behind;
        u16::from_be_bytes([frame[at], frame[at + 1]])
    }
}

/// The client's end of a flow, as the harness makes flows.
fn client(vip: IpAddr, flow: u64) -> (IpAddr, u16) {
    let (address, port) = ((flow >> 14) as u32, 20_000 + (flow & 0x3fff) as u16);
    let address = match vip {
        IpAddr::V4(_) => Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 9)) + (address & 0xffff)).into(),
        IpAddr::V6(_) => Ipv6Addr::from(u128::from(scene::CLIENT6) + u128::from(address)).into(),
    };
    (address, port)
}

fn segment(
    (from, source): (IpAddr, u16),
    (to, destination): (IpAddr, u16),
    flags: impl FnOnce(PacketBuilderStep<TcpHeader>) -> PacketBuilderStep<TcpHeader>,
) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(GATEWAY_MAC, DEVICE_MAC);
    let builder = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => builder.ipv4(from.octets(), to.octets(), 64),
        (from, to) => builder.ipv6(v6(from).octets(), v6(to).octets(), 64),
    };
    let builder = flags(builder.tcp(source, destination, SEQUENCE, 1024));
    // As long as the harness's head.
    let payload = [0x61; 64];
    let mut bytes = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut bytes, &payload).expect("a Vec takes every byte");
    bytes
}

/// Puts the sum of the pseudo-header in the place of the TCP checksum.
fn leave_unfinished(frame: &mut [u8], source: IpAddr, destination: IpAddr) {
    let upper = if source.is_ipv4() { 34 } else { 54 };
    let (source, destination) = (Address::from_ip(source), Address::from_ip(destination));
    let seed = nat::seed(source, destination, frame.len() - upper, 6, upper == 54);
    frame[upper + 16..upper + 18].copy_from_slice(&seed.to_le_bytes());
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
