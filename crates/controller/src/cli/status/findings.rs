//! Is it working, and if not, why and what to do? Pure: one moment in, findings out.

use guenon_ebpf::abi::Event;
use guenon_ebpf::hash::{DEFAULT_KEY, Schedule};
use serde::Serialize;

use super::{InForce, endpoints, format};
use crate::model::ServiceName;
use crate::reading::AttachedMode;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Packets are lost.
    Broken,
    /// Something will not happen as asked for.
    Warning,
    /// Good to know.
    Note,
}

/// Something that a person should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// What is the matter.
    pub(super) what: String,
    /// What to do.
    pub(super) cure: String,
}

/// Names shown of many, before "and N more".
const SHOWN: usize = 5;

/// All findings, the worst first.
pub(super) fn of(in_force: &InForce) -> Vec<Finding> {
    let mut findings = Vec::new();
    agent(in_force, &mut findings);
    interfaces(in_force, &mut findings);
    services(in_force, &mut findings);
    neighbours(in_force, &mut findings);
    maps(in_force, &mut findings);
    flows(in_force, &mut findings);
    if in_force.reading.hash_fingerprint == Schedule::new(DEFAULT_KEY).fingerprint() {
        findings.push(Finding {
            severity: Severity::Note,
            what: "The flow hash has the published default key: anyone may craft flows that all land on one endpoint.".into(),
            cure: "Make a key (`head -c 16 /dev/urandom > KEY`) and give it to every director's agent with --hash-key-file.".into(),
        });
    }
    findings.sort_by_key(|finding| finding.severity);
    findings
}

fn agent(in_force: &InForce, findings: &mut Vec<Finding>) {
    if in_force.reading.revision_at == 0 {
        findings.push(Finding {
            severity: Severity::Broken,
            what: "No configuration has come into force yet.".into(),
            cure: "See the agent's log: its first revision comes once the manifests are read.".into(),
        });
    }
    if !in_force.agent_runs {
        findings.push(Finding {
            severity: Severity::Warning,
            what:
                "No agent runs: what is in force stays, changes do not arrive, and lost next hops are not found again."
                    .into(),
            cure: "Start `guenon agent`; it adopts what it finds, with no packet lost.".into(),
        });
        return;
    }
    let Some(report) = &in_force.agent else { return };
    for reason in &report.waiting_for {
        findings.push(Finding {
            severity: Severity::Warning,
            what: format!("The agent is not ready: {reason}."),
            cure: "See the problems below and the agent's log.".into(),
        });
    }
    if !report.is_fresh(in_force.now) {
        findings.push(Finding {
            severity: Severity::Warning,
            what: format!(
                "The agent (process {}) has said nothing for {}.",
                report.pid,
                format::duration(in_force.now.saturating_sub(report.written_at))
            ),
            cure: "See its log; if it hangs, restart it: traffic goes on meanwhile.".into(),
        });
    }
}

fn interfaces(in_force: &InForce, findings: &mut Vec<Finding>) {
    let interfaces = &in_force.reading.interfaces;
    if interfaces.is_empty() {
        findings.push(Finding {
            severity: Severity::Broken,
            what: "The program is attached to no interface: no packet is looked at.".into(),
            cure: "Start `guenon agent --interface NAME`, with the interface that VIP or tunnel traffic comes in on."
                .into(),
        });
    }
    for interface in interfaces {
        let (_, lost) = in_force.kernel_drops.get(&interface.name).copied().unwrap_or_default();
        if lost > 0 {
            findings.push(Finding {
                severity: Severity::Note,
                what: format!(
                    "The kernel or the driver dropped {} frames that were to leave by {}, since the interface came up.",
                    format::grouped(lost),
                    interface.name
                ),
                cure: format!(
                    "If it grows, a queue is full or the far end of a veth has no program: `ethtool -S {}`, tracepoints \
                     xdp:xdp_exception and skb:kfree_skb.",
                    interface.name
                ),
            });
        }
        match interface.mode {
            AttachedMode::Native => {}
            AttachedMode::Detached => findings.push(Finding {
                severity: Severity::Broken,
                what: format!("{} is away, or another program is attached to it: its packets are not looked at.", interface.name),
                cure: format!("See `ip link show {}` and the agent's problems; the agent attaches again by itself.", interface.name),
            }),
            AttachedMode::Generic => findings.push(Finding {
                severity: Severity::Note,
                what: format!("On {} the program runs in generic mode, several times slower than in the driver.", interface.name),
                cure: "Use a NIC whose driver has XDP, or, on a veth or virtio NIC, look at what the agent's log says of its refusal.".into(),
            }),
        }
    }
}

