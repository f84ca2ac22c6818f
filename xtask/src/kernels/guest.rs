//! What runs inside a guest: `xtask guest`, hidden. Each check is reported by a line on the console.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::{TESTS_LIMIT, peers};
use crate::shell::cmd;
use crate::topology::layout::Host;
use crate::topology::{Cards, Plan, Topology};
use crate::{demo, live};

/// Begins each line of a report.
const MARK: &str = "GUEST: ";
const MANIFESTS: &str = "/test/manifests";
pub(super) const GUENON: &str = "/test/guenon";
const TESTS: &str = "/test/tests";

/// The first kernel that takes multi-buffer XDP programs.
const FRAGS_SINCE: (Option<u32>, Option<u32>) = (Some(5), Some(18));
/// What the agent's log says on older ones.
const WITHOUT_FRAGS: &str = "loaded without frags";

/// Gives what there is to say about it.
type Check = fn() -> Result<String>;

/// Runs every check, goes on after a failure.
pub(crate) fn run() -> Result<()> {
    let checks: [(&str, Check); 7] = [
        ("wires", wires),
        ("the kernel's GUE to itself", peers::kernel_to_kernel),
        ("packet tests", packet_tests),
        ("director to the kernel's GUE", peers::director_to_kernel),
        ("the kernel's GUE to decap", peers::kernel_to_decap),
        ("live over veth", over_veth),
        // Last: its network cards come back under other names.
        ("live over virtio_net", over_virtio),
    ];
    let mut failed = 0;
    for (name, check) in checks {
        match check() {
            Ok(said) => println!("{MARK}{name}: {said}"),
            Err(error) => {
                failed += 1;
                println!("{MARK}{name} FAILED: {error:#}");
            }
        }
    }
    if failed > 0 {
        bail!("{failed} checks failed");
    }
    Ok(())
}

/// The lines that guests reported.
pub(super) fn reported(console: &str) -> Vec<String> {
    console.lines().filter_map(|line| Some(line.strip_prefix(MARK)?.to_owned())).collect()
}

/// The topology without Guenon: namespaces, veths with pass programs, routes, servers.
fn wires() -> Result<String> {
    let topology = Topology::build(Plan::new("wires", Path::new(GUENON), Path::new(MANIFESTS)))?;
    topology.remove()?;
    Ok("ok".to_owned())
}

/// The test binaries of crates/controller.
fn packet_tests() -> Result<String> {
    let Ok(entries) = std::fs::read_dir(TESTS) else { return Ok("none in this payload".to_owned()) };
    let mut passed = Vec::new();
    for entry in entries {
        let binary = entry?.path();
        let said = cmd(&binary)
            .args(["--test-threads", "1"])
            .env("RUST_BACKTRACE", "0")
            .env("GUENON_GUEST", "1")
            .limit(TESTS_LIMIT)
            .try_read()?;
        let verdict = said.stdout.lines().rev().find(|line| line.starts_with("test result:")).unwrap_or_default();
        if !said.status.success() {
            bail!("{}: {}\n{}\n{}", binary.display(), said.status, said.stdout, said.stderr);
        }
        let name = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        passed.push(format!("{name} {}", verdict.trim_start_matches("test result: ")));
    }
    Ok(passed.join(", "))
}

/// Scenarios of the live tests, over veths.
fn over_veth() -> Result<String> {
    let scenarios: Vec<_> = live::SCENARIOS.iter().filter(|scenario| scenario.in_guests).collect();
    let ground = live::Ground { guenon: GUENON.into(), manifests: MANIFESTS.into() };
    for scenario in &scenarios {
        scenario.run(&ground).with_context(|| scenario.name)?;
    }
    Ok(format!("{} scenarios ok", scenarios.len()))
}

/// Both nodes on virtio_net cards. The first two are wired to each other by QEMU, and so are the others.
fn over_virtio() -> Result<String> {
    let cards =
        |host, at_host: &str, at_router: &str| Cards { host, at_host: at_host.into(), at_router: at_router.into() };
    let mut plan = Plan::new("virtio", Path::new(GUENON), Path::new(MANIFESTS));
    plan.cards = vec![cards(Host::T22, "eth0", "eth1"), cards(Host::T33, "eth2", "eth3")];
    let mut topology = demo::up(plan)?;
    live::answers(&mut topology)?;
    let modes: Vec<String> = Host::NODES
        .iter()
        .map(|&host| Ok(format!("{} {}", host.name(), topology.xdp_mode(host)?)))
        .collect::<Result<_>>()?;
    let frags = frags(&topology)?;
    topology.remove()?;
    Ok(format!("ok ({}, {frags})", modes.join(", ")))
}

/// Whether both agents loaded the program with frags or without, as this kernel wants it, and said so.
fn frags(topology: &Topology) -> Result<&'static str> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's release")?;
    let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
    let old = (numbers.next(), numbers.next()) < FRAGS_SINCE;
    for host in Host::NODES {
        let log = topology.agent_log(host)?;
        let without = log.contains(WITHOUT_FRAGS);
        ensure!(without == old, "the agent of {} on {} says:\n{log}", host.name(), release.trim());
    }
    Ok(if old { "without frags" } else { "with frags" })
}
