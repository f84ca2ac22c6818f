use guenon_ebpf::abi::{COUNTERS_PER_INTERFACE, FIRST_DROP, FrontendCounters, InterfaceCounters, PASSED, RECEIVED};
use prometheus::{Encoder as _, Registry, TextEncoder};

use super::*;
use crate::model::{Egress, Frontend, Mac, NextHopKey, NextHopState, Protocol, ServiceName};
use crate::reading::{
    AttachedEgress, AttachedMode, EndpointReading, FlowUse, FrontendReading, InterfaceReading, MapUse,
};

fn counters(values: &[(usize, u64)]) -> InterfaceCounters {
    let mut counters = InterfaceCounters([Counter::default(); COUNTERS_PER_INTERFACE]);
    for (index, packets) in values {
        counters.0[*index] = Counter { packets: *packets, bytes: packets * 100 };
    }
    counters
}

/// A node that received 12 packets on two CPUs, passed 7 and dropped 5 for want of a backend.
fn reading() -> Reading {
    let drop = FIRST_DROP + DropReason::NoBackend as usize;
    let egress = Egress { ifindex: 2, mac: Mac([2; 6]), mtu: 1500, tags: Vec::new() };
    let key = NextHopKey { interface: "eth0".into(), gateway: "10.0.0.1".parse().expect("an address") };
    Reading {
        revision: 3,
        revision_at: 1000,
        interfaces: vec![InterfaceReading {
            name: "eth0".into(),
            ifindex: 2,
            mode: AttachedMode::Native,
            egress: AttachedEgress::None,
            egress_cpus: Vec::new(),
            cpus: vec![counters(&[(RECEIVED, 7), (PASSED, 7)]), counters(&[(RECEIVED, 5), (drop, 5)])],
        }],
        maps: vec![MapUse { map: "ROWS", used: 1, capacity: 16 }],
        next_hops: vec![(key, NextHopState { mac: None, mtu: 1500, egress })],
        ..Reading::default()
    }
}

fn scrape(reading: anyhow::Result<Reading>) -> String {
    let registry = Registry::new();
    let reading = std::sync::Mutex::new(Some(reading));
    let read = move |_| reading.lock().expect("no panic").take().expect("one scrape");
    let collector = DataPathCollector::new(Box::new(read), Detail::Endpoint).expect("valid definitions");
    registry.register(Box::new(collector)).expect("registers");
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text).expect("encodes");
    String::from_utf8(text).expect("text")
}

#[track_caller]
fn assert_has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "no `{line}` in\n{text}");
    }
}

#[test]
fn every_packet_is_exported_under_its_verdict_by_interface_and_cpu() {
    assert_has(
        &scrape(Ok(reading())),
        &[
            r#"guenon_received_packets_total{interface="eth0",cpu="0"} 7"#,
            r#"guenon_packets_total{interface="eth0",cpu="0",verdict="pass"} 7"#,
            r#"guenon_packets_total{interface="eth0",cpu="1",verdict="drop"} 5"#,
            r#"guenon_bytes_total{interface="eth0",cpu="1",verdict="drop"} 500"#,
            r#"guenon_ledger_difference{interface="eth0"} 0"#,
            r#"guenon_interface_info{interface="eth0",mode="native"} 1"#,
            "guenon_revision 3",
            r#"guenon_map_capacity{map="ROWS"} 16"#,
            "guenon_next_hops_unresolved 1",
        ],
    );
}

