//! Node: what one node's program and agent do.

use super::board::{Board, Variable};
use super::panel::{Panel, fault, lines, number, stack};

const NODE: Variable =
    Variable { name: "instance", title: "Node", metric: "guenon_revision", label: "instance", several: false };

pub(super) fn board() -> Board {
    Board {
        uid: "guenon-node",
        title: "Guenon / Node",
        description: "One node: verdicts by interface and CPU, maps, the way of a change, and the agent itself.",
        variables: vec![NODE],
        rows: vec![
            ("State", state()),
            ("Packets", packets()),
            ("Drops", drops()),
            ("Tables", tables()),
            ("The way of a change", changes()),
            ("The agent", agent()),
        ],
    }
}

fn state() -> Vec<Panel> {
    vec![
        number("Revision", "none", "Number of the configuration in force.")
            .query(r#"guenon_revision{instance="$instance"}"#, ""),
        number("In force for", "s", "How long that configuration has been in force.")
            .query(r#"guenon_revision_age_seconds{instance="$instance"}"#, ""),
        number("Up for", "s", "How long the agent has been running; the data path outlives it.").query(
            r#"time() - process_start_time_seconds{instance="$instance"} and on (instance) guenon_revision"#,
            "",
        ),
        fault("Problems", "What keeps part of the configuration out of force; `guenon status` names each.")
            .query(r#"sum(guenon_problems{instance="$instance"})"#, ""),
        fault("Source away", "1 while the agent cannot read its objects.")
            .query(r#"sum(guenon_source_up{instance="$instance"} == bool 0)"#, ""),
        fault("Next hops lost", "Next hops that do not answer.")
            .query(r#"guenon_next_hops_unresolved{instance="$instance"}"#, ""),
        number("Interfaces", "short", "Interfaces of the program, by how it is attached.")
            .width(6)
            .query(r#"sum by (mode) (guenon_interface_info{instance="$instance"})"#, "{{mode}}"),
    ]
}

fn packets() -> Vec<Panel> {
    vec![
        stack("Packets by interface and verdict", "pps", "Every packet is under exactly one verdict.").query(
            r#"sum by (interface, verdict) (rate(guenon_packets_total{instance="$instance"}[$__rate_interval]))"#,
            "{{interface}} {{verdict}}",
        ),
        stack("Bytes by interface and verdict", "Bps", "The same in bytes, as received.").query(
            r#"sum by (interface, verdict) (rate(guenon_bytes_total{instance="$instance"}[$__rate_interval]))"#,
            "{{interface}} {{verdict}}",
        ),
        stack(
            "Packets by CPU",
            "pps",
            "If one CPU takes all, the card spreads poorly: see its queues and its receive hash.",
        )
        .query(
            r#"sum by (cpu) (rate(guenon_received_packets_total{instance="$instance"}[$__rate_interval]))"#,
            "cpu {{cpu}}",
        ),
        stack("Bytes by CPU", "Bps", "The same in bytes.").query(
            r#"sum by (cpu) (rate(guenon_received_bytes_total{instance="$instance"}[$__rate_interval]))"#,
            "cpu {{cpu}}",
        ),
        lines("What happened to them", "pps", "Encapsulated, decapsulated, delivered here, pings answered, and so on.")
            .query(r#"rate(guenon_events_total{instance="$instance"}[$__rate_interval]) > 0"#, "{{event}}"),
        lines(
            "Under no verdict",
            "short",
            "Received less judged: a few while packets are under way. If it grows, that is a defect.",
        )
        .query(r#"guenon_ledger_difference{instance="$instance"}"#, "{{interface}}"),
    ]
}

fn drops() -> Vec<Panel> {
    vec![
        stack("Drops by reason", "pps", "Click on a line for the cause and the cure of its reason.")
            .query(r#"rate(guenon_drops_total{instance="$instance"}[$__rate_interval]) > 0"#, "{{reason}}")
            .of_reasons()
            .or("no drops"),
        lines(
            "Dropped by kernel and drivers",
            "pps",
            "Beside what the program judged: full queues, and frames that were lost after their verdict.",
        )
        .query(
            r#"rate(guenon_interface_kernel_drops_total{instance="$instance"}[$__rate_interval])"#,
            "{{interface}} {{direction}}",
        ),
    ]
}

fn tables() -> Vec<Panel> {
    vec![
        lines(
            "Maps in use",
            "percentunit",
            "A service that does not fit is refused whole: raise the agent's capacity before.",
        )
        .query(r#"guenon_map_used{instance="$instance"} / guenon_map_capacity{instance="$instance"}"#, "{{map}}"),
        lines("Elements in use", "short", "The same as numbers, those included that wait until no CPU reads them.")
            .query(r#"guenon_map_used{instance="$instance"}"#, "{{map}}"),
        lines("Next hops", "short", "Next hops that tunnels leave by, and those of them that do not answer.")
            .query(r#"guenon_next_hops{instance="$instance"}"#, "all")
            .query(r#"guenon_next_hops_unresolved{instance="$instance"}"#, "unresolved"),
        lines(
            "Flows of translated pods",
            "short",
            "Delivery Nat: flows that are known, those with a packet in the last minute, and how many there is room for.",
        )
        .query(r#"guenon_flows{instance="$instance"}"#, "known")
        .query(r#"guenon_flows_in_use{instance="$instance"}"#, "in use")
        .query(r#"guenon_flows_capacity{instance="$instance"}"#, "room for"),
        lines(
            "Problems by reason",
            "short",
            "What keeps part of the configuration out of force; `guenon status` names each.",
        )
        .query(r#"guenon_problems{instance="$instance"}"#, "{{reason}}"),
    ]
}

fn changes() -> Vec<Panel> {
    vec![
        lines("From a change to its being in force", "s", "Resolve, plan and apply: the median and the slowest hundredth.")
            .query(
                r#"histogram_quantile(0.5, sum by (le) (rate(guenon_reconcile_duration_seconds_bucket{instance="$instance"}[$__rate_interval])))"#,
                "half",
            )
            .query(
                r#"histogram_quantile(0.99, sum by (le) (rate(guenon_reconcile_duration_seconds_bucket{instance="$instance"}[$__rate_interval])))"#,
                "99 of 100",
            ),
        lines("Changes", "ops", "How often the configuration changed, the operations that it took on the data path, and those that were refused.")
            .query(r#"rate(guenon_reconcile_duration_seconds_count{instance="$instance"}[$__rate_interval])"#, "changes")
            .query(r#"rate(guenon_reconcile_operations_total{instance="$instance"}[$__rate_interval])"#, "operations")
            .query(r#"rate(guenon_reconcile_errors_total{instance="$instance"}[$__rate_interval])"#, "refused"),
        lines("Source silent for", "s", "Since the source of objects last told something. A quiet cluster may be silent for minutes; see whether it is up.").query(
            r#"time() - guenon_source_timestamp_seconds{instance="$instance"}"#,
            "{{source}}",
        ),
        lines("Source up", "bool", "1 while the source of objects can be read.")
            .query(r#"guenon_source_up{instance="$instance"}"#, "{{source}}"),
    ]
}

fn agent() -> Vec<Panel> {
    vec![
        lines("Memory", "bytes", "In RAM; the maps' pages that the agent has touched are counted with the first.")
            .query(r#"process_resident_memory_bytes{instance="$instance"} and on (instance) guenon_revision"#, "with maps and files")
            .query(r#"guenon_resident_anonymous_bytes{instance="$instance"}"#, "its own"),
        lines("Neighbours and netlink", "ops", "MACs asked for, changes of the node's network that the kernel told of, and what of that had to be read anew or failed.")
            .query(r#"rate(guenon_neighbour_requests_total{instance="$instance"}[$__rate_interval])"#, "neighbours asked for")
            .query(r#"rate(guenon_netlink_events_total{instance="$instance"}[$__rate_interval])"#, "events")
            .query(r#"rate(guenon_netlink_resyncs_total{instance="$instance"}[$__rate_interval])"#, "read anew")
            .query(r#"rate(guenon_netlink_errors_total{instance="$instance"}[$__rate_interval])"#, "failed"),
        lines("Scrapes that failed", "ops", "The maps could not be read, so what they count is missing from a scrape.")
            .query(r#"rate(guenon_map_read_errors_total{instance="$instance"}[$__rate_interval])"#, "failed"),
        number("Version", "none", "Of the agent, and of the layout of its maps.")
            .width(12)
            .query(r#"guenon_build_info{instance="$instance"}"#, "{{version}}, ABI {{abi}}"),
    ]
}
