//! One change at a time.

use super::*;

#[test]
fn a_change_costs_what_it_changes() {
    let memory = Memory::new(&SMALL);
    let (mut tables, _) = with_hops(memory.clone());
    let name = ServiceName::new("shop", "web");
    let put = |tables: &mut Tables<Memory>, state: ServiceState| {
        tables.execute(&Operation::PutService(name.clone(), Arc::new(state))).unwrap();
        tables.commit();
    };
    let snapshot = |memory: &Memory| -> BTreeMap<Table, Vec<u64>> {
        let words = |table| memory.words(table).iter().map(|word| word.load(Ordering::Relaxed)).collect();
        Table::ALL.into_iter().filter(|table| *table != Table::Meta).map(|table| (table, words(table))).collect()
    };
    let changed = |before: &BTreeMap<Table, Vec<u64>>, after: &BTreeMap<Table, Vec<u64>>| -> Vec<(Table, usize)> {
        let count = |table: &Table| before[table].iter().zip(&after[table]).filter(|(a, b)| a != b).count();
        before.keys().map(|table| (*table, count(table))).filter(|(_, count)| *count > 0).collect()
    };
    put(&mut tables, service(&[(0, true, 80)], &[0, 8, 5], Some(0), 3, false));

    // The same again: nothing.
    let before = snapshot(&memory);
    put(&mut tables, service(&[(0, true, 80)], &[0, 8, 5], Some(0), 3, false));
    assert_eq!(changed(&before, &snapshot(&memory)), []);

    // Another MAC for a next hop: one word.
    let mut gateway = hop(1);
    gateway.mac = Some(Mac([6; 6]));
    tables.execute(&Operation::PutNextHop(hop_key(1), gateway)).unwrap();
    let after = snapshot(&memory);
    assert_eq!(changed(&before, &after), [(Table::NextHops, 1)]);

    // Other rows, same endpoints: the descriptor and rows.
    put(&mut tables, service(&[(0, true, 80)], &[0, 8, 5], Some(0), 2, false));
    let before = snapshot(&memory);
    let tables_changed: Vec<Table> = changed(&after, &before).into_iter().map(|(table, _)| table).collect();
    assert_eq!(tables_changed, [Table::Services, Table::Rows]);

    // Another endpoint, rows that say the same: the descriptor and endpoints.
    let mut other = service(&[(0, true, 80)], &[0, 8, 5], Some(0), 2, false);
    let Path::Tunnel { next_hop, .. } = &mut other.endpoints[0].path else { panic!("endpoint 0 is behind a tunnel") };
    *next_hop = hop_key(2);
    put(&mut tables, other);
    let tables_changed: Vec<Table> = changed(&before, &snapshot(&memory)).into_iter().map(|(table, _)| table).collect();
    assert_eq!(tables_changed, [Table::Services, Table::Endpoints]);
}

#[test]
fn counters_stay_with_their_endpoints() {
    let memory = Memory::new(&SMALL);
    let (mut tables, _) = with_hops(memory.clone());
    let name = ServiceName::new("shop", "web");
    let counters = |memory: &Memory| -> BTreeMap<IpAddr, u32> {
        let schedule = Schedule::new(DEFAULT_KEY);
        let frontend = Frontend { vip: vip(0), protocol: Protocol::Tcp, port: 80 };
        (0..4000)
            .filter_map(|port| match direct(memory, &schedule, &flow_to(&frontend, port)) {
                Found::Endpoint { endpoint, .. } => {
                    Some((Address::from_bytes(endpoint.address).to_ip(), endpoint.counter))
                }
                Found::NotAVip | Found::Tunnel | Found::NoFrontend { .. } | Found::NoBackend { .. } => None,
            })
            .collect()
    };
    let put = |tables: &mut Tables<Memory>, endpoints: &[u8]| {
        let state = service(&[(0, true, 80)], endpoints, Some(0), 1, false);
        tables.execute(&Operation::PutService(name.clone(), Arc::new(state))).unwrap();
        tables.commit();
        tables.settle();
    };
    put(&mut tables, &[0, 8, 16]);
    let first = counters(&memory);
    assert_eq!(first.values().collect::<BTreeSet<_>>().len(), 3);
    put(&mut tables, &[0, 16, 3]);
    let second = counters(&memory);
    for n in [0, 16] {
        let address = endpoint(n).address;
        assert_eq!(first[&address], second[&address]);
    }
    let gone = first[&endpoint(8).address];
    assert!(tables.take_released().contains(&Released::Endpoint(gone)));
}

