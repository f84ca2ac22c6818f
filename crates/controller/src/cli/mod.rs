//! The command line: one file per subcommand, each a set of flags and what it does with them.

mod agent;
mod check;
mod controller;
mod detach;
mod options;
mod pass;
mod reference;
mod simulate;
mod status;
mod uninstall;
mod view;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

const ABOUT: &str = "An L4 load balancer for Kubernetes: GUE directors and decap nodes in XDP";

const LONG_ABOUT: &str = "\
An L4 load balancer for Kubernetes: GUE directors and decap nodes in XDP.

`guenon agent` runs on every node. A director's NIC receives what clients send to a VIP, picks an endpoint by the \
flow's hash, and sends the packet in GUE to that endpoint's node; the decap node there strips the tunnel and delivers. \
Replies go straight to the client. Every packet is counted under one verdict, every drop under one reason.";

const EXAMPLES: &str = "\
Try:
  guenon agent --manifests /etc/guenon     reconcile the manifests of a directory into this node's data path
  guenon controller                        the cluster's one writer of status, elected among replicas
  guenon check                             is it working in the whole cluster: exit code 0, or what is wrong
  guenon status                            is it working on this node, and if not, why and what to do
  guenon status drops                      what was dropped, the cause and the cure
  guenon view                              what this node knows of itself (routes, neighbours, MTUs), as YAML
  guenon simulate ...                      what becomes of captured packets, by the real program, touching no interface
  guenon detach                            take the data path away and leave the node as it was
  guenon uninstall                         the same on every node of a cluster

Every flag can be set by an environment variable (in brackets in each command's help): --pin-dir by GUENON_PIN_DIR, \
and so on.";

/// The command line of `guenon`.
#[derive(Debug, Parser)]
#[command(name = "guenon", version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXAMPLES)]
#[command(disable_help_subcommand = true, args_override_self = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Agent(Box<agent::Args>),
    Controller(controller::Args),
    Check(check::Args),
    Status(status::Args),
    Simulate(simulate::Args),
    View(view::Args),
    Detach(detach::Args),
    Uninstall(uninstall::Args),
    #[command(hide = true)]
    Pass(pass::Args),
    #[command(hide = true)]
    Reference(reference::Args),
}

/// The definition of the command line, for generated references.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line and runs what it asks for. Exit codes: 0 done, 1 failed (the reason on
/// standard error), 2 wrong usage.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Agent(args) => agent::run(*args),
        Command::Controller(args) => controller::run(args),
        Command::Check(args) => check::run(args),
        Command::Status(args) => status::run(args),
        Command::Simulate(args) => simulate::run(args),
        Command::View(args) => view::run(args),
        Command::Detach(args) => detach::run(args),
        Command::Uninstall(args) => uninstall::run(args),
        Command::Pass(args) => pass::run(args),
        Command::Reference(args) => reference::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guenon: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the reader of our output (`head`, a pager) went away: its right, no error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[rstest::rstest]
    #[case("agent")]
    #[case("controller")]
    #[case("uninstall")]
    #[case("check")]
    fn every_flag_of_what_runs_in_a_pod_has_an_environment_variable_of_its_name(#[case] name: &str) {
        let command = command();
        let agent = command.find_subcommand(name).expect("the subcommand");
        for argument in agent.get_arguments().filter(|argument| argument.get_long().is_some_and(|long| long != "help"))
        {
            let long = argument.get_long().expect("a long flag");
            let expected = format!("GUENON_{}", long.replace('-', "_").to_uppercase());
            let env = argument.get_env().unwrap_or_else(|| panic!("--{long} has no environment variable"));
            assert_eq!(env.to_str(), Some(expected.as_str()), "--{long}");
        }
    }

    #[test]
    fn every_flag_says_what_it_does() {
        for subcommand in command().get_subcommands() {
            for argument in subcommand.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}: no help", subcommand.get_name(), argument.get_id());
            }
        }
    }
}