#[test]
fn what_leaves_is_exported_where_the_program_on_the_way_out_is() {
    let mut reading = reading();
    let absent = scrape(Ok(reading.clone()));
    assert_has(&absent, &[r#"guenon_egress_info{interface="eth0",hook="none"} 1"#, "guenon_flows_capacity 0"]);
    assert!(!absent.contains("guenon_egress_packets_total"), "{absent}");
    let interface = &mut reading.interfaces[0];
    interface.egress = AttachedEgress::Tcx;
    let drop = FIRST_DROP + DropReason::FragReply as usize;
    let translated = Event::ReplyTranslated.index();
    interface.egress_cpus = vec![counters(&[(RECEIVED, 9), (PASSED, 6), (drop, 2), (translated, 4)])];
    reading.flows = FlowUse { known: 3, in_use: 2, capacity: 64 };
    assert_has(
        &scrape(Ok(reading)),
        &[
            r#"guenon_egress_info{interface="eth0",hook="tcx"} 1"#,
            r#"guenon_egress_packets_total{interface="eth0",cpu="0",verdict="pass"} 6"#,
            r#"guenon_egress_bytes_total{interface="eth0",cpu="0",verdict="drop"} 200"#,
            r#"guenon_egress_ledger_difference{interface="eth0"} 1"#,
            r#"guenon_drops_total{reason="frag_reply"} 2"#,
            r#"guenon_drops_total{reason="no_backend"} 5"#,
            r#"guenon_events_total{event="reply_translated"} 4"#,
            "guenon_flows 3",
            "guenon_flows_in_use 2",
            "guenon_flows_capacity 64",
        ],
    );
}

#[test]
fn every_reason_and_event_is_exported_from_zero() {
    let text = scrape(Ok(reading()));
    for reason in DropReason::ALL {
        let count = if *reason == DropReason::NoBackend { 5 } else { 0 };
        assert_has(&text, &[&format!("guenon_drops_total{{reason=\"{}\"}} {count}", reason.name())]);
    }
    for (_, event) in Event::ALL {
        assert_has(&text, &[&format!("guenon_events_total{{event=\"{event}\"}} 0")]);
    }
}

#[test]
fn frontends_and_endpoints_carry_their_service() {
    let mut reading = reading();
    let service = ServiceName::new("shop", "web");
    let frontend = Frontend { vip: "2001:db8::10".parse().expect("an address"), protocol: Protocol::Tcp, port: 80 };
    let counters = FrontendCounters { directed: Counter { packets: 9, bytes: 900 }, delivered: 4, dropped: 1 };
    reading.frontends = vec![FrontendReading { service: service.clone(), frontend, counters }];
    let address = "10.0.0.7".parse().expect("an address");
    reading.endpoints =
        vec![EndpointReading { service, address, counter: Counter { packets: 8, bytes: 800 }, share: Some(0.25) }];
    assert_has(
        &scrape(Ok(reading)),
        &[
            r#"guenon_frontend_directed_packets_total{service="shop/web",frontend="[2001:db8::10]:80/TCP"} 9"#,
            r#"guenon_frontend_dropped_packets_total{service="shop/web",frontend="[2001:db8::10]:80/TCP"} 1"#,
            r#"guenon_endpoint_bytes_total{service="shop/web",endpoint="10.0.0.7"} 800"#,
            r#"guenon_endpoint_share_ratio{service="shop/web",endpoint="10.0.0.7"} 0.25"#,
        ],
    );
}

#[test]
fn a_scrape_without_maps_says_so_and_exports_nothing_false() {
    let text = scrape(Err(anyhow::anyhow!("the maps are gone")));
    assert_has(&text, &["guenon_map_read_errors_total 1"]);
    assert!(!text.contains("guenon_packets_total"), "{text}");
}

#[test]
fn what_is_exported_is_what_is_documented() {
    let mut reading = reading();
    let service = ServiceName::new("shop", "web");
    let frontend = Frontend { vip: "203.0.113.10".parse().expect("an address"), protocol: Protocol::Udp, port: 53 };
    let counters = FrontendCounters::default();
    reading.frontends = vec![FrontendReading { service: service.clone(), frontend, counters }];
    let address = "10.0.0.7".parse().expect("an address");
    reading.endpoints = vec![EndpointReading { service, address, counter: Counter::default(), share: Some(0.5) }];
    let exported = families(&reading, &[("eth0".to_owned(), (1, 2)), ("eth9".to_owned(), (3, 4))].into(), 1060.0);
    for family in &exported {
        let definition = define::ALL
            .iter()
            .find(|definition| definition.name == family.name())
            .unwrap_or_else(|| panic!("{} is not defined", family.name()));
        for metric in family.get_metric() {
            let labels: Vec<&str> = metric.get_label().iter().map(|label| label.name()).collect();
            assert_eq!(labels, definition.labels, "{}", definition.name);
        }
        assert!(!family.get_metric().is_empty(), "{} has no sample", definition.name);
    }
}