#[test]
fn shares_are_those_of_the_rows() {
    let memory = Memory::new(&SMALL);
    let (mut tables, _) = with_hops(memory.clone());
    let (with_rows, without) = (ServiceName::new("shop", "rows"), ServiceName::new("shop", "none"));
    let mut state = service(&[(1, true, 80)], &[4, 12, 20], Some(0), 1, false);
    // A quarter, three quarters, nothing.
    state.rows = (0..1024).map(|n| Row::new(u16::from(n % 4 != 0), 2)).collect();
    let addresses: Vec<IpAddr> = state.endpoints.iter().map(|endpoint| endpoint.address).collect();
    tables.execute(&Operation::PutService(with_rows.clone(), Arc::new(state))).unwrap();
    let none = service(&[(1, true, 81)], &[4], None, 1, false);
    tables.execute(&Operation::PutService(without, Arc::new(none))).unwrap();
    tables.commit();
    let expected = addresses.into_iter().zip([0.25, 0.75, 0.0]).map(|(address, of)| ((with_rows.clone(), address), of));
    assert_eq!(endpoint_shares(&memory), expected.collect::<BTreeMap<_, _>>());
}

#[test]
fn a_service_that_does_not_fit_changes_nothing() {
    let memory = Memory::new(&Capacities { row_pages: 3, ..SMALL });
    let (mut tables, _) = with_hops(memory);
    let put = |name: &str, log2, port| {
        let state = service(&[(0, true, port)], &[0, 8], Some(log2), 3, false);
        Operation::PutService(ServiceName::new("shop", name), Arc::new(state))
    };
    tables.execute(&put("a", 1, 80)).unwrap();
    let before = tables.observe();
    let refusal = tables.execute(&put("b", 1, 81)).unwrap_err();
    assert!(matches!(refusal, Refusal::Full { map: "ROWS", needed: 2, free: 1, capacity: 3, .. }), "{refusal}");
    assert!(refusal.to_string().contains("--max-row-pages"), "{refusal}");
    assert_eq!(tables.observe(), before);
    tables.execute(&put("b", 0, 81)).unwrap();
}

#[test]
fn another_gue_port_is_written_to_tunnels_that_are_in_force() {
    let memory = Memory::new(&SMALL);
    let (mut tables, _) = with_hops(memory.clone());
    let state = Arc::new(service(&[(0, true, 80)], &[0, 1, 5], Some(0), 3, false));
    tables.execute(&Operation::PutService(ServiceName::new("shop", "web"), state)).unwrap();
    let before = read_state(&memory);
    drop(Tables::open(memory.clone(), Box::<NoReaders>::default(), 7000, 0));
    assert_eq!(read_state(&memory), before);
    let frontend = Frontend { vip: vip(0), protocol: Protocol::Tcp, port: 80 };
    let ports: BTreeSet<u16> = (0..2000)
        .filter_map(|port| match direct(&memory, &Schedule::new(DEFAULT_KEY), &flow_to(&frontend, port)) {
            Found::Endpoint { endpoint, .. } => gue_port(&endpoint),
            Found::NotAVip | Found::Tunnel | Found::NoFrontend { .. } | Found::NoBackend { .. } => None,
        })
        .collect();
    assert_eq!(ports, [7000].into());
}
