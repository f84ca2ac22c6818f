//! Readers among the writes.

use super::*;

/// Grace periods among threads: readers hold the lock while they look.
struct Threads {
    lock: Arc<RwLock<()>>,
    asked: u64,
}

impl Grace for Threads {
    fn request(&mut self) -> u64 {
        drop(self.lock.write().unwrap());
        self.asked += 1;
        self.asked
    }
    fn passed(&mut self) -> u64 {
        self.asked
    }
    fn wait(&mut self, _number: u64) {}
}

#[test]
fn readers_never_miss_a_live_frontend_nor_see_a_mixture() {
    let memory = Memory::new(&SMALL);
    let lock = Arc::new(RwLock::new(()));
    let mut tables = Tables::open(memory.clone(), Box::new(Threads { lock: lock.clone(), asked: 0 }), PORT, 0);
    for n in 1..3 {
        tables.execute(&Operation::PutNextHop(hop_key(n), hop(n))).unwrap();
    }
    // Even generations hold endpoints 0..4, odd ones 8..12; every row names its primary twice.
    let generation = |n: u64| {
        let endpoints: Vec<u8> = if n.is_multiple_of(2) { vec![0, 1, 2, 3] } else { vec![8, 9, 10, 11, 4] };
        Arc::new(service(&[(0, true, 80), (1, true, 80)], &endpoints, Some(0), 3, false))
    };
    let kept = ServiceName::new("shop", "kept");
    tables.execute(&Operation::PutService(kept.clone(), generation(0))).unwrap();
    tables.commit();
    let stop = AtomicBool::new(false);
    let looked = AtomicU64::new(0);
    let wholes = [generation(0), generation(1)];
    std::thread::scope(|scope| {
        for reader in 0..2u16 {
            let (memory, lock, stop, looked, wholes) = (memory.clone(), &lock, &stop, &looked, &wholes);
            scope.spawn(move || {
                let schedule = Schedule::new(DEFAULT_KEY);
                let mut port = reader;
                while !stop.load(Ordering::Relaxed) {
                    port = port.wrapping_add(1);
                    let frontend = Frontend { vip: vip((port % 2) as u8), protocol: Protocol::Tcp, port: 80 };
                    let guard = lock.read().unwrap();
                    let found = direct(&memory, &schedule, &flow_to(&frontend, port));
                    drop(guard);
                    let Found::Endpoint { row, endpoint, .. } = found else { panic!("{frontend}: {found:?}") };
                    let address = Address::from_bytes(endpoint.address).to_ip();
                    let belongs = |whole: &Arc<ServiceState>| {
                        whole.endpoints.get(usize::from(row.primary())).is_some_and(|e| e.address == address)
                    };
                    assert!(wholes.iter().any(belongs), "{address} in row {row:?}");
                    looked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut n = 0;
        while looked.load(Ordering::Relaxed) < 200_000 || n < 300 {
            n += 1;
            tables.execute(&Operation::PutService(kept.clone(), generation(n))).unwrap();
            // Others come and go around it: same tables, same slots' neighbours.
            let other = ServiceName::new("shop", format!("s{}", n % 3));
            let ports: Vec<_> = (0..3).map(|k| (((n + k) % 5) as u8, k == 1, 90 + (n % 7) as u16)).collect();
            if n % 4 == 0 {
                tables.execute(&Operation::RemoveService(other)).unwrap();
            } else {
                let put = Operation::PutService(other, Arc::new(service(&ports, &[4, 5, 12], Some(0), 1, true)));
                tables.execute(&put).unwrap();
            }
            tables.commit();
        }
        stop.store(true, Ordering::Relaxed);
    });
}
