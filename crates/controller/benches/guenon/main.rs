//! `cargo xtask bench`: what a packet and a change cost, as ratios to floors measured in the same run.
//!
//! docs/benchmarks.md explains the method and shows a run. Nothing here is a verdict: a figure that misses its aim is printed as such.

mod cluster;
mod control;
mod datapath;
mod flood;
mod harness;
mod machine;
mod process;
mod report;
mod scene;
mod translation;
mod wires;

use std::path::PathBuf;
use std::thread;

use anyhow::{Context as _, anyhow};
use clap::Parser;

use report::Report;

/// Measures Guenon on this machine.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Args {
    /// What to measure; everything but `cluster` by default.
    #[arg(value_enum)]
    subjects: Vec<Subject>,
    /// Also write the figures as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Shorter runs: wider spread, for a first look.
    #[arg(long)]
    quick: bool,
    /// Of `cluster`: headless Services, each with an EndpointSlice and a VirtualService.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(8..=16_000))]
    services: u32,
    /// Of `cluster`: endpoints of each.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    endpoints: u32,
    /// Of `cluster`: where network and API server are; `cargo xtask bench cluster` makes them and says it.
    #[arg(long, hide = true, value_name = "FILE")]
    bed: Option<PathBuf>,
    /// Cargo passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Subject {
    /// Nanoseconds a packet, by test runs of the real program.
    Datapath,
    /// Nanoseconds a packet of delivery `Nat`, both ways.
    Translation,
    /// Frames a second over veth, as a share of a plain MAC swap.
    Veth,
    /// Cold start, one change, memory, with 10,000 services.
    Control,
    /// The same with a real API server and a controller: cold lists, changes, statuses, requests, scrapes.
    Cluster,
}

fn main() -> anyhow::Result<()> {
    let Args { subjects, json, quick, services, endpoints, bed, bench: _ } = Args::parse();
    let mut report = Report::new(machine::describe());
    let subjects = if subjects.is_empty() {
        vec![Subject::Datapath, Subject::Translation, Subject::Veth, Subject::Control]
    } else {
        subjects
    };
    let measure = |subject, report: &mut Report| match subject {
        Subject::Datapath => datapath::measure(report, quick),
        Subject::Translation => translation::measure(report, quick),
        Subject::Veth => flood::measure(report, quick),
        Subject::Control => control::measure(report, quick),
        Subject::Cluster => {
            let bed = bed.as_deref().context("it needs an API server: run `cargo xtask bench cluster`")?;
            cluster::measure(report, &cluster::Bed::read(bed)?, cluster::Size { services, endpoints }, quick)
        }
    };
    // What one part measured is told even where another fails.
    let mut failed = Vec::new();
    for subject in subjects {
        // On a thread of its own, which takes its CPU and its namespace with it.
        let measured = thread::scope(|scope| scope.spawn(|| measure(subject, &mut report)).join());
        if let Err(error) = measured.unwrap_or_else(|_| Err(anyhow!("a measurement panicked"))) {
            eprintln!("failed: {error:#}");
            failed.push(error);
        }
    }
    print!("{report}");
    if let Some(path) = json {
        report.write_json(&path)?;
    }
    failed.into_iter().next().map_or(Ok(()), Err)
}
