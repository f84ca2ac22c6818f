//! Service: one VirtualService.

use super::board::{Board, Variable};
use super::panel::{lines, number, stack};

const SERVICE: Variable = Variable {
    name: "service",
    title: "Service",
    metric: "guenon_frontend_directed_packets_total",
    label: "service",
    several: false,
};

pub(super) fn board() -> Board {
    Board {
        uid: "guenon-service",
        title: "Guenon / Service",
        description: "One VirtualService: how much goes to which endpoint, and what is dropped. Takes --metrics-detail service; what is said of endpoints, --metrics-detail endpoint.",
        variables: vec![SERVICE],
        rows: vec![("Traffic", traffic()), ("Endpoints", endpoints()), ("Drops", drops())],
    }
}

fn traffic() -> Vec<super::panel::Panel> {
    vec![
        number("Packets", "pps", "Packets that directors took for it.").width(6).query(
            r#"sum(rate(guenon_frontend_directed_packets_total{service="$service"}[$__rate_interval]))"#,
            "",
        ),
        number("Bytes", "Bps", "Bytes of those packets.").width(6).query(
            r#"sum(rate(guenon_frontend_directed_bytes_total{service="$service"}[$__rate_interval]))"#,
            "",
        ),
        number("Directors with traffic", "short", "Nodes that took packets for it.").width(6).query(
            r#"count(sum by (instance) (rate(guenon_frontend_directed_packets_total{service="$service"}[$__rate_interval])) > 0) or vector(0)"#,
            "",
        ),
        number("Dropped", "percentunit", "Packets dropped in either role, per packet that directors took.").width(6).query(
            r#"sum(rate(guenon_frontend_dropped_packets_total{service="$service"}[$__rate_interval])) / sum(rate(guenon_frontend_directed_packets_total{service="$service"}[$__rate_interval]))"#,
            "",
        ),
        stack("Packets by frontend", "pps", "What directors took for each VIP, protocol and port.").query(
            r#"sum by (frontend) (rate(guenon_frontend_directed_packets_total{service="$service"}[$__rate_interval]))"#,
            "{{frontend}}",
        ),
        stack("Bytes by frontend", "Bps", "The same in bytes.").query(
            r#"sum by (frontend) (rate(guenon_frontend_directed_bytes_total{service="$service"}[$__rate_interval]))"#,
            "{{frontend}}",
        ),
        stack("Packets by director", "pps", "How the routers before them spread it.").query(
            r#"sum by (instance) (rate(guenon_frontend_directed_packets_total{service="$service"}[$__rate_interval]))"#,
            "{{instance}}",
        ),
        stack("Delivered from tunnels, by node", "pps", "What nodes stripped and handed over. What a director delivers on itself went through no tunnel.").query(
            r#"sum by (instance) (rate(guenon_frontend_delivered_packets_total{service="$service"}[$__rate_interval]))"#,
            "{{instance}}",
        ),
    ]
}

/// A packet is counted for its endpoint by the director that sends it and by the node that delivers it. The node
/// that delivers it sees those of every director, so the greatest number is the whole.
fn endpoints() -> Vec<super::panel::Panel> {
    vec![
        stack("Packets by endpoint", "pps", "As the node that delivers them counts them.").query(
            r#"max by (endpoint) (rate(guenon_endpoint_packets_total{service="$service"}[$__rate_interval]))"#,
            "{{endpoint}}",
        ),
        stack("Bytes by endpoint", "Bps", "The same in bytes.").query(
            r#"max by (endpoint) (rate(guenon_endpoint_bytes_total{service="$service"}[$__rate_interval]))"#,
            "{{endpoint}}",
        ),
        lines("Share of packets", "percentunit", "Each endpoint's share of the packets. Flows are shared out by weight, and some flows are longer than others.").query(
            r#"max by (endpoint) (rate(guenon_endpoint_packets_total{service="$service"}[$__rate_interval])) / ignoring (endpoint) group_left () sum(max by (endpoint) (rate(guenon_endpoint_packets_total{service="$service"}[$__rate_interval])))"#,
            "{{endpoint}}",
        ),
        lines("Share by weight", "percentunit", "Each endpoint's share of new flows: of the rows that name it first. Every director computes the same.").query(
            r#"max by (endpoint) (guenon_endpoint_share_ratio{service="$service"})"#,
            "{{endpoint}}",
        ),
    ]
}

fn drops() -> Vec<super::panel::Panel> {
    vec![
        lines(
            "Drops by frontend",
            "pps",
            "In either role. The reasons are counted by node: see the dashboard Overview.",
        )
        .query(
            r#"sum by (frontend) (rate(guenon_frontend_dropped_packets_total{service="$service"}[$__rate_interval]))"#,
            "{{frontend}}",
        ),
        lines("Drops by node", "pps", "Who dropped them.").query(
            r#"sum by (instance) (rate(guenon_frontend_dropped_packets_total{service="$service"}[$__rate_interval]))"#,
            "{{instance}}",
        ),
    ]
}
