//! Random sequences of operations, cut off anywhere.

use super::*;

/// Memory whose writes come to nothing after some number of them: a process that was killed.
#[derive(Clone)]
struct Dying {
    memory: Memory,
    left: std::rc::Rc<Cell<u64>>,
}

impl Store for Dying {
    fn words(&self, table: Table) -> &[AtomicU64] {
        self.memory.words(table)
    }
    fn prepare(&self, table: Table, word: usize, value: u64) {
        if let Some(left) = self.left.get().checked_sub(1) {
            self.left.set(left);
            self.memory.prepare(table, word, value);
        }
    }
    fn publish(&self, table: Table, word: usize, value: u64) {
        if let Some(left) = self.left.get().checked_sub(1) {
            self.left.set(left);
            self.memory.publish(table, word, value);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_observed_is_what_was_put(
        steps in prop::collection::vec((operations(), any::<bool>(), prop::bool::weighted(0.1)), 1..40)
    ) {
        let memory = Memory::new(&SMALL);
        let (mut tables, mut model) = with_hops(memory.clone());
        for (operation, commit, restart) in steps {
            match tables.execute(&operation) {
                Ok(()) => model.apply(&operation),
                Err(Refusal::Full { .. }) => {}
                Err(refusal @ Refusal::Inconsistent(_)) => panic!("{refusal}"),
            }
            if commit {
                tables.commit();
            }
            if restart {
                tables = open(memory.clone());
                model.on_node = model.state.on_node.clone();
            }
            prop_assert_eq!(&tables.observe(), &model.state);
            assert_lookups(&memory, &model.state);
        }
        // All that was taken is given back.
        for name in model.state.services.keys() {
            tables.execute(&Operation::RemoveService(name.clone())).unwrap();
        }
        tables.commit();
        tables.settle();
        for occupancy in tables.occupancy() {
            let left = match occupancy.map {
                abi::map::ADDRESSES => model.state.tunnels.len(),
                abi::map::DIRECTORS => model.state.directors.len(),
                abi::map::NEXT_HOPS => model.state.next_hops.len(),
                abi::map::INTERFACES => model.state.next_hops.values().map(|hop| &hop.egress).collect::<BTreeSet<_>>().len(),
                _ => 0,
            };
            prop_assert_eq!(occupancy.used, left, "{}", occupancy.map);
        }
        prop_assert!(memory.words(Table::Frontends).iter().all(|word| word.load(Ordering::Relaxed) == 0));
        prop_assert!((0..memory.elements(Table::Vips)).all(|id| vip_told(&memory, id) == Address::default()));
        prop_assert!(memory.words(Table::Locals).iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_writer_killed_anywhere_leaves_what_the_next_one_mends(
        before in prop::collection::vec(operations(), 0..12),
        last in operations(),
        left in 0u64..1400,
        after in prop::collection::vec(operations(), 0..6),
    ) {
        let memory = Memory::new(&SMALL);
        let left_cell = std::rc::Rc::new(Cell::new(u64::MAX));
        let (mut tables, mut model) = with_hops(Dying { memory: memory.clone(), left: left_cell.clone() });
        for operation in before {
            if tables.execute(&operation).is_ok() {
                model.apply(&operation);
            }
            tables.commit();
        }
        left_cell.set(left);
        let mut then = model.clone();
        if tables.execute(&last).is_ok() {
            then.apply(&last);
        }
        drop(tables);

        let mut tables = open(memory.clone());
        let found = tables.observe();
        for (name, service) in &found.services {
            let part = |whole: &State| whole.services.get(name).is_some_and(|whole| {
                let (whole, found) = (without_ports(whole), without_ports(service));
                whole.rows == found.rows && whole.endpoints == found.endpoints && whole.client_ip == found.client_ip
            });
            prop_assert!(part(&model.state) || part(&then.state), "{name} is neither old nor new");
            // Each target port is old or new, or not told.
            let of = |whole: &State| whole.services.get(name).map(|whole| target_ports(whole)).unwrap_or_default();
            let known = &of(&model.state) | &of(&then.state);
            prop_assert!(target_ports(service).is_subset(&known), "{name} has target ports of its own");
        }
        let (old, new) = (frontends(&model.state), frontends(&then.state));
        for (frontend, name) in frontends(&found) {
            prop_assert!(old.get(&frontend) == Some(&name) || new.get(&frontend) == Some(&name), "{frontend}");
        }
        for (frontend, name) in &old {
            if new.get(frontend) == Some(name) {
                let still = frontends(&found);
                prop_assert_eq!(still.get(frontend), Some(name), "an untouched frontend is lost");
            }
        }
        assert_lookups(&memory, &found);

        // The next writer brings it to what shall be, and goes on from there.
        let mut model = then;
        let wanted = model.clone();
        for name in found.services.keys().filter(|name| !wanted.state.services.contains_key(name)) {
            tables.execute(&Operation::RemoveService(name.clone())).unwrap();
        }
        for address in &found.tunnels - &wanted.state.tunnels {
            tables.execute(&Operation::RemoveTunnel(address)).unwrap();
        }
        for address in &wanted.state.tunnels - &found.tunnels {
            tables.execute(&Operation::PutTunnel(address)).unwrap();
        }
        for address in &found.directors - &wanted.state.directors {
            tables.execute(&Operation::RemoveDirector(address)).unwrap();
        }
        for address in &wanted.state.directors - &found.directors {
            tables.execute(&Operation::PutDirector(address)).unwrap();
        }
        for (key, hop) in &wanted.state.next_hops {
            tables.execute(&Operation::PutNextHop(key.clone(), hop.clone())).unwrap();
        }
        for n in 0..6 {
            tables.execute(&Operation::SetOnNode(vip(n), wanted.on_node.contains(&vip(n)))).unwrap();
        }
        for (name, service) in &wanted.state.services {
            tables.execute(&Operation::PutService(name.clone(), service.clone())).unwrap();
        }
        for key in found.next_hops.keys().filter(|key| !wanted.state.next_hops.contains_key(key)) {
            tables.execute(&Operation::RemoveNextHop(key.clone())).unwrap();
        }
        prop_assert_eq!(&tables.observe(), &model.state);
        for operation in after {
            if tables.execute(&operation).is_ok() {
                model.apply(&operation);
            }
            tables.commit();
        }
        prop_assert_eq!(&tables.observe(), &model.state);
        assert_lookups(&memory, &model.state);
    }
}
