//! Frames a second over a real veth: a flood into it by live test runs, the director (or a plain MAC swap) on its far end, a
//! sink that counts what comes back. Both are called by the same relay, in turns, in one run.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, XdpMode};

use crate::datapath::{template, to_vip};
use crate::harness::{Harness, Template, median, packet};
use crate::machine;
use crate::report::{Figure, Report};
use crate::scene::{self, Scene};
use crate::wires::{FAR, GENERATOR, NEAR, NODE, Wires, enter};

/// Frames that the kernel sends at once.
const BATCH: u32 = 64;

pub(crate) fn measure(report: &mut Report, quick: bool) -> anyhow::Result<()> {
    eprintln!("live over veth, frames a second:");
    let _wires = Wires::lay()?;
    for (name, rate, floor) in flood(quick)? {
        let share = rate / floor;
        report.add(Figure {
            subject: "veth",
            name,
            value: rate,
            unit: "frames/s",
            floor: Some(floor),
            aim: Some((">= 0.85 of a MAC swap".to_owned(), share >= 0.85)),
        });
    }
    Ok(())
}

/// Leaves the thread in the generator's namespace.
fn flood(quick: bool) -> anyhow::Result<Vec<(String, f64, f64)>> {
    machine::pin(0)?;
    let mut harness = Harness::new()?;
    enter(NODE)?;
    let device = ifindex(FAR)?;
    harness
        .program_mut("relay")?
        .attach_to_if_index(device, XdpMode::Driver)
        .context("cannot attach to the far end")?;
    enter(GENERATOR)?;
    let near = ifindex(NEAR)?;
    harness.program_mut("sink")?.attach_to_if_index(near, XdpMode::Driver).context("cannot attach to the near end")?;

    let (rounds, frames) = if quick { (3, 500_000) } else { (7, 2_000_000) };
    let mut figures = Vec::new();
    for (services, flows) in [(1, 1), (10_000, 131_072)] {
        let scene = Scene::on(services, device, scene::DEVICE_MAC, scene::GATEWAY_MAC)?;
        let mut template = template(&to_vip(scene::VIP4), flows, u64::from(services));
        template.ifindex = u64::from(near);
        let (mut director, mut swap) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            harness.set_target("mac_swap")?;
            swap.push(rate(&mut harness, &template, frames)?);
            harness.set_foreign_target(scene.program()?)?;
            director.push(rate(&mut harness, &template, frames)?);
        }
        let name = format!("director, IPv4 TCP, {flows} flows to {services} services");
        figures.push((name, median(director), median(swap)));
    }
    Ok(figures)
}

/// Frames a second that came back.
fn rate(harness: &mut Harness, template: &Template, frames: u32) -> anyhow::Result<f64> {
    harness.set_template(template)?;
    let input = packet(template);
    let before = harness.arrived()?;
    let start = Instant::now();
    let options = TestRunOptions {
        data_in: Some(&input),
        repeat: frames,
        attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
        ..TestRunOptions::new()
    };
    harness.program("flood_v4")?.test_run(options).context("the kernel refused the flood")?;
    let elapsed = start.elapsed();
    thread::sleep(Duration::from_millis(20));
    let arrived = harness.arrived()? - before;
    ensure!(arrived * 100 >= u64::from(frames) * 99, "only {arrived} of {frames} frames came back");
    Ok(arrived as f64 / elapsed.as_secs_f64())
}

fn ifindex(name: &str) -> anyhow::Result<u32> {
    nix::net::if_::if_nametoindex(name).with_context(|| format!("no interface {name}"))
}
