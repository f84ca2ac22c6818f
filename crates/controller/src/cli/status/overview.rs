use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Serialize;

use super::findings::{self, Finding, Severity};
use super::format::{Style, Tone, count, duration, grouped};
use super::{InForce, drops, interfaces};
use crate::agent_report::AgentReport;
use crate::reading::FlowUse;

/// The overview, for scripts.
#[derive(Debug, Serialize)]
pub(super) struct Overview<'a> {
    /// The node's name, where an agent has said it.
    node: Option<&'a str>,
    revision: u64,
    revision_at: u64,
    /// Whether an agent runs now.
    agent_runs: bool,
    /// What it said last.
    agent: Option<&'a AgentReport>,
    findings: Vec<Finding>,
    interfaces: Vec<interfaces::Interface>,
    services: Counts,
    /// Flows of endpoints that are translated.
    flows: FlowUse,
    /// Addresses of this node that accept tunnels.
    tunnels: Vec<IpAddr>,
    /// Addresses that may send there.
    directors: Vec<IpAddr>,
    drops: Vec<drops::Drop>,
}

#[derive(Debug, Serialize)]
struct Counts {
    services: usize,
    frontends: usize,
    vips: usize,
    endpoints: usize,
    next_hops: usize,
    next_hops_unresolved: usize,
}

impl<'a> Overview<'a> {
    pub(super) fn of(in_force: &'a InForce) -> Self {
        Self {
            node: in_force.agent.as_ref().map(|report| report.node.as_str()),
            revision: in_force.reading.revision,
            revision_at: in_force.reading.revision_at,
            agent_runs: in_force.agent_runs,
            agent: in_force.agent.as_ref(),
            findings: findings::of(in_force),
            interfaces: interfaces::list(in_force),
            services: Counts::of(in_force),
            flows: in_force.reading.flows,
            tunnels: in_force.state.tunnels.iter().copied().collect(),
            directors: in_force.state.directors.iter().copied().collect(),
            drops: drops::list(in_force),
        }
    }
}

impl Counts {
    fn of(in_force: &InForce) -> Self {
        let services = &in_force.state.services;
        let next_hops = &in_force.state.next_hops;
        Self {
            services: services.len(),
            frontends: services.values().map(|service| service.frontends.len()).sum(),
            vips: services
                .values()
                .flat_map(|service| service.frontends.iter().map(|frontend| frontend.vip))
                .collect::<BTreeSet<_>>()
                .len(),
            endpoints: services.values().map(|service| service.endpoints.len()).sum(),
            next_hops: next_hops.len(),
            next_hops_unresolved: next_hops.values().filter(|state| state.mac.is_none()).count(),
        }
    }
}

/// The overview, for people: one screen.
pub(super) fn text(in_force: &InForce, style: Style) -> String {
    let overview = Overview::of(in_force);
    let problems = in_force.agent.as_ref().map_or(&[][..], |report| &report.problems);
    let mut text = headline(&overview, problems.len(), in_force.now, style);
    let _ = writeln!(text, "\n{}", interfaces::table(&overview.interfaces, style));

    let Counts { services, frontends, vips, endpoints, next_hops, next_hops_unresolved } = overview.services;
    let _ = writeln!(
        text,
        "\n{}, {}, {}, {}; {}{}",
        count(services, "service"),
        count(vips, "VIP"),
        count(frontends, "frontend"),
        count(endpoints, "endpoint"),
        count(next_hops, "next hop"),
        if next_hops_unresolved > 0 { format!(", {next_hops_unresolved} unresolved") } else { String::new() },
    );

    let tunnels: Vec<String> = in_force.state.tunnels.iter().map(ToString::to_string).collect();
    if !tunnels.is_empty() {
        let _ = writeln!(
            text,
            "tunnels are accepted at {} from {}",
            tunnels.join(", "),
            count(in_force.state.directors.len(), "director")
        );
    }

    let FlowUse { known, in_use, capacity } = overview.flows;
    if known > 0 {
        let _ = writeln!(
            text,
            "{} of translated endpoints are known, {} had a packet in the last minute; there is room for {}",
            count(usize::try_from(known).unwrap_or(usize::MAX), "flow"),
            grouped(in_use),
            grouped(capacity)
        );
    }

    for finding in &overview.findings {
        let (word, tone) = match finding.severity {
            Severity::Broken => ("BROKEN ", Tone::Bad),
            Severity::Warning => ("WARNING", Tone::Warning),
            Severity::Note => ("NOTE   ", Tone::Plain),
        };
        let _ = write!(text, "\n{}  {}\n         -> {}", style.paint(word, tone), finding.what, finding.cure);
    }
    if !overview.findings.is_empty() {
        text.push('\n');
    }

    if let Some(report) = in_force.agent.as_ref().filter(|report| !report.problems.is_empty()) {
        let _ = writeln!(
            text,
            "\n{} (as the agent saw it {} ago)",
            style.paint("PROBLEMS", Tone::Heading),
            duration(in_force.now.saturating_sub(report.written_at))
        );
        for problem in &report.problems {
            let _ = writeln!(
                text,
                "  {}  {}: {}",
                style.paint(problem.reason.name(), Tone::Warning),
                problem.place,
                problem.message
            );
        }
    }

    let dropped: u64 = overview.drops.iter().map(|drop| drop.packets).sum();
    if dropped > 0 {
        let _ = writeln!(text, "\n{} {} in all", style.paint("DROPS", Tone::Heading), grouped(dropped));
        for drop in &overview.drops {
            let rate = drop.per_second.map_or_else(String::new, |rate| format!(" ({rate:.0}/s)"));
            let _ = writeln!(
                text,
                "  {}  {}{rate}  {}\n      -> {}",
                grouped(drop.packets),
                style.paint(drop.reason, Tone::Warning),
                drop.cause,
                drop.cure
            );
        }
    }
    text
}

fn headline(overview: &Overview<'_>, problems: usize, now: u64, style: Style) -> String {
    let worst = overview.findings.iter().map(|finding| finding.severity).min();
    let (words, tone) = match (worst, problems) {
        (Some(Severity::Broken), _) => ("not all is working", Tone::Bad),
        (Some(Severity::Warning), _) => ("working, with warnings", Tone::Warning),
        (Some(Severity::Note) | None, 0) => ("working", Tone::Good),
        (Some(Severity::Note) | None, _) => ("working, with problems in the configuration", Tone::Warning),
    };
    let agent = match overview.agent {
        Some(report) if overview.agent_runs => format!("agent {} runs as process {}", report.version, report.pid),
        None if overview.agent_runs => "an agent runs".to_owned(),
        Some(_) | None => "no agent runs".to_owned(),
    };
    let revision = if overview.revision_at == 0 {
        "no revision in force".to_owned()
    } else {
        let age = now.saturating_sub(overview.revision_at);
        format!("revision {} in force for {}", overview.revision, duration(age))
    };
    format!(
        "{}: {}\n{revision}; {agent}\n",
        style.paint(overview.node.unwrap_or("this node"), Tone::Heading),
        style.paint(words, tone)
    )
}
