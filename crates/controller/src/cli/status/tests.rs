use std::sync::Arc;

use guenon_ebpf::abi::{
    Counter, Event, FIRST_DROP, FrontendCounters, InterfaceCounters, PASSED, RECEIVED, Row, TRANSMITTED,
};
use guenon_ebpf::hash::{DEFAULT_KEY, Schedule};
use guenon_ebpf::reason::DropReason;

use super::findings::Severity;
use super::*;
use crate::agent_report::Delivered;
use crate::model::{
    Egress, EndpointState, Frontend, LocalDelivery, Mac, NextHopKey, NextHopState, Path, Place, Problem, ProblemReason,
    Protocol, ServiceName, ServiceState,
};
use crate::reading::{
    AttachedEgress, AttachedMode, EndpointReading, FlowUse, FrontendReading, InterfaceReading, MapUse,
};

const PLAIN: Style = Style { colour: false };

fn counters(values: &[(usize, u64)]) -> InterfaceCounters {
    let mut counters = InterfaceCounters([Counter::default(); guenon_ebpf::abi::COUNTERS_PER_INTERFACE]);
    for (index, packets) in values {
        counters.0[*index] = Counter { packets: *packets, bytes: packets * 100 };
    }
    counters
}

/// A node where all is well: one service, two endpoints behind one next hop, an agent that runs.
fn working() -> InForce {
    let name = ServiceName::new("shop", "web");
    let frontend = Frontend { vip: "203.0.113.10".parse().expect("an address"), protocol: Protocol::Tcp, port: 80 };
    let gateway = "172.17.2.1".parse().expect("an address");
    let next_hop = NextHopKey { interface: "eth0".into(), gateway };
    let egress = Egress { ifindex: 2, mac: Mac([2; 6]), mtu: 1500, tags: Vec::new() };
    let tunnel = |destination: &str| Path::Tunnel {
        source: "172.17.2.2".parse().expect("an address"),
        destination: destination.parse().expect("an address"),
        next_hop: next_hop.clone(),
    };
    let endpoints = ["172.17.3.3", "172.17.3.4"]
        .map(|address| EndpointState { address: address.parse().expect("an address"), path: tunnel(address) });
    let rows: Vec<Row> = (0..1024).map(|row| if row < 256 { Row::new(0, 1) } else { Row::new(1, 0) }).collect();
    let service = ServiceState {
        frontends: [frontend].into(),
        client_ip: false,
        endpoints: endpoints.to_vec(),
        rows: rows.into(),
    };
    let mut state = State::default();
    state.next_hops.insert(next_hop, NextHopState { mac: Some(Mac([4; 6])), mtu: 1500, egress });
    state.services.insert(name.clone(), Arc::new(service));
    let directed = Counter { packets: 300, bytes: 30_000 };
    let reading = Reading {
        revision: 7,
        revision_at: 1_000,
        hash_fingerprint: 1,
        interfaces: vec![InterfaceReading {
            name: "eth0".into(),
            ifindex: 2,
            mode: AttachedMode::Native,
            egress: AttachedEgress::None,
            egress_cpus: Vec::new(),
            cpus: vec![counters(&[(RECEIVED, 1000), (PASSED, 700), (TRANSMITTED, 300)])],
        }],
        maps: vec![MapUse { map: "ROWS", used: 1, capacity: 16 }],
        flows: FlowUse::default(),
        next_hops: Vec::new(),
        frontends: vec![FrontendReading {
            service: name.clone(),
            frontend,
            counters: FrontendCounters { directed, delivered: 0, dropped: 0 },
        }],
        endpoints: vec![EndpointReading {
            service: name,
            address: "172.17.3.4".parse().expect("an address"),
            counter: Counter { packets: 225, bytes: 22_500 },
            share: Some(0.5),
        }],
    };
    let agent = AgentReport { written_at: 1_055, pid: 42, node: "t22".into(), ..AgentReport::default() };
    InForce {
        now: 1_060,
        reading,
        state,
        agent: Some(agent),
        agent_runs: true,
        kernel_drops: KernelDrops::default(),
        before: None,
    }
}

