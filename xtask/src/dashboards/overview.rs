//! Overview: is it working, how much, where do drops come from.

use super::board::{Board, Variable};
use super::panel::{fault, lines, number, stack, table};

pub(super) fn board() -> Board {
    Board {
        uid: "guenon-overview",
        title: "Guenon / Overview",
        description: "Is it working, how much goes through it, and where do drops come from.",
        variables: vec![
            Variable { name: "job", title: "Job", metric: "guenon_revision", label: "job", several: true },
            Variable { name: "instance", title: "Node", metric: "guenon_revision", label: "instance", several: true },
        ],
        rows: vec![("Is it working?", working()), ("How much?", how_much()), ("Where do drops come from?", drops())],
    }
}

fn working() -> Vec<super::panel::Panel> {
    vec![
        number("Agents", "short", "Agents that answer Prometheus.").query(r#"sum(up{job=~"$job"})"#, ""),
        fault("Agents down", "Agents that do not answer. Their nodes forward by the last configuration.")
            .query(r#"count(up{job=~"$job"} == 0) or vector(0)"#, ""),
        fault("Sources away", "Agents that cannot read their objects: what changes is not followed there.")
            .query(r#"sum(guenon_source_up{instance=~"$instance"} == bool 0)"#, ""),
        fault("Problems", "What keeps part of the configuration out of force; `guenon status` on the node names each.")
            .query(r#"sum(guenon_problems{instance=~"$instance"})"#, ""),
        fault("Not native", "Interfaces whose program runs in the slow generic path, or not at all.")
            .query(r#"count(guenon_interface_info{instance=~"$instance", mode!="native"} == 1) or vector(0)"#, ""),
        fault("Next hops lost", "Next hops that do not answer: what leaves by them is dropped as no_neighbour.")
            .query(r#"sum(guenon_next_hops_unresolved{instance=~"$instance"})"#, ""),
        number("Under no verdict", "short", "Packets received and not yet under a verdict: a few while they are under way. If it grows, that is a defect.")
            .query(r#"max(abs(guenon_ledger_difference{instance=~"$instance"}))"#, ""),
        number("Dropped", "percentunit", "Share of the packets received that were dropped.").query(
            r#"sum(rate(guenon_packets_total{instance=~"$instance", verdict="drop"}[$__rate_interval])) / sum(rate(guenon_received_packets_total{instance=~"$instance"}[$__rate_interval]))"#,
            "",
        ),
        lines("Problems by reason", "short", "What keeps part of the configuration out of force, over all nodes.").query(
            r#"sum by (reason) (guenon_problems{instance=~"$instance"})"#,
            "{{reason}}",
        ),
        table("Hash keys", "short", "Fingerprints of the keys in force, and how many nodes have each. Directors that differ send flows to different endpoints: there must be one.")
            .query("count by (fingerprint) (guenon_hash_key_info)", ""),
    ]
}

fn how_much() -> Vec<super::panel::Panel> {
    vec![
        stack("Packets by verdict", "pps", "pass: to the node's own stack, untouched or stripped. tx, redirect: sent on. drop: see below.").query(
            r#"sum by (verdict) (rate(guenon_packets_total{instance=~"$instance"}[$__rate_interval]))"#,
            "{{verdict}}",
        ),
        stack("Bytes by verdict", "Bps", "The same in bytes, as received.").query(
            r#"sum by (verdict) (rate(guenon_bytes_total{instance=~"$instance"}[$__rate_interval]))"#,
            "{{verdict}}",
        ),
        lines("Packets by node", "pps", "Packets that each node's program saw, those that are none of its business included.").query(
            r#"sum by (instance) (rate(guenon_received_packets_total{instance=~"$instance"}[$__rate_interval]))"#,
            "{{instance}}",
        ),
        lines("What happened to them", "pps", "Encapsulated, decapsulated, delivered on the director itself, pings answered, and so on.").query(
            r#"sum by (event) (rate(guenon_events_total{instance=~"$instance"}[$__rate_interval])) > 0"#,
            "{{event}}",
        ),
        stack("Busiest services", "pps", "Packets that directors took for a service: the ten with the most. Takes --metrics-detail service.")
            .width(24)
            .query(
                r#"topk(10, sum by (service) (rate(guenon_frontend_directed_packets_total{instance=~"$instance"}[$__rate_interval])))"#,
                "{{service}}",
            ),
    ]
}

fn drops() -> Vec<super::panel::Panel> {
    vec![
        stack("Drops by reason", "pps", "Click on a line for the cause and the cure of its reason.")
            .query(
                r#"sum by (reason) (rate(guenon_drops_total{instance=~"$instance"}[$__rate_interval])) > 0"#,
                "{{reason}}",
            )
            .of_reasons()
            .or("no drops"),
        table("Drops in the time shown", "short", "Who dropped how many and why. Click on a cell for the cause and the cure of its reason.")
            .query(
                r#"sum by (instance, reason) (increase(guenon_drops_total{instance=~"$instance"}[$__range])) > 0"#,
                "",
            )
            .of_reasons()
            .or("no drops"),
        lines("Share of packets dropped, by node", "percentunit", "Of all that a node's program saw.").query(
            r#"sum by (instance) (rate(guenon_packets_total{instance=~"$instance", verdict="drop"}[$__rate_interval])) / sum by (instance) (rate(guenon_received_packets_total{instance=~"$instance"}[$__rate_interval]))"#,
            "{{instance}}",
        ),
        lines("Dropped by kernel and drivers", "pps", "Beside what the program judged: full queues, and frames that were lost after their verdict.").query(
            r#"sum by (instance, interface, direction) (rate(guenon_interface_kernel_drops_total{instance=~"$instance"}[$__rate_interval]))"#,
            "{{instance}} {{interface}} {{direction}}",
        ),
    ]
}
