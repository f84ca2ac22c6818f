//! The ledger: `received = passed + transmitted + redirected + drops`, on every node and interface.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::topology::Topology;
use crate::topology::layout::Host;
use crate::topology::metrics::{Sample, sums};

/// How long packets may be under way after the last one was sent.
const REST: Duration = Duration::from_secs(3);

/// An error unless every node's ledger comes to balance.
pub(super) fn balanced(topology: &Topology) -> Result<()> {
    for host in Host::NODES {
        let begin = Instant::now();
        loop {
            // No metrics: that node's agent is gone for good, as after `detach`.
            let Err(error) = topology.metrics_if_up(host)?.map_or(Ok(()), |samples| judge(&samples)) else { break };
            if begin.elapsed() > REST {
                bail!("the ledger of {} does not balance: {error:#}", host.name());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}

/// An error unless what an agent exports is in balance.
pub(crate) fn judge(samples: &[Sample]) -> Result<()> {
    let received = sums(samples, "guenon_received_packets_total", "interface");
    let verdicts = sums(samples, "guenon_packets_total", "interface");
    if received.is_empty() || received != verdicts {
        bail!("received {received:?}, but verdicts were given to {verdicts:?}");
    }
    // Interfaces that have a program on the way out too.
    let differences = sums(samples, "guenon_egress_ledger_difference", "interface");
    let hooked = |sample: &&Sample| sample.labels.get("hook").is_some_and(|hook| hook != "none");
    for sample in samples.iter().filter(|sample| sample.name == "guenon_egress_info").filter(hooked) {
        let interface = sample.labels.get("interface").cloned().unwrap_or_default();
        if differences.get(&interface) != Some(&0.0) {
            bail!("on the way out of {interface}, packets received less those with a verdict: {differences:?}");
        }
    }
    let dropped = |metric| sums(samples, metric, "verdict").get("drop").copied().unwrap_or(0.0);
    let dropped = dropped("guenon_packets_total") + dropped("guenon_egress_packets_total");
    let reasons: f64 = sums(samples, "guenon_drops_total", "reason").values().sum();
    if dropped != reasons {
        bail!("{dropped} packets were dropped, but reasons are counted for {reasons}");
    }
    Ok(())
}