fn services(in_force: &InForce, findings: &mut Vec<Finding>) {
    if in_force.state.services.is_empty() {
        findings.push(Finding {
            severity: Severity::Warning,
            what: "No service is in force: nothing is forwarded.".into(),
            cure: "Is there a VirtualService in the agent's source, and does it say why it is not accepted (problems)?"
                .into(),
        });
    }
    let without_rows: Vec<&ServiceName> =
        in_force.state.services.iter().filter(|(_, service)| service.rows.is_empty()).map(|(name, _)| name).collect();
    if !without_rows.is_empty() {
        findings.push(Finding {
            severity: Severity::Broken,
            what: format!("No endpoint takes new flows (packets are dropped as no_backend): {}.", names(&without_rows)),
            cure: "Is any endpoint ready, with a weight above 0, and does the backendRef resolve?".into(),
        });
    }
    let faulty: Vec<String> = endpoints::list(in_force)
        .into_iter()
        .filter(|endpoint| matches!(endpoint.fault, Some("no_route" | "no_delivery")))
        .map(|endpoint| format!("{} of {} ({})", endpoint.endpoint, endpoint.service, endpoint.fault.unwrap_or("")))
        .collect();
    if !faulty.is_empty() {
        findings.push(Finding {
            severity: Severity::Broken,
            what: format!("There is no way to {}: {}.", format::count(faulty.len(), "endpoint"), names(&faulty)),
            cure: "no_route: add a route to the tunnel address (`ip route get ADDRESS`). no_delivery: see the agent's problems.".into(),
        });
    }
}

fn neighbours(in_force: &InForce, findings: &mut Vec<Finding>) {
    let silent: Vec<String> = in_force
        .state
        .next_hops
        .iter()
        .filter(|(_, state)| state.mac.is_none())
        .map(|(key, _)| format!("{} on {}", key.gateway, key.interface))
        .collect();
    if !silent.is_empty() {
        findings.push(Finding {
            severity: Severity::Broken,
            what: format!("{} not answer (packets are dropped as no_neighbour): {}.",
                if silent.len() == 1 { "1 next hop does".to_owned() } else { format!("{} next hops do", silent.len()) },
                names(&silent)),
            cure: "See `ip neigh`: is it up, on that link, and does it answer ARP or neighbour discovery? The agent keeps asking.".into(),
        });
    }
}

/// Flows that were in use and had to go: a reply of such a flow leaves with the endpoint's address, and its connection ends.
fn flows(in_force: &InForce, findings: &mut Vec<Finding>) {
    let evicted = in_force.reading.total().event(Event::FlowEvicted);
    if evicted > 0 {
        findings.push(Finding {
            // Counted since the maps were made: a note, since it may be long ago.
            severity: Severity::Note,
            what: format!(
                "{} flows in use have given way to new ones: the table of flows has room for {}.",
                format::grouped(evicted),
                format::grouped(in_force.reading.flows.capacity)
            ),
            cure: "If it grows, restart the agent with a higher --max-flows (32 bytes each), and look for who opens so many.".into(),
        });
    }
}

fn maps(in_force: &InForce, findings: &mut Vec<Finding>) {
    for map in &in_force.reading.maps {
        if map.capacity > 0 && map.used * 10 >= map.capacity * 9 {
            findings.push(Finding {
                severity: Severity::Warning,
                what: format!("The map {} holds {} of {}: what does not fit is refused.", map.map,
                    format::grouped(map.used), format::grouped(map.capacity)),
                cure: "Restart the agent with a higher --max-... flag (see `guenon agent --help`); no packet is lost by it.".into(),
            });
        }
    }
}

fn names<T: ToString>(all: &[T]) -> String {
    let mut text = all.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if all.len() > SHOWN {
        text.push_str(&format!(" and {} more", all.len() - SHOWN));
    }
    text
}
