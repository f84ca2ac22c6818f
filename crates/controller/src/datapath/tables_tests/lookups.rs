//! What programs find is what the state says.

use super::*;

pub(super) fn frontends(state: &State) -> BTreeMap<Frontend, ServiceName> {
    let of = |(name, service): (&ServiceName, &Arc<ServiceState>)| {
        service.frontends.iter().map(|frontend| (*frontend, name.clone())).collect::<Vec<_>>()
    };
    state.services.iter().flat_map(of).collect()
}

/// Lookups say what the state says: for the director and for the decap role.
pub(super) fn assert_lookups(store: &impl Store, state: &State) {
    let schedule = Schedule::new(DEFAULT_KEY);
    for (frontend, name) in frontends(state) {
        let service = &state.services[&name];
        for source_port in 1000..1010 {
            let flow = flow_to(&frontend, source_port);
            match direct(store, &schedule, &flow) {
                Found::NoBackend { .. } => assert!(service.rows.is_empty(), "{frontend} of {name}"),
                Found::Endpoint { row, endpoint, .. } => {
                    let expected = &service.endpoints[usize::from(row.primary())];
                    assert_eq!(Address::from_bytes(endpoint.address).to_ip(), expected.address);
                    assert!(service.rows.contains(&row));
                }
                other @ (Found::NotAVip | Found::Tunnel | Found::NoFrontend { .. }) => {
                    panic!("{frontend} of {name} leads to {other:?}")
                }
            }
        }
        let tag = find_address(store, Table::Addresses, Address::from_ip(frontend.vip)).unwrap();
        assert_eq!(tag.on_node(), state.on_node.contains(&frontend.vip));
        assert_eq!(vip_told(store, tag.id()), Address::from_ip(frontend.vip), "replies get their VIP back");
        for endpoint in &service.endpoints {
            let address = Address::from_ip(endpoint.address);
            for port in [frontend.port, 0] {
                let found = find_local(store, tag.id(), frontend.protocol, port, address);
                match &endpoint.path {
                    Path::Local(delivery) => {
                        let found = found.unwrap_or_else(|| panic!("{frontend} for {}", endpoint.address));
                        let expected = written(delivery, frontend.protocol, port);
                        // Fragments are delivered as to the least port, of which a killed writer may have forgotten where it leads.
                        let forgotten =
                            port == 0 && found.delivery == abi::Delivery::default() && some_port_is_lost(state);
                        assert!(forgotten || found.delivery == expected, "{frontend}, {port}: {found:?}, {expected:?}");
                        if found.delivery.port != 0 {
                            let (protocol, listens) = (frontend.protocol, found.delivery.port);
                            assert!(is_target_port(store, protocol, listens), "{frontend}: replies pass untouched");
                            let sent = translation(store, tag.id(), protocol, port, address);
                            assert_eq!(sent, Some((address, listens)));
                        }
                        assert_eq!(found.frontend == u32::MAX, port == 0);
                    }
                    Path::Tunnel { .. } | Path::Unreachable { .. } => assert_eq!(found, None),
                }
            }
        }
    }
    // Addresses of endpoints that are neither VIPs nor tunnel addresses are told as such, and no others.
    let vips: BTreeSet<IpAddr> = frontends(state).keys().map(|frontend| frontend.vip).collect();
    for n in 0..NAT + 12 {
        let address = endpoint(n).address;
        if !vips.contains(&address) && !state.tunnels.contains(&address) {
            let tag = find_address(store, Table::Addresses, Address::from_ip(address));
            let is_told = tag.is_some_and(|tag| tag.kind() == abi::AddressKind::Endpoint as u8);
            assert_eq!(is_told, nat_endpoints(state).contains(&address), "{address}");
        }
    }
    for n in 0..5 {
        for port in 80..82 {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let frontend = Frontend { vip: vip(n), protocol, port };
                if !frontends(state).contains_key(&frontend) {
                    let found = direct(store, &schedule, &flow_to(&frontend, 1));
                    assert!(matches!(found, Found::NotAVip | Found::NoFrontend { .. }), "{frontend}: {found:?}");
                }
            }
        }
    }
}