#[test]
fn a_node_that_works_says_so_on_its_first_line() {
    let text = overview::text(&working(), PLAIN);
    assert!(text.starts_with("t22: working\nrevision 7 in force for 1 min 0 s; agent"), "{text}");
    assert!(text.contains("1 service, 1 VIP, 1 frontend, 2 endpoints; 1 next hop\n"), "{text}");
    assert!(!text.contains("->"), "nothing to do: {text}");
    assert!(!text.contains('\x1b'), "no colour: {text:?}");
}

#[test]
fn colour_marks_words_where_it_is_wanted() {
    let text = overview::text(&working(), Style { colour: true });
    assert!(text.contains("\x1b[32mworking\x1b[0m"), "{text:?}");
}

#[test]
fn a_silent_next_hop_is_named_with_what_to_do() {
    let mut in_force = working();
    in_force.state.next_hops.values_mut().for_each(|state| state.mac = None);
    let findings = findings::of(&in_force);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].severity, Severity::Broken);
    assert!(findings[0].what.contains("172.17.2.1 on eth0"), "{}", findings[0].what);
    assert!(endpoints::list(&in_force).iter().all(|endpoint| endpoint.fault == Some("no_neighbour")));
    let text = overview::text(&in_force, PLAIN);
    assert!(text.starts_with("t22: not all is working"), "{text}");
    assert!(text.contains("1 next hop, 1 unresolved"), "{text}");
}

#[test]
fn each_thing_that_is_wrong_has_a_finding_and_the_worst_comes_first() {
    let mut in_force = working();
    in_force.agent_runs = false;
    in_force.reading.hash_fingerprint = Schedule::new(DEFAULT_KEY).fingerprint();
    in_force.reading.interfaces[0].mode = AttachedMode::Detached;
    in_force.reading.maps[0].used = 15;
    for service in in_force.state.services.values_mut() {
        Arc::make_mut(service).rows = Arc::new([]);
    }
    let findings = findings::of(&in_force);
    let words =
        ["eth0 is away", "no_backend): shop/web", "No agent runs", "The map ROWS holds 15 of 16", "default key"];
    for (finding, words) in findings.iter().zip(words) {
        assert!(finding.what.contains(words), "`{words}` is not in `{}`", finding.what);
        assert!(finding.cure.len() > 20, "{}", finding.what);
    }
    assert_eq!(findings.len(), words.len(), "{findings:?}");
    assert!(findings.is_sorted_by_key(|finding| finding.severity));
}

#[test]
fn an_unreachable_endpoint_is_named_with_the_reason_of_its_drops() {
    let mut in_force = working();
    for service in in_force.state.services.values_mut() {
        let destination = "172.17.3.3".parse().expect("an address");
        Arc::make_mut(service).endpoints[0].path = Path::Unreachable { destination };
    }
    let list = endpoints::list(&in_force);
    assert_eq!((list[0].path, list[0].fault), ("unreachable", Some("no_route")));
    assert_eq!((list[1].path, list[1].fault), ("tunnel", None));
    assert!(findings::of(&in_force)[0].what.contains("172.17.3.3 of shop/web (no_route)"));
}

#[test]
fn an_endpoint_whose_packets_are_rewritten_shows_where_it_listens() {
    let mut in_force = working();
    let ports = |ports: &[(u16, u16)]| {
        let ports = ports.iter().map(|(port, listens)| ((Protocol::Tcp, *port), *listens)).collect();
        Path::Local(LocalDelivery::Nat { ports: Arc::new(ports) })
    };
    for service in in_force.state.services.values_mut() {
        let service = Arc::make_mut(service);
        service.endpoints[0].path = ports(&[(80, 8080)]);
        service.endpoints[1].path = ports(&[(80, 8080), (443, 8443), (8080, 8080)]);
    }
    let text = endpoints::table(&endpoints::list(&in_force), PLAIN);
    let rows: Vec<&str> = text.lines().skip(1).collect();
    assert!(rows[0].contains(" nat :8080 ") && rows[1].contains(" nat :8080 :8443 "), "{text}");
    let document: serde_json::Value =
        serde_json::from_str(&json(Some(Subject::Endpoints), &in_force).expect("JSON")).expect("a document");
    assert_eq!(document[0]["path"], "nat");
    assert_eq!(document[0]["target_ports"], serde_json::json!({"80/TCP": 8080}));
}

