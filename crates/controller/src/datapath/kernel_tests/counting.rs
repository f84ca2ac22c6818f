//! Counters of endpoints and frontends.

use super::*;

#[test]
fn an_endpoint_that_takes_over_an_index_starts_from_nothing() {
    let bed = Bed::new();
    bed.with(|kernel| {
        kernel.execute(&put_next_hop()).unwrap();
        // Another frontend keeps the VIP, and with it the home of the slot.
        kernel.execute(&put("other", 443, 9)).unwrap();
        kernel.execute(&put("web", 80, 7)).unwrap();
        kernel.commit();
        let count = |kernel: &Kernel| {
            let reading = kernel.reading(Extent::ALL).unwrap();
            let web = reading.frontends.iter().find(|of| of.frontend == frontend(80)).expect("it is in force");
            let endpoint = reading.endpoints.iter().find(|of| of.service.name == "web").expect("it is in force");
            (web.counters.directed.packets, endpoint.counter.packets)
        };
        // What a program would count: the maps are written here to that end alone.
        let slots = crate::datapath::tables::frontend_slots(kernel.store());
        let (_, slot) = slots[&frontend(80)].clone();
        write_ones::<FrontendPage>(kernel, "FRONTEND_STATS", slot);
        let counters = crate::datapath::tables::endpoint_counters(kernel.store());
        let (_, index) = counters.into_iter().find(|((name, _), _)| name.name == "web").expect("it is in force");
        write_ones::<EndpointPage>(kernel, "ENDPOINT_STATS", index);
        let cpus = sys::possible_cpus().unwrap() as u64;
        assert_eq!(count(kernel), (cpus, cpus));
        kernel.execute(&Operation::RemoveService(ServiceName::new("shop", "web"))).unwrap();
        kernel.commit();
        kernel.settle();
        kernel.execute(&put("web", 80, 7)).unwrap();
        kernel.commit();
        assert_eq!(
            crate::datapath::tables::frontend_slots(kernel.store())[&frontend(80)].1,
            slot,
            "the same slot again"
        );
        assert_eq!(count(kernel).0, 0);
    });
    let reading = bed.reader().reading(Extent::ALL).unwrap();
    assert!(reading.frontends.iter().all(|of| of.counters.directed.packets == 0), "the base is kept for readers");
}

/// Writes ones to every word of a counter, on every CPU, and zeros to the others of its page.
fn write_ones<Page>(kernel: &Kernel, map: &str, number: u32) {
    let (page, at) = locate_counter(number);
    let words = size_of::<Page>() / 8;
    let of_one = words / COUNTERS_PER_PAGE;
    let own = at * of_one..(at + 1) * of_one;
    let values: Vec<u64> =
        (0..words * sys::possible_cpus().unwrap()).map(|word| u64::from(own.contains(&(word % words)))).collect();
    sys::update_elem(kernel.store().fd(map).unwrap(), page, &values).unwrap();
}