/// Endpoints of this node with delivery `Nat`.
pub(super) fn nat_endpoints(state: &State) -> BTreeSet<IpAddr> {
    let endpoints = state.services.values().flat_map(|service| &service.endpoints);
    let nat = endpoints.filter(|endpoint| matches!(endpoint.path, Path::Local(LocalDelivery::Nat { .. })));
    nat.map(|endpoint| endpoint.address).collect()
}

pub(super) fn vip_told(store: &impl Store, id: u32) -> Address {
    let [hi, lo, _]: [u64; 3] = store.element(Table::Vips, id);
    Address { hi, lo }
}

/// A service whose endpoints of delivery `Nat` tell no ports.
pub(super) fn without_ports(service: &ServiceState) -> ServiceState {
    let mut service = service.clone();
    for endpoint in &mut service.endpoints {
        if let Path::Local(LocalDelivery::Nat { ports }) = &mut endpoint.path {
            *ports = TargetPorts::default();
        }
    }
    service
}

/// Whether some endpoint of delivery `Nat` has a frontend for which it is not known where it listens.
pub(super) fn some_port_is_lost(state: &State) -> bool {
    state.services.values().any(|service| {
        let asked: BTreeSet<_> = service.frontends.iter().map(|frontend| (frontend.protocol, frontend.port)).collect();
        let told = |endpoint: &EndpointState| match &endpoint.path {
            Path::Local(LocalDelivery::Nat { ports }) => ports.len() == asked.len(),
            Path::Local(_) | Path::Tunnel { .. } | Path::Unreachable { .. } => true,
        };
        !service.endpoints.iter().all(told)
    })
}

/// Where each endpoint of delivery `Nat` listens.
pub(super) fn target_ports(service: &ServiceState) -> BTreeSet<(IpAddr, Protocol, u16, u16)> {
    let mut all = BTreeSet::new();
    for endpoint in &service.endpoints {
        if let Path::Local(LocalDelivery::Nat { ports }) = &endpoint.path {
            all.extend(ports.iter().map(|((protocol, port), listens)| (endpoint.address, *protocol, *port, *listens)));
        }
    }
    all
}

/// A delivery as the program reads it, for frontends of this protocol and port; 0: for fragments after the first.
pub(super) fn written(delivery: &LocalDelivery, protocol: Protocol, port: u16) -> abi::Delivery {
    let nat = |port| abi::Delivery { mode: abi::DeliveryMode::Nat as u8, port, ..abi::Delivery::default() };
    match delivery {
        LocalDelivery::Nat { .. } if port == 0 => nat(0),
        // A port that was forgotten by a writer that was killed: nothing is delivered until it is written anew.
        LocalDelivery::Nat { ports } => {
            ports.get(&(protocol, port)).map_or(abi::Delivery::default(), |port| nat(*port))
        }
        LocalDelivery::None => abi::Delivery::default(),
        LocalDelivery::Local => abi::Delivery { mode: abi::DeliveryMode::Local as u8, ..abi::Delivery::default() },
        LocalDelivery::Veth { ifindex, mac, mtu } => abi::Delivery {
            mac: mac.map_or([0; 6], |mac| mac.0),
            mode: abi::DeliveryMode::Veth as u8,
            reserved: 0,
            ifindex: *ifindex,
            mtu: u16::try_from(*mtu).expect("an MTU of a test"),
            port: 0,
        },
    }
}

/// Destination port in a tunnel's header.
pub(super) fn gue_port(endpoint: &abi::Endpoint) -> Option<u16> {
    let udp = match endpoint.kind {
        kind if kind == abi::EndpointKind::Tunnel4 as u8 => 20,
        kind if kind == abi::EndpointKind::Tunnel6 as u8 => 40,
        _ => return None,
    };
    Some(u16::from_be_bytes([endpoint.header[udp + 2], endpoint.header[udp + 3]]))
}

pub(super) fn flow_to(frontend: &Frontend, source_port: u16) -> Flow {
    Flow {
        source: IpAddr::from([198, 51, 100, 7]),
        destination: frontend.vip,
        protocol: frontend.protocol,
        source_port,
        destination_port: frontend.port,
    }
}
