//! Nanoseconds a packet, by the method of docs/benchmarks.md: the real program behind a harness that restores the packet, net of
//! the same harness in front of a program that only passes; rounds alternate, medians count.

use std::net::IpAddr;

use anyhow::{Context as _, ensure};
use etherparse::{Ipv4Header, PacketBuilder};

use crate::harness::{HEAD, Harness, Template, median};
use crate::machine;
use crate::report::{Figure, Report};
use crate::scene::{self, Scene};

/// What is timed against which floor.
struct Case<'a> {
    name: String,
    harness: &'static str,
    scene: &'a Scene,
    template: Template,
    /// Verdict, and bytes that come out more (or less) than go in.
    expect: (u32, i64),
    /// The bare program, if there is one for this.
    floor: Option<&'static str>,
    /// Nanoseconds (over the floor) that design allows.
    aim: f64,
}

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const MANY_FLOWS: u64 = 131_072;
const MANY_SERVICES: u32 = 10_000;

pub(crate) fn measure(report: &mut Report, quick: bool) -> anyhow::Result<()> {
    eprintln!("data path, ns a packet net of the harness:");
    machine::pin(0)?;
    let (rounds, repeat) = if quick { (5, 200_000) } else { (15, 1_000_000) };
    let mut harness = Harness::new()?;
    let one = Scene::new(1)?;
    let many = Scene::new(MANY_SERVICES)?;
    for case in &cases(&one, &many) {
        check(&mut harness, case)?;
        let (mut net, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let null = harness.time_own(case.harness, "guenon_null", &case.template, repeat)?;
            if let Some(bare) = case.floor {
                floor.push(harness.time_own(case.harness, bare, &case.template, repeat)? - null);
            }
            let target = harness.time(case.harness, case.scene.program()?, &case.template, repeat)?;
            net.push(target - null);
        }
        let net = median(net);
        let floor = (!floor.is_empty()).then(|| median(floor));
        let over = net - floor.unwrap_or(0.0);
        let aim = match case.floor {
            None => format!("<= {:.0} ns", case.aim),
            Some(_) => format!("<= floor + {:.0} ns (is {over:+.1})", case.aim),
        };
        report.add(Figure {
            subject: "data path",
            name: case.name.clone(),
            value: net,
            unit: "ns",
            floor,
            aim: Some((aim, over <= case.aim)),
        });
    }
    Ok(())
}

fn cases<'a>(one: &'a Scene, many: &'a Scene) -> Vec<Case<'a>> {
    let mut cases = Vec::new();
    for (family, harness, vip, growth) in
        [("IPv4", "harness_v4", scene::VIP4, 32), ("IPv6", "harness_v6", scene::VIP6, 32)]
    {
        let plain = |scene: &'a Scene, services: u64, flows: u64| Case {
            name: format!(
                "director, {family} TCP, {} to {} of {} services",
                counted(flows, "flow"),
                if services == 1 { "one".to_owned() } else { "all".to_owned() },
                scene.services
            ),
            harness,
            scene,
            template: template(&to_vip(vip), flows, services),
            expect: (XDP_TX, growth),
            floor: Some("guenon_bare"),
            aim: 20.0,
        };
        cases.push(plain(one, 1, 1));
        cases.push(plain(one, 1, MANY_FLOWS));
        cases.push(plain(many, 1, MANY_FLOWS));
        cases.push(plain(many, u64::from(MANY_SERVICES), MANY_FLOWS));
    }
    for (family, harness, inner) in [
        ("IPv4 in IPv4", "harness_v4_in_v4", to_vip(scene::VIP4)),
        ("IPv6 in IPv4", "harness_v6_in_v4", to_vip(scene::VIP6)),
    ] {
        for (scene, services) in [(one, 1), (many, u64::from(MANY_SERVICES))] {
            cases.push(Case {
                name: format!("decap, {family}, {} to all of {} services", counted(MANY_FLOWS, "flow"), scene.services),
                harness,
                scene,
                template: template(&in_gue(&inner), MANY_FLOWS, services),
                expect: (XDP_PASS, -32),
                floor: Some("guenon_bare_decap"),
                aim: 10.0,
            });
        }
    }
    for (family, harness, destination) in [("IPv4", "harness_v4", scene::OTHER4), ("IPv6", "harness_v6", scene::OTHER6)]
    {
        cases.push(Case {
            name: format!("not for a VIP, {family} TCP, beside {MANY_SERVICES} services"),
            harness,
            scene: many,
            template: template(&to_vip(destination), MANY_FLOWS, 1),
            expect: (XDP_PASS, 0),
            floor: None,
            aim: 10.0,
        });
    }
    cases
}

fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// A TCP segment of a client to `destination`, port 80, long enough for the harness's head.
pub(crate) fn to_vip(destination: IpAddr) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(scene::GATEWAY_MAC, scene::DEVICE_MAC);
    let builder = match destination {
        IpAddr::V4(v4) => builder.ipv4([10, 0, 0, 9], v4.octets(), 64),
        IpAddr::V6(v6) => builder.ipv6(scene::CLIENT6.octets(), v6.octets(), 64),
    }
    .tcp(20_000, 80, 1, 1024)
    .ack(1);
    let payload = [0x61; 64];
    let mut bytes = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut bytes, &payload).expect("a Vec takes every byte");
    bytes
}

/// That frame's packet as a director would send it to this node's own tunnel address.
pub(crate) fn in_gue(frame: &[u8]) -> Vec<u8> {
    let inner = &frame[14..];
    let proto = if inner[0] >> 4 == 4 { 4 } else { 41 };
    let payload = [&[0, proto, 0, 0], inner].concat();
    let builder = PacketBuilder::ethernet2(scene::GATEWAY_MAC, scene::DEVICE_MAC)
        .ipv4(scene::DIRECTOR.octets(), scene::SELF.octets(), 64)
        .udp(50_000, guenon_ebpf::abi::GUE_PORT);
    let mut bytes = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut bytes, &payload).expect("a Vec takes every byte");
    bytes
}

pub(crate) fn template(frame: &[u8], flows: u64, services: u64) -> Template {
    let mut head = [0; HEAD];
    head.copy_from_slice(&frame[..HEAD]);
    Template { len: frame.len() as u64, flow_mask: flows - 1, services, runs: 0, ifindex: 0, head }
}

/// Before it is timed: verdict, length and outer checksum of what comes out are right.
fn check(harness: &mut Harness, case: &Case<'_>) -> anyhow::Result<()> {
    let outcome = harness.once(case.harness, case.scene.program()?, &case.template)?;
    let grown = outcome.frame.len() as i64 - case.template.len as i64;
    ensure!(
        (outcome.verdict, grown) == case.expect,
        "{}: verdict {} and {grown:+} bytes instead of {:?}",
        case.name,
        outcome.verdict,
        case.expect
    );
    if outcome.verdict == XDP_TX {
        let (header, _) = Ipv4Header::from_slice(&outcome.frame[14..]).context("the outer header is no IPv4")?;
        ensure!(header.header_checksum == header.calc_header_checksum(), "{}: wrong outer checksum", case.name);
    }
    Ok(())
}
