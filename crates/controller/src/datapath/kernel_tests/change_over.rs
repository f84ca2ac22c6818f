//! From one set of maps to another.

use super::*;

#[test]
fn other_capacities_get_new_maps_with_everything_carried_over() {
    let bed = Bed::new();
    let before = bed.with(|kernel| {
        kernel.execute(&put_next_hop()).unwrap();
        kernel.execute(&put("web", 80, 7)).unwrap();
        kernel.commit();
        kernel.attach("eth0").unwrap();
        // A flow, as programs write it: key, and words that are theirs.
        for (word, value) in (8..12).zip([77, 1, 2, 3]) {
            kernel.store().publish(Table::Flows, word, value);
        }
        kernel.observe()
    });
    bed.ping();
    let (program, maps, counted) = (bed.in_force(), bed.reader().store().id(), received(&mut bed.reader()));
    let mut reader = bed.reader();
    let larger = Options { capacities: Capacities { frontends: 256, ..SMALL }, ..bed.options() };
    let after = bed.with_options(larger.clone(), |kernel| {
        assert_eq!(endpoint_of(kernel.store(), 80), Some([10, 0, 0, 7].into()));
        let flow: Vec<u64> = (8..12).map(|word| kernel.store().load(Table::Flows, word)).collect();
        assert_eq!(flow, [77, 1, 2, 3], "flows go on where they were");
        kernel.observe()
    });
    assert_eq!(after, before);
    assert_ne!(bed.in_force(), program);
    assert_ne!(bed.reader().store().id(), maps);
    bed.ping();
    assert!(received(&mut reader) >= counted + 3, "a reader follows, and counters go on");
    assert_eq!(reader.meta().revision, 1);
    for leftover in ["maps-new", "maps-old"] {
        assert!(!bed.pin_dir.join(leftover).exists(), "{leftover}");
    }
    // And once more, now without change.
    let (program, counted) = (bed.in_force(), received(&mut reader));
    bed.with_options(larger, |kernel| kernel.attach("eth0").unwrap());
    assert_eq!(bed.in_force(), program);
    assert!(received(&mut reader) >= counted);
}

#[test]
fn another_number_of_flows_keeps_those_that_are_known() {
    let bed = Bed::new();
    // Whoever finds a key in a set finds its flow.
    let flow = |kernel: &Kernel, key: u64| {
        let sets = kernel.store().elements(Table::Flows);
        let set: [u64; 16] = kernel.store().element(Table::Flows, key as u32 & (sets - 1));
        set.chunks_exact(4).find(|entry| entry[0] == key).map(<[u64]>::to_vec)
    };
    let keys = [0x15, 0x3a, 0xfff3];
    let before = bed.with(|kernel| {
        kernel.attach("eth0").unwrap();
        kernel.commit();
        let sets = kernel.store().elements(Table::Flows);
        for key in keys {
            let mut set = FlowSet::default();
            flow::insert(&mut set, key, flow::Frontend::new(1, 1, 80), flow::Fresh::Datagrams, 0, 0, |_| true);
            let FlowEntry { key, current, pending, syn } = set.0[0];
            for (word, value) in [key, current, pending, syn].into_iter().enumerate() {
                kernel.store().publish(Table::Flows, (key as u32 & (sets - 1)) as usize * 16 + word, value);
            }
        }
        keys.map(|key| flow(kernel, key).expect("it is there"))
    });
    for flows in [1024, 16] {
        let capacities = Capacities { flows, ..SMALL };
        let after = bed.with_options(Options { capacities, ..bed.options() }, |kernel| {
            assert_eq!(kernel.store().elements(Table::Flows), flows / 4);
            keys.map(|key| flow(kernel, key).expect("it was carried over"))
        });
        assert_eq!(after, before, "{flows}");
    }
}

#[test]
fn another_versions_maps_stay_in_force_until_the_first_revision() {
    let bed = Bed::new();
    bed.with(|kernel| {
        kernel.attach("eth0").unwrap();
        kernel.commit();
        kernel.store().publish(Table::Meta, std::mem::offset_of!(Meta, abi) / 8, 99);
    });
    bed.ping();
    let (program, maps) = (bed.in_force(), {
        let error = Reader::open(&bed.pin_dir, bed.state.path()).expect_err("another version").to_string();
        assert!(error.contains("99"), "{error}");
        bed.pin_dir.join("maps")
    });
    bed.with(|kernel| {
        assert!(kernel.answering().contains("eth0"), "it goes on as it is, and then gets both programs");
        kernel.attach("eth0").expect("it waits");
        assert_eq!(bed.in_force(), program, "nothing is swapped before the new tables are filled");
        kernel.execute(&put_next_hop()).unwrap();
        kernel.execute(&put("web", 80, 7)).unwrap();
        kernel.commit();
        assert_ne!(bed.in_force(), program);
    });
    assert!(maps.exists() && !bed.pin_dir.join("maps-new").exists() && !bed.pin_dir.join("maps-old").exists());
    let mut reader = bed.reader();
    assert!(received(&mut reader) >= 3, "interfaces' counters are carried over");
    assert_eq!(endpoint_of(reader.store(), 80), Some([10, 0, 0, 7].into()));
    let attached = reader.attachments();
    assert_eq!((attached.len(), attached[0].mode), (1, Mode::Native));
}
