//! Homes of keys that look alike: nobody chooses addresses at random.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use guenon_ebpf::abi::{Address, FrontendSlot, Transport};
use guenon_ebpf::probe::{home_of_address, home_of_frontend, home_of_local};

const SLOTS: u32 = 1024;
/// Keys for a quarter of the slots, as tables promise.
const KEYS: u8 = 250;

/// The most keys that share a home.
fn crowd(homes: impl Iterator<Item = u32>) -> usize {
    let mut crowds = BTreeMap::<u32, usize>::new();
    homes.for_each(|home| *crowds.entry(home & (SLOTS - 1)).or_default() += 1);
    crowds.into_values().max().unwrap_or(0)
}

/// Addresses that differ in one byte alone.
fn differing_in(byte: usize, like: IpAddr) -> impl Iterator<Item = Address> {
    (0..KEYS).map(move |value| match like {
        IpAddr::V4(v4) => {
            let mut octets = v4.octets();
            octets[byte] = value;
            Address::from_ip(Ipv4Addr::from(octets).into())
        }
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[byte] = value;
            Address::from_ip(Ipv6Addr::from(octets).into())
        }
    })
}

#[test]
fn addresses_that_differ_in_one_byte_spread() {
    let v4 = IpAddr::from([203, 0, 113, 10]);
    let v6 = IpAddr::from([0x2001, 0xdb8, 0xa, 0x14, 0, 0, 0, 0x10]);
    for (like, bytes) in [(v4, 4), (v6, 16)] {
        for byte in 0..bytes {
            let most = crowd(differing_in(byte, like).map(home_of_address));
            assert!(most <= 6, "{most} of {KEYS} addresses like {like} with another byte {byte} share a home");
        }
    }
}

#[test]
fn frontends_spread_over_ports_and_over_vips() {
    let key = |vip, port| FrontendSlot::key(vip, Transport::Tcp as u8, port);
    let ports = crowd((0..KEYS).map(|port| home_of_frontend(key(3, 8000 + u16::from(port)))));
    let vips = crowd((0..KEYS).map(|vip| home_of_frontend(key(u32::from(vip), 80))));
    assert!(ports <= 6 && vips <= 6, "{ports} ports of a VIP, {vips} VIPs share a home");
}

#[test]
fn local_deliveries_spread_over_vips_endpoints_and_both_at_once() {
    let key = |vip| FrontendSlot::key(vip, Transport::Tcp as u8, 80);
    let endpoints = |byte| differing_in(byte, IpAddr::from([10, 244, 1, 7]));
    for byte in 0..4 {
        let one = crowd(endpoints(byte).map(|endpoint| home_of_local(key(3), endpoint)));
        let both = crowd((0..).zip(endpoints(byte)).map(|(vip, endpoint)| home_of_local(key(vip), endpoint)));
        assert!(one <= 6 && both <= 6, "byte {byte}: {one} endpoints of a frontend, {both} of as many share a home");
    }
}
