//! Test vectors of `guenon-flow-1`. They are ABI: every director, of any version, must give these numbers, or connections
//! break when the director that serves them changes. The numbers were computed by another implementation (Python,
//! from the text of `hash.rs`). The same table stands in ARCHITECTURE.md.

use std::net::IpAddr;

use guenon_ebpf::abi::Address;
use guenon_ebpf::hash::{self, DEFAULT_KEY, Schedule};

struct Vector {
    key: [u8; 16],
    source: &'static str,
    destination: &'static str,
    ports: (u16, u16),
    protocol: u8,
    flow: u64,
    client: u64,
}

const OTHER_KEY: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

const VECTORS: &[Vector] = &[
    Vector {
        key: DEFAULT_KEY,
        source: "198.51.100.7",
        destination: "203.0.113.10",
        ports: (40_000, 80),
        protocol: 6,
        flow: 0x2a0b_bad5_db22_d0bd,
        client: 0xbfe4_f26e_4f91_c734,
    },
    Vector {
        key: DEFAULT_KEY,
        source: "198.51.100.7",
        destination: "203.0.113.10",
        ports: (40_000, 80),
        protocol: 17,
        flow: 0x1794_e077_c9f6_5d2d,
        client: 0xbfe4_f26e_4f91_c734,
    },
    Vector {
        key: DEFAULT_KEY,
        source: "2001:db8:1::7",
        destination: "2001:db8::10",
        ports: (40_000, 443),
        protocol: 6,
        flow: 0xc00d_ff8b_79bc_c3df,
        client: 0x4be4_c433_4385_2c08,
    },
    Vector {
        key: OTHER_KEY,
        source: "198.51.100.7",
        destination: "203.0.113.10",
        ports: (40_000, 80),
        protocol: 6,
        flow: 0x0532_46cd_1c82_d1fe,
        client: 0xd0ae_f5b3_6693_f758,
    },
    Vector {
        key: OTHER_KEY,
        source: "2001:db8:1::7",
        destination: "2001:db8::10",
        ports: (1, 65_535),
        protocol: 17,
        flow: 0x03eb_9849_2530_a938,
        client: 0xa894_112e_467b_63e9,
    },
];

fn address(text: &str) -> Address {
    Address::from_ip(text.parse::<IpAddr>().expect("an address"))
}

#[test]
fn the_key_schedule_is_what_it_always_was() {
    assert_eq!(Schedule::new(DEFAULT_KEY).0, SCHEDULE_DEFAULT);
    assert_eq!(Schedule::new(OTHER_KEY).0, SCHEDULE_OTHER);
}

const SCHEDULE_DEFAULT: [u64; 4] =
    [0xecf5_4ac6_937e_0e43, 0x942e_4e35_8bfc_6927, 0xedb9_1780_2a46_0060, 0x488d_7c88_89a6_6fcb];
const SCHEDULE_OTHER: [u64; 4] =
    [0xea3c_3245_7050_9d0d, 0x3bd7_da87_2621_a485, 0x92f8_696a_23d6_ab36, 0x0d03_de0c_57a6_6355];

#[test]
fn flows_and_clients_hash_to_what_they_always_did() {
    for vector in VECTORS {
        let schedule = Schedule::new(vector.key);
        let (source, destination) = (address(vector.source), address(vector.destination));
        let (from, to) = (vector.ports.0.to_be(), vector.ports.1.to_be());
        let flow = hash::flow(&schedule, source, destination, from, to, vector.protocol);
        assert_eq!(flow, vector.flow, "{flow:#018x}: {} {}", vector.source, vector.protocol);
        let client = hash::client(&schedule, source);
        assert_eq!(client, vector.client, "{client:#018x}: client {}", vector.source);
    }
}

#[test]
fn every_bit_of_a_flow_changes_half_of_the_bits_that_pick_rows() {
    let schedule = Schedule::new(DEFAULT_KEY);
    let (source, destination) = (address("198.51.100.7"), address("203.0.113.10"));
    for bit in 0..16 {
        let mut changed = 0;
        for port in 0..4096_u16 {
            let one = hash::flow(&schedule, source, destination, port, 80, 6);
            let other = hash::flow(&schedule, source, destination, port ^ 1 << bit, 80, 6);
            changed += ((one ^ other) & 0xffff).count_ones();
        }
        let share = f64::from(changed) / (4096.0 * 16.0);
        assert!((0.47..0.53).contains(&share), "port bit {bit}: {share}");
    }
}

#[test]
fn bits_of_addresses_do_not_cancel_each_other() {
    let schedule = Schedule::new(DEFAULT_KEY);
    let rows = |source: u128, destination: u128| {
        let address = |bits: u128| Address::from_ip(std::net::Ipv6Addr::from(bits).into());
        hash::flow(&schedule, address(source), address(destination), 1, 2, 6)
    };
    let (source, destination) = (0x2001_0db8_0001 << 80 | 7, 0x2001_0db8_u128 << 96 | 0x10);
    let flow = rows(source, destination);
    for first in 0..128 {
        for second in 0..128 {
            let (one, other) = (1_u128 << first, 1_u128 << second);
            assert_ne!(
                rows(source ^ one, destination ^ other),
                flow,
                "bits {first} of source, {second} of destination"
            );
            if first != second {
                assert_ne!(rows(source ^ one ^ other, destination), flow, "bits {first} and {second} of the source");
            }
        }
    }
}

#[test]
fn rows_and_source_ports_do_not_depend_on_each_other() {
    let schedule = Schedule::new(DEFAULT_KEY);
    let (source, destination) = (address("198.51.100.7"), address("203.0.113.10"));
    let mut ports = std::collections::BTreeSet::new();
    let mut in_row_0 = 0;
    for client in 0..1_u32 << 20 {
        let hash = hash::flow(&schedule, source, destination, client as u16, (client >> 16) as u16, 6);
        if hash & 1023 == 0 {
            in_row_0 += 1;
            ports.insert(hash::source_port(hash));
        }
    }
    assert!((900..1150).contains(&in_row_0), "{in_row_0} of 2^20 flows in one of 1,024 rows");
    assert!(ports.len() > 900, "flows of one row use only {} source ports", ports.len());
}
