//! Every chore of the project: `cargo xtask ...`.

mod alerts;
mod apiserver;
mod bench;
mod build;
mod chart;
mod cluster;
mod crdgen;
mod dashboards;
mod demo;
mod fuzz;
mod generated;
mod image;
mod interrupt;
mod kernels;
mod links;
mod live;
mod paths;
mod programs;
mod progress;
mod prometheus;
mod setup;
mod shell;
mod test;
mod topology;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Every chore of the project")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Install or build what this machine lacks
    Setup {
        /// Only what a build of the workspace needs
        #[arg(long)]
        build: bool,
    },
    /// Director, decap node and endpoints in network namespaces, with real agents and traffic
    Demo {
        /// Leave it up and say what to try
        #[arg(long, conflicts_with = "clean")]
        keep: bool,
        /// Remove a kept one, or what a crash has left
        #[arg(long)]
        clean: bool,
    },
    /// A real Kubernetes cluster of three nodes in namespaces of this machine, with Guenon in it by its chart, and traffic
    Cluster {
        /// Leave it up and say what to try
        #[arg(long, conflicts_with = "clean")]
        keep: bool,
        /// Remove a kept one, or what a crash has left
        #[arg(long)]
        clean: bool,
    },
    /// Run every test
    Test {
        /// Run this step alone; may be given several times
        #[arg(long, value_name = "STEP")]
        only: Vec<String>,
        /// Of steps `live` and `cluster`, run only scenarios whose names contain this
        #[arg(long, value_name = "TEXT", requires = "only")]
        scenario: Option<String>,
        /// Show the steps
        #[arg(long)]
        list: bool,
    },
    /// Boot other kernels in QEMU and run the packet suite and a live topology there
    Kernels {
        /// Series such as 6.12, or `newest`; all that are supported if none is named
        series: Vec<String>,
        /// Look for newer kernels of each series
        #[arg(long)]
        update: bool,
    },
    /// Make the image, as an OCI archive: one static binary
    Image {
        /// What it is called
        #[arg(long, value_name = "REGISTRY/NAME:TAG", default_value = concat!("localhost/guenon:", env!("CARGO_PKG_VERSION")))]
        name: String,
        /// The file to write; target/guenon-image.tar unless it is named
        #[arg(long, value_name = "FILE")]
        out: Option<std::path::PathBuf>,
    },
    /// Write what is generated in deploy/ anew: CustomResourceDefinitions, the chart's README, dashboards
    Crdgen {
        /// Only say what differs
        #[arg(long)]
        check: bool,
    },
    /// Render the chart with the values in deploy/helm/snapshots, and say what differs from what is committed there
    Chart {
        /// Write it there
        #[arg(long)]
        accept: bool,
    },
    /// Measure the data path, a veth, the control plane, (`bench cluster`) all of it at a real API server, and (`bench pods`)
    /// what pods get through a VIP: figures, never
    /// verdicts
    Bench {
        /// Passed on; `cargo xtask bench --help` explains
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Send mutated and random packets through the program, for as long as is asked: each must end under one verdict and
    /// one reason, and nothing malformed may leave
    Fuzz {
        /// How long
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Repeats the run that printed this seed
        #[arg(long)]
        seed: Option<u64>,
    },
    /// What `kernels` runs inside a guest
    #[command(hide = true)]
    Guest,
    /// A node of `cluster`
    #[command(hide = true)]
    Node {
        spec: std::path::PathBuf,
        /// What the node's first process is
        #[arg(long)]
        first: bool,
    },
    /// Wait for a signal: what keeps a pod's namespaces
    #[command(hide = true)]
    Pause,
    /// A small HTTP and UDP echo server that answers with its name; for topologies
    #[command(hide = true)]
    Serve {
        #[arg(long)]
        name: String,
        #[arg(long)]
        http: u16,
        #[arg(long)]
        echo: u16,
    },
}

fn main() -> std::process::ExitCode {
    match run(Arguments::parse().chore) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> anyhow::Result<()> {
    if !matches!(chore, Chore::Serve { .. } | Chore::Node { .. } | Chore::Pause) {
        interrupt::install()?; // those are ended by a signal, so they take none themselves
    }
    match chore {
        Chore::Setup { build: false } => setup::everything(),
        Chore::Setup { build: true } => setup::building(),
        Chore::Demo { clean: true, .. } => demo::clean(),
        Chore::Demo { keep, clean: false } => demo::run(keep),
        Chore::Cluster { clean: true, .. } => cluster::clean(),
        Chore::Cluster { keep, clean: false } => cluster::run(keep),
        Chore::Test { list: true, .. } => {
            test::list();
            Ok(())
        }
        Chore::Test { only, scenario, list: false } => test::run(&only, scenario.as_deref()),
        Chore::Kernels { series, update } => kernels::run(&series, update),
        Chore::Image { name, out } => image::run(&name, out.as_deref()),
        Chore::Crdgen { check } => crdgen::run(check).and_then(|()| generated::run(check)),
        Chore::Chart { accept } => chart::run(accept),
        Chore::Bench { args } => bench::run(&args),
        Chore::Fuzz { seconds, seed } => fuzz::run(seconds, seed),
        Chore::Guest => kernels::guest::run(),
        Chore::Serve { name, http, echo } => topology::serve::serve(&name, http, echo),
        Chore::Node { spec, first } => cluster::inside::run(&spec, first),
        Chore::Pause => cluster::pause::run(),
    }
}
