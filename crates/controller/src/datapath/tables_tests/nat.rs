//! What delivery `Nat` adds: ids of VIPs, target ports.

use super::*;

#[test]
fn a_vips_id_is_told_before_it_is_in_force_and_void_for_the_next_one() {
    let memory = Memory::new(&SMALL);
    let (mut tables, _) = with_hops(memory.clone());
    let name = ServiceName::new("shop", "web");
    let put = |tables: &mut Tables<Memory>, vip: u8| {
        let state = service(&[(vip, true, 80)], &[NAT], Some(0), 1, false);
        tables.execute(&Operation::PutService(name.clone(), Arc::new(state))).unwrap();
        tables.commit();
    };
    let id = |n: u8| find_address(&memory, Table::Addresses, Address::from_ip(vip(n))).expect("a VIP").id();
    put(&mut tables, 0);
    let first = id(0);
    assert_eq!(find_vip(&memory, first, 0), Some(Address::from_ip(vip(0))));
    put(&mut tables, 1);
    tables.settle();
    assert_eq!(find_vip(&memory, first, 0), None, "replies of its flows leave as they are");
    assert_eq!(vip_told(&memory, first), Address::default());
    // All other ids come first; then the next VIP gets it, of another generation.
    let elements = memory.elements(Table::Vips);
    let last = (0..elements).map(|n| (n % 5) as u8).find(|n| {
        put(&mut tables, *n);
        tables.settle();
        id(*n) == first
    });
    let last = last.expect("ids are used again");
    assert_eq!(find_vip(&memory, first, 0), None);
    assert_eq!(find_vip(&memory, first, 1), Some(Address::from_ip(vip(last))));
}

#[test]
fn another_target_port_is_one_word_of_a_local_delivery_and_its_bit_comes_first() {
    let memory = Memory::new(&SMALL);
    let (mut tables, _) = with_hops(memory.clone());
    let name = ServiceName::new("shop", "web");
    let state = |seed| Arc::new(service(&[(0, true, 80), (0, false, 81)], &[NAT], None, seed, false));
    tables.execute(&Operation::PutService(name.clone(), state(0))).unwrap();
    let block =
        |memory: &Memory| memory.words(Table::Endpoints).iter().map(|w| w.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let before = block(&memory);
    tables.execute(&Operation::PutService(name, state(5))).unwrap();
    assert_eq!(block(&memory), before);
    let pod = Address::from_ip(endpoint(NAT).address);
    let id = find_address(&memory, Table::Addresses, Address::from_ip(vip(0))).expect("a VIP").id();
    assert_eq!(translation(&memory, id, Protocol::Tcp, 80, pod), Some((pod, 8085)));
    assert_eq!(translation(&memory, id, Protocol::Udp, 81, pod), Some((pod, 8086)));
    assert_eq!(translation(&memory, id, Protocol::Udp, 0, pod), Some((pod, 0)), "a fragment after the first");
    assert_eq!(translation(&memory, id, Protocol::Tcp, 81, pod), None);
    assert!(is_target_port(&memory, Protocol::Tcp, 8085) && is_target_port(&memory, Protocol::Udp, 8086));
    assert!(!is_target_port(&memory, Protocol::Udp, 8085));
    // A bit that nobody needs stays until the tables are opened anew.
    assert!(is_target_port(&memory, Protocol::Tcp, 8080));
    drop(open(memory.clone()));
    assert!(!is_target_port(&memory, Protocol::Tcp, 8080) && is_target_port(&memory, Protocol::Tcp, 8085));
}

#[test]
fn in_other_tables_vips_keep_their_ids_and_void_ones_stay_void() {
    let old = Memory::new(&SMALL);
    let (mut tables, _) = with_hops(old.clone());
    let put = |tables: &mut Tables<Memory>, name: &str, vip: u8| {
        let state = Arc::new(service(&[(vip, true, 80)], &[NAT + vip], Some(0), 1, false));
        tables.execute(&Operation::PutService(ServiceName::new("shop", name), state)).unwrap();
    };
    for (name, vip) in [("c", 0), ("b", 1), ("a", 2)] {
        put(&mut tables, name, vip);
    }
    tables.execute(&Operation::RemoveService(ServiceName::new("shop", "b"))).unwrap();
    tables.commit();
    tables.settle();

    let new = Memory::new(&Capacities { frontends: 32, ..SMALL });
    let (mut tables, _) = with_hops(new.clone());
    tables.keep_ids(&old);
    for (name, vip) in [("a", 2), ("c", 0)] {
        put(&mut tables, name, vip);
    }
    tables.forget_ids();
    let id =
        |memory: &Memory, n: u8| find_address(memory, Table::Addresses, Address::from_ip(vip(n))).expect("a VIP").id();
    for n in [0, 2] {
        assert_eq!(id(&new, n), id(&old, n));
        assert_eq!(find_vip(&new, id(&new, n), 0), Some(Address::from_ip(vip(n))));
    }
    put(&mut tables, "b", 1);
    let taken: BTreeSet<u32> = (0..3).map(|n| id(&new, n)).collect();
    assert_eq!(taken.len(), 3, "no id is given twice");
    assert_eq!(find_vip(&new, 1, 0), None, "it was another VIP's");
}
