use std::time::Duration;

use anyhow::{Context as _, bail};

use super::options::Server;
use crate::kube::{self, NodeOutcome};

const EXAMPLES: &str = "\
Example:
  guenon uninstall --namespace guenon-system
      What `helm uninstall` does before it removes the agents.

The agents must still run: each takes its own data path away. A node whose agent is dead is named; when it is back, run \
`guenon detach` there.";

/// Gives every node of the cluster back as it was, before the agents are removed
///
/// Sets `spec.state: Detached` on every GuenonNode, waits until the agents have taken their data paths away, names the
/// nodes that could not be reached, and deletes the GuenonNodes.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    server: Server,

    /// How long agents that live are waited for, seconds
    #[arg(long, env = "GUENON_TIMEOUT", value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let Args { server: Server { kubeconfig, namespace }, timeout } = args;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let outcomes = runtime.block_on(async {
        let client = kube::connect(kubeconfig.as_deref()).await?;
        let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
        kube::detach_nodes(&client, &namespace, Duration::from_secs(timeout), |node, outcome| match outcome {
            NodeOutcome::Detached => println!("{node}: as it was before"),
            NodeOutcome::Failed(why) => println!("{node}: FAILED: {why}"),
            NodeOutcome::Unreachable => {
                println!("{node}: its agent gives no sign of life; when it is back, run `guenon detach` there");
            }
            NodeOutcome::TimedOut => {
                println!("{node}: not done within {timeout} s; run `guenon detach` there once its agent is gone");
            }
        })
        .await
        .context("cannot ask the API server")
    })?;
    let failed = outcomes.values().filter(|outcome| matches!(outcome, NodeOutcome::Failed(_) | NodeOutcome::TimedOut));
    match (failed.count(), outcomes.len()) {
        (0, 0) => println!("nothing to do: there is no GuenonNode"),
        (0, _) => {}
        (failed, all) => bail!("{failed} of {all} nodes could not be given back; see above"),
    }
    Ok(())
}
