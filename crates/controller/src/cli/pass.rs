use std::path::PathBuf;

use clap::{Subcommand, ValueHint};

use crate::datapath::pass;

/// Attaches a program that passes everything, for the far end of a veth that no agent tends
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Attach it to an interface of this network namespace
    Attach(Target),
    /// Take it off again
    Detach(Target),
}

#[derive(Debug, clap::Args)]
struct Target {
    /// The interface; repeatable
    #[arg(long, value_name = "NAME", required = true, value_delimiter = ',')]
    interface: Vec<String>,

    /// Directory on a BPF file system for the pins
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/guenon-pass", value_hint = ValueHint::DirPath)]
    pin_dir: PathBuf,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    match args.action {
        Action::Attach(Target { interface, pin_dir }) => {
            for interface in interface {
                pass::attach(&pin_dir, &interface)?;
            }
        }
        Action::Detach(Target { interface, pin_dir }) => {
            for interface in interface {
                pass::detach(&pin_dir, &interface)?;
            }
        }
    }
    Ok(())
}