#[test]
fn why_an_endpoint_has_its_delivery_is_what_the_agent_tells() {
    let mut in_force = working();
    for service in in_force.state.services.values_mut() {
        Arc::make_mut(service).endpoints[0].path = Path::Local(LocalDelivery::Local);
    }
    assert_eq!(endpoints::list(&in_force)[0].why, None, "nobody told");
    let delivered = Delivered { delivery: "Local".into(), why: "an address of its node".into() };
    // Of the second, an endpoint of another node now, the report is older than the maps.
    let told = ["172.17.3.3", "172.17.3.4"].map(|address| (address.parse().expect("an address"), delivered.clone()));
    in_force.agent.as_mut().expect("a report").deliveries = [("shop/web".to_owned(), told.into())].into();
    let list = endpoints::list(&in_force);
    assert_eq!(list[0].delivery.as_deref(), Some("Local"));
    assert_eq!((list[1].path, &list[1].why), ("tunnel", &None));
    let text = endpoints::table(&list, PLAIN);
    assert!(text.lines().nth(1).is_some_and(|line| line.contains(" local   an address of its node ")), "{text}");
}

#[test]
fn drops_come_with_cause_and_cure_the_most_frequent_first() {
    let mut in_force = working();
    let at = |reason: DropReason| FIRST_DROP + reason as usize;
    in_force.reading.interfaces[0].cpus = vec![
        counters(&[(at(DropReason::NoBackend), 5)]),
        counters(&[(at(DropReason::NoRoute), 9), (at(DropReason::NoBackend), 1)]),
    ];
    let list = drops::list(&in_force);
    assert_eq!(
        list.iter().map(|drop| (drop.reason, drop.packets)).collect::<Vec<_>>(),
        [("no_route", 9), ("no_backend", 6)]
    );
    let text = drops::table(&list, PLAIN);
    assert!(text.contains(DropReason::NoRoute.cause()) && text.contains(DropReason::NoRoute.cure()), "{text}");
    assert_eq!(drops::table(&[], PLAIN), "Nothing has been dropped.");
}

#[test]
fn what_the_kernel_dropped_stands_beside_what_the_program_judged() {
    let mut in_force = working();
    in_force.kernel_drops = [("eth0".to_owned(), (0, 23)), ("eth9".to_owned(), (5, 5))].into();
    let list = interfaces::list(&in_force);
    assert_eq!((list[0].kernel_rx_dropped, list[0].kernel_tx_dropped), (0, 23));
    let findings = findings::of(&in_force);
    assert_eq!((findings.len(), findings[0].severity), (1, Severity::Note));
    assert!(findings[0].what.contains("23 frames that were to leave by eth0"), "{}", findings[0].what);
}

#[test]
fn watching_tells_packets_a_second() {
    let mut in_force = working();
    let mut before = in_force.reading.clone();
    before.interfaces[0].cpus = vec![counters(&[(RECEIVED, 600), (PASSED, 600)])];
    in_force.before = Some((Duration::from_secs(2), before));
    assert_eq!(interfaces::list(&in_force)[0].received_per_second, Some(200.0));
    assert!(interfaces::table(&interfaces::list(&in_force), PLAIN).contains("RECEIVED/S"));
}

