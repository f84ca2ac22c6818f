//! Every metric, by name: the collectors and docs/metrics.md are made of this.

/// How detailed metrics are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Interfaces, verdicts, reasons.
    Node,
    /// Also per frontend.
    Service,
    /// Also per endpoint.
    Endpoint,
}

impl Detail {
    /// The word of `--metrics-detail`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Service => "service",
            Self::Endpoint => "endpoint",
        }
    }
}

/// Prometheus' type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts of observations by size.
    Histogram,
}

impl Kind {
    /// The word of the exposition format.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// The least detail at which it is exported.
    pub detail: Detail,
    /// What it says, in a sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($(#[$about:meta])* $list:ident: $($constant:ident = $name:literal, $kind:ident, [$($label:literal),*], $detail:ident, $help:literal;)+) => {
        $(#[doc = $help] pub(super) const $constant: Definition = Definition {
            name: $name, kind: Kind::$kind, labels: &[$($label),*], detail: Detail::$detail, help: $help,
        };)+

        $(#[$about])* pub const $list: &[Definition] = &[$($constant,)+];
    };
}

metrics! {
    /// Metrics of `guenon agent`, in the order of the reference.
    ALL:
    HASH_KEY_INFO = "guenon_hash_key_info", Gauge, ["fingerprint"], Node,
        "1, with what tells the hash key in force from others: directors that differ send flows to different endpoints.";
    RECEIVED_PACKETS = "guenon_received_packets_total", Counter, ["interface", "cpu"], Node,
        "Packets that the program saw, counted on entry; each also counts under exactly one verdict.";
    RECEIVED_BYTES = "guenon_received_bytes_total", Counter, ["interface", "cpu"], Node,
        "Bytes of the frames that the program saw (of a multi-buffer frame, its linear part).";
    PACKETS = "guenon_packets_total", Counter, ["interface", "cpu", "verdict"], Node,
        "Packets by verdict: pass (to the node's own stack), tx (sent on the same interface), redirect (to another), drop.";
    BYTES = "guenon_bytes_total", Counter, ["interface", "cpu", "verdict"], Node,
        "Bytes of those packets, as received.";
    DROPS = "guenon_drops_total", Counter, ["reason"], Node,
        "Packets dropped, by reason: docs/drop-reasons.md has cause and cure of each.";
    EVENTS = "guenon_events_total", Counter, ["event"], Node,
        "What happened to packets beside their verdict.";
    LEDGER_DIFFERENCE = "guenon_ledger_difference", Gauge, ["interface"], Node,
        "Packets received less packets with a verdict: 0 at rest, a few while packets are under way. Alert when it grows.";
    EGRESS_PACKETS = "guenon_egress_packets_total", Counter, ["interface", "cpu", "verdict"], Node,
        "Packets that the program on the way out saw, by verdict: pass (translated or not), drop. For interfaces that have it.";
    EGRESS_BYTES = "guenon_egress_bytes_total", Counter, ["interface", "cpu", "verdict"], Node,
        "Bytes of those packets.";
    EGRESS_LEDGER_DIFFERENCE = "guenon_egress_ledger_difference", Gauge, ["interface"], Node,
        "The ledger difference of the program on the way out.";
    EGRESS_INFO = "guenon_egress_info", Gauge, ["interface", "hook"], Node,
        "1 for each interface: how the program on the way out is attached (tcx, clsact, or none: nothing here is translated).";
    FLOWS = "guenon_flows", Gauge, [], Node,
        "Flows of endpoints that are translated (delivery Nat) of which replies can be translated back.";
    FLOWS_IN_USE = "guenon_flows_in_use", Gauge, [], Node,
        "Those among them that had a packet in the last minute: such a flow that gives way to another counts as flow_evicted.";
    FLOWS_CAPACITY = "guenon_flows_capacity", Gauge, [], Node,
        "Flows that the table has room for (--max-flows); the least useful of a set of four gives way.";
    KERNEL_DROPS = "guenon_interface_kernel_drops_total", Counter, ["interface", "direction"], Node,
        "Frames that the kernel or the driver dropped on an interface of ours (rx, tx), beside what the program judged.";
    INTERFACE_INFO = "guenon_interface_info", Gauge, ["interface", "mode"], Node,
        "1 for each interface: how the program is attached (native, generic, or detached: the interface is away or taken).";
    REVISION = "guenon_revision", Gauge, [], Node,
        "Number of the configuration in force in the maps.";
    REVISION_TIMESTAMP = "guenon_revision_timestamp_seconds", Gauge, [], Node,
        "When that configuration came into force, seconds since the Unix epoch.";
    REVISION_AGE = "guenon_revision_age_seconds", Gauge, [], Node,
        "How long that configuration has been in force.";
    MAP_USED = "guenon_map_used", Gauge, ["map"], Node,
        "Elements of a map in use, those included that wait until no CPU reads them.";
    MAP_CAPACITY = "guenon_map_capacity", Gauge, ["map"], Node,
        "Elements that a map can hold; a service that does not fit is refused whole.";
    NEXT_HOPS = "guenon_next_hops", Gauge, [], Node,
        "Next hops that tunnels leave by.";
    NEXT_HOPS_UNRESOLVED = "guenon_next_hops_unresolved", Gauge, [], Node,
        "Next hops whose MAC is not known: packets for them are dropped as no_neighbour.";
    SCRAPE_ERRORS = "guenon_map_read_errors_total", Counter, [], Node,
        "Scrapes at which the maps could not be read; what they count is missing from such a scrape.";
    FRONTEND_PACKETS = "guenon_frontend_directed_packets_total", Counter, ["service", "frontend"], Service,
        "Packets that the director took for a frontend, dropped ones included.";
    FRONTEND_BYTES = "guenon_frontend_directed_bytes_total", Counter, ["service", "frontend"], Service,
        "Bytes of those packets.";
    FRONTEND_DELIVERED = "guenon_frontend_delivered_packets_total", Counter, ["service", "frontend"], Service,
        "Packets that the decap node delivered for a frontend.";
    FRONTEND_DROPPED = "guenon_frontend_dropped_packets_total", Counter, ["service", "frontend"], Service,
        "Packets of a frontend that were dropped, in either role.";
    ENDPOINT_PACKETS = "guenon_endpoint_packets_total", Counter, ["service", "endpoint"], Endpoint,
        "Packets sent or delivered to an endpoint: its own node counts all of them once, a director those that it sent.";
    ENDPOINT_BYTES = "guenon_endpoint_bytes_total", Counter, ["service", "endpoint"], Endpoint,
        "Bytes of those packets.";
    ENDPOINT_SHARE = "guenon_endpoint_share_ratio", Gauge, ["service", "endpoint"], Endpoint,
        "Share of new flows that an endpoint takes by its weight: of the rows of its service's table, 0 to 1.";
    RECONCILE_DURATION = "guenon_reconcile_duration_seconds", Histogram, [], Node,
        "Time from the first unhandled change to its being in force (resolve, plan and apply).";
    RECONCILE_ERRORS = "guenon_reconcile_errors_total", Counter, [], Node,
        "Operations that the data path refused; what they would have changed stays as it was.";
    RECONCILE_OPERATIONS = "guenon_reconcile_operations_total", Counter, [], Node,
        "Operations carried out on the data path.";
    PROBLEMS = "guenon_problems", Gauge, ["reason"], Node,
        "Problems that keep part of the configuration out of force, by reason; `guenon status` shows them.";
    NEIGHBOURS_ASKED = "guenon_neighbour_requests_total", Counter, [], Node,
        "Neighbours whose MAC the kernel was asked to find out or to confirm.";
    NETLINK_EVENTS = "guenon_netlink_events_total", Counter, [], Node,
        "Changes of links, addresses, routes and neighbours that the kernel told of.";
    NETLINK_RESYNCS = "guenon_netlink_resyncs_total", Counter, [], Node,
        "Times that all of those were read anew, since the kernel lost some or could not be followed.";
    NETLINK_ERRORS = "guenon_netlink_errors_total", Counter, [], Node,
        "Neighbours that could not be asked for, and tables of the kernel that could not be read.";
    SOURCE_TIMESTAMP = "guenon_source_timestamp_seconds", Gauge, ["source"], Node,
        "When the source of objects last told something, seconds since the Unix epoch.";
    SOURCE_UP = "guenon_source_up", Gauge, ["source"], Node,
        "1 while the source of objects can be read; at 0 the last revision stays in force.";
    BUILD_INFO = "guenon_build_info", Gauge, ["version", "abi"], Node,
        "1: version of the agent, and of the layout of its maps.";
    START_TIME = "process_start_time_seconds", Gauge, [], Node,
        "When the agent started, seconds since the Unix epoch.";
    RESIDENT_MEMORY = "process_resident_memory_bytes", Gauge, [], Node,
        "Memory of the agent in RAM; the maps' pages that it has touched, which are the kernel's, are counted with it.";
    OWN_MEMORY = "guenon_resident_anonymous_bytes", Gauge, [], Node,
        "Memory of the agent's own in RAM: without the maps, and without what is read from files.";
}

