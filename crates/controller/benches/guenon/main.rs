//! `cargo xtask bench`: what a packet and a change cost, as ratios to floors measured in the same run.
//!
//! docs/benchmarks.md explains the method and shows a run. Nothing here is a verdict: a figure that misses its aim is printed as such.

mod control;
mod datapath;
mod flood;
mod harness;
mod machine;
mod report;
mod scene;
mod wires;

use std::path::PathBuf;
use std::thread;

use anyhow::anyhow;
use clap::Parser;

use report::Report;

/// Measures Guenon on this machine.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Args {
    /// What to measure; everything by default.
    #[arg(value_enum)]
    subjects: Vec<Subject>,
    /// Also write the figures as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Shorter runs: wider spread, for a first look.
    #[arg(long)]
    quick: bool,
    /// Cargo passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Subject {
    /// Nanoseconds a packet, by test runs of the real program.
    Datapath,
    /// Frames a second over veth, as a share of a plain MAC swap.
    Veth,
    /// Cold start, one change, memory, with 10,000 services.
    Control,
}

/// Adds figures to a report; shorter runs if the flag is set.
type Measure = fn(&mut Report, bool) -> anyhow::Result<()>;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let wanted = |subject| args.subjects.is_empty() || args.subjects.contains(&subject);
    let mut report = Report::new(machine::describe());
    // What one part measured is told even where another fails.
    let parts: [(Subject, Measure); 3] =
        [(Subject::Datapath, datapath::measure), (Subject::Veth, flood::measure), (Subject::Control, control::measure)];
    let mut failed = Vec::new();
    for (_, measure) in parts.into_iter().filter(|(subject, _)| wanted(*subject)) {
        // On a thread of its own, which takes its CPU and its namespace with it.
        let measured = thread::scope(|scope| scope.spawn(|| measure(&mut report, args.quick)).join());
        if let Err(error) = measured.unwrap_or_else(|_| Err(anyhow!("a measurement panicked"))) {
            eprintln!("failed: {error:#}");
            failed.push(error);
        }
    }
    print!("{report}");
    if let Some(path) = args.json {
        report.write_json(&path)?;
    }
    failed.into_iter().next().map_or(Ok(()), Err)
}