#[test]
fn rows_are_counted_by_endpoint_and_equal_tables_have_equal_fingerprints() {
    let in_force = working();
    let list = rows::list(&in_force);
    assert_eq!(list.iter().map(|rows| (rows.primary, rows.secondary)).collect::<Vec<_>>(), [(256, 768), (768, 256)]);
    let mut other = working();
    assert_eq!(rows::list(&other)[0].fingerprint, list[0].fingerprint);
    for service in other.state.services.values_mut() {
        let mut rows = service.rows.to_vec();
        rows[1023] = Row::new(0, 1);
        Arc::make_mut(service).rows = rows.into();
    }
    assert_ne!(rows::list(&other)[0].fingerprint, list[0].fingerprint);
}

#[test]
fn services_show_their_counters_and_shares() {
    let in_force = working();
    let text = services::table(&services::list(&in_force), PLAIN);
    assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("shop/web  203.0.113.10:80/TCP")), "{text}");
    let text = endpoints::table(&endpoints::list(&in_force), PLAIN);
    assert!(text.contains("75.00 %") && text.contains("172.17.2.1 on eth0"), "{text}");
}

#[test]
fn json_has_the_fields_that_the_help_names() {
    let mut in_force = working();
    let place = Place { file: "web.yaml".into(), line: 2, ..Place::default() };
    let problem = Problem { reason: ProblemReason::Invalid, place, message: "port 0".into() };
    in_force.agent.as_mut().expect("a report").problems.push(problem);
    let document: serde_json::Value = serde_json::from_str(&json(None, &in_force).expect("JSON")).expect("a document");
    for field in ["node", "revision", "revision_at", "agent", "findings", "interfaces", "services", "drops"] {
        assert!(!document[field].is_null(), "no {field} in {document}");
    }
    assert_eq!(document["agent"]["problems"][0]["place"]["line"], 2);
    let document: serde_json::Value =
        serde_json::from_str(&json(Some(Subject::Endpoints), &in_force).expect("JSON")).expect("a document");
    assert_eq!(document[1]["share"], 0.75);
    assert_eq!(document[1]["packets"], 225);
}

#[test]
fn numbers_and_times_read_well() {
    assert_eq!(
        (format::grouped(1), format::grouped(1000), format::grouped(1_234_567)),
        ("1".into(), "1,000".into(), "1,234,567".into())
    );
    assert_eq!(
        [5, 65, 3_700, 90_000].map(format::duration),
        ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"].map(str::to_owned)
    );
}

#[test]
fn what_leaves_is_shown_where_replies_are_translated() {
    let mut in_force = working();
    let text = interfaces::table(&interfaces::list(&in_force), PLAIN);
    assert!(!text.contains("TRANSLATED"), "{text}");
    let interface = &mut in_force.reading.interfaces[0];
    interface.egress = AttachedEgress::Clsact;
    let (translated, drop) = (Event::ReplyTranslated.index(), FIRST_DROP + DropReason::FragReply as usize);
    interface.egress_cpus = vec![counters(&[(RECEIVED, 90), (PASSED, 88), (translated, 40), (drop, 2)])];
    in_force.reading.flows = FlowUse { known: 12, in_use: 3, capacity: 64 };
    let list = interfaces::list(&in_force);
    assert_eq!((list[0].egress, list[0].egress_seen, list[0].egress_translated), ("clsact", 90, 40));
    assert_eq!((list[0].egress_dropped, list[0].egress_ledger_difference), (2, 0));
    assert!(interfaces::table(&list, PLAIN).contains("clsact"));
    let drops = drops::list(&in_force);
    assert_eq!((drops[0].reason, drops[0].packets), ("frag_reply", 2));
    let text = overview::text(&in_force, PLAIN);
    assert!(text.contains("12 flows of translated endpoints are known, 3 had a packet in the last minute"), "{text}");
    assert!(findings::of(&in_force).is_empty());
    in_force.reading.interfaces[0].cpus[0].0[Event::FlowEvicted.index()].packets = 5;
    assert!(
        findings::of(&in_force)[0].what.starts_with("5 flows in use have given way"),
        "{:?}",
        findings::of(&in_force)
    );
}
