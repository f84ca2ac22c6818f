//! `cargo xtask bench pods`: what an ordinary pod's traffic through a VIP costs, beside the same pod reached directly
//! over the same links, with the same programs on them.

use std::net::SocketAddr;

use anyhow::Result;

use crate::live::nat::{ONE, one_pod_of, v4};
use crate::topology::layout::{HTTP, Host, POD_HTTP};
use crate::topology::{Plan, Topology, client};
use crate::{build, demo, paths, progress};

/// Bytes of a transfer.
const LENGTH: usize = 1 << 30;
/// Transfers of each kind; they alternate.
const ROUNDS: usize = 5;

type Transfer = fn(&str, SocketAddr, usize) -> Result<std::time::Duration>;

/// Lays out the demo, measures, removes it.
pub(super) fn run() -> Result<()> {
    let guenon = build::guenon()?;
    let topology = demo::up(Plan::new("bench", &guenon, &paths::root().join("examples/demo")))?;
    let measured = measure(&topology);
    progress::step("removing everything");
    let removed = topology.remove();
    measured.and(removed)
}

fn measure(topology: &Topology) -> Result<()> {
    let netns = topology.netns(Host::Client);
    let kinds: [(&str, Transfer); 2] = [("pod to client", client::download), ("client to pod", client::upload)];
    let mut rows = Vec::new();
    for (place, pod, node) in [
        ("on the director's node", Host::PodC, Host::T22),
        ("on another node, through a tunnel", Host::PodA, Host::T33),
    ] {
        one_pod_of(topology, pod, node)?;
        let pod = v4(pod)?;
        for (kind, transfer) in kinds {
            progress::step(format_args!("pod {place}, {kind}: {ROUNDS} times 1 GiB through the VIP, and directly"));
            let (mut through, mut direct) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                through.push(rate(transfer(&netns, SocketAddr::new(ONE, HTTP), LENGTH)?));
                direct.push(rate(transfer(&netns, SocketAddr::new(pod, POD_HTTP), LENGTH)?));
            }
            let (through, direct) = (median(through), median(direct));
            rows.push(vec![
                format!("pod {place}, {kind}"),
                format!("{through:.2}"),
                format!("{direct:.2}"),
                format!("{:.2}", through / direct),
            ]);
        }
    }
    println!("\n{}", progress::table(&["", "through the VIP, Gbit/s", "directly", "ratio (aim 0.90)"], &rows));
    Ok(())
}

/// Gbit/s.
fn rate(took: std::time::Duration) -> f64 {
    LENGTH as f64 * 8.0 / took.as_secs_f64() / 1e9
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
