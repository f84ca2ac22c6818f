//! Which endpoint a flow gets: hash and row are the library's, on every path.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use guenon_controller::model::{EndpointState, ServiceState};
use guenon_controller::simulate::sandbox::Verdict;
use guenon_ebpf::abi::Event;
use rstest::rstest;

use crate::support::bed::{self, Way, vip};
use crate::support::expect::{client_hash, encapsulated_to, flow_hash};
use crate::support::frame::frame;
use crate::support::lab::lab;
use crate::support::packet::Packet;
use crate::support::rng::Rng;

fn some_client(rng: &mut Rng, four: bool) -> SocketAddr {
    let bits = u128::from(rng.next()) << 64 | u128::from(rng.next());
    let ip = if four {
        IpAddr::V4(Ipv4Addr::from((rng.next() as u32 >> 3) | 0x1000_0000))
    } else {
        IpAddr::V6(Ipv6Addr::from(0x2000_u128 << 112 | bits >> 16))
    };
    SocketAddr::new(ip, rng.next() as u16)
}

/// The endpoint that the tables name for this hash.
fn chosen(service: &ServiceState, hash: u64) -> EndpointState {
    let row = service.rows[hash as usize & (service.rows.len() - 1)];
    service.endpoints[usize::from(row.primary())].clone()
}

#[rstest]
fn the_row_is_the_one_that_the_library_s_hash_names(
    #[values(true, false)] four: bool,
    #[values(true, false)] tcp: bool,
) {
    let service = Way::Many.state();
    let mut rng = Rng::new(7);
    let mut met = BTreeSet::new();
    let mut lab = lab();
    for _ in 0..300 {
        let (source, destination) = (some_client(&mut rng, four), Way::Many.at(vip(four)));
        let packet = if tcp { Packet::tcp(source, destination) } else { Packet::udp(source, destination) };
        let hash = flow_hash(&packet);
        let endpoint = chosen(&service, hash);
        let want = encapsulated_to(&endpoint, Way::Many, hash, &packet.ip());
        let outcome = lab.send_becomes(&frame(&packet.ip()), Verdict::Tx, &[Event::Encapsulated], &want);
        assert_eq!(outcome.endpoint, Some(endpoint.address));
        met.insert(endpoint.address);
    }
    assert_eq!(met.len(), 3, "all endpoints get flows: {met:?}");
}

#[rstest]
fn with_client_ip_affinity_all_flows_of_a_client_get_one_endpoint(#[values(true, false)] four: bool) {
    let service = Way::ManyByClient.state();
    let mut rng = Rng::new(8);
    let mut met = BTreeSet::new();
    let mut lab = lab();
    for _ in 0..40 {
        let client = some_client(&mut rng, four).ip();
        for tcp in [true, false] {
            for port in [1024, 40_000, 65_535] {
                let (source, destination) = (SocketAddr::new(client, port), Way::ManyByClient.at(vip(four)));
                let packet = if tcp { Packet::tcp(source, destination) } else { Packet::udp(source, destination) };
                let endpoint = chosen(&service, client_hash(&packet));
                // The outer source port still tells flows apart: it is made of the 5-tuple.
                let want = encapsulated_to(&endpoint, Way::ManyByClient, flow_hash(&packet), &packet.ip());
                lab.send_becomes(&frame(&packet.ip()), Verdict::Tx, &[Event::Encapsulated], &want);
                met.insert(endpoint.address);
            }
        }
    }
    assert_eq!(met.len(), 3, "all endpoints get clients: {met:?}");
}

/// A packet of a flow takes the same way whatever else it carries.
#[rstest]
fn the_endpoint_does_not_depend_on_anything_but_the_flow(#[values(true, false)] four: bool) {
    let (source, destination) = (bed::caller(four), Way::Many.at(vip(four)));
    let plain = Packet::tcp(source, destination);
    let service = Way::Many.state();
    let endpoint = chosen(&service, flow_hash(&plain));
    let mut variants =
        vec![plain.clone().syn(), plain.clone().payload([]), plain.clone().traffic_class(10, 3), plain.clone().id(9)];
    variants.push(if four {
        plain.clone().options(&[0x94, 4, 0, 0])
    } else {
        plain.clone().extension(crate::support::packet::DESTINATION_OPTIONS, &[1, 4, 0, 0, 0, 0])
    });
    for packet in variants {
        let want = encapsulated_to(&endpoint, Way::Many, flow_hash(&plain), &packet.ip());
        lab().send_becomes(&frame(&packet.ip()), Verdict::Tx, &[Event::Encapsulated], &want);
    }
}