metrics! {
    /// Metrics of `guenon controller`, beside those of the source, the build and the process.
    CONTROLLER:
    LEADER = "guenon_controller_leader", Gauge, [], Node,
        "1 on the replica that leads.";
    STATUS_WRITES = "guenon_controller_status_writes_total", Counter, ["result"], Node,
        "Writes of statuses: ok, error.";
    STATUS_WAITING = "guenon_controller_status_waiting", Gauge, [], Node,
        "Statuses that are to be written: at most one write of an object in 5 s.";
    AGENTS = "guenon_controller_agents", Gauge, ["state"], Node,
        "GuenonNodes by whether their agents are heard: heard, lost (no sign of life for 40 s).";
    CONTROLLER_SERVICES = "guenon_controller_services", Gauge, ["condition", "status"], Node,
        "VirtualServices by the status of each of their conditions, as the leader wants them written; 0 on other replicas.";
    KUBERNETES_EVENTS = "guenon_controller_events_total", Counter, ["result"], Node,
        "Kubernetes events: sent, kept_back (too many at a time).";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_prometheus_manners() {
        let mut seen = BTreeSet::new();
        for metric in ALL.iter().chain(CONTROLLER) {
            assert!(seen.insert(metric.name), "{} twice", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert!(metric.name.starts_with("guenon_") || metric.name.starts_with("process_"), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}: the help is a sentence", metric.name);
        }
    }
}
