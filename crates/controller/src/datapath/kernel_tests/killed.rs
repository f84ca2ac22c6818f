//! A writer that is killed.

use super::*;

/// A process that is killed when the test ends, however it ends.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Not a test of its own: the process that the next one kills.
#[test]
#[ignore = "a helper process of a_writer_killed_at_any_moment_leaves_traffic_in_order"]
fn endless_writer() {
    let (Ok(pin_dir), Ok(state_dir)) = (std::env::var("GNT_PIN_DIR"), std::env::var("GNT_STATE_DIR")) else { return };
    let bed_less = Options {
        pin_dir: pin_dir.into(),
        state_dir: state_dir.into(),
        capacities: SMALL,
        gue_port: 6080,
        hash: Schedule::new(DEFAULT_KEY),
        mode: AttachMode::Auto,
        egress: EgressHook::Auto,
        too_big_rate: 100,
        director: true,
        decap: true,
    };
    let mut kernel = Kernel::open(bed_less).expect("the data path opens");
    kernel.execute(&put_next_hop()).unwrap();
    for n in 0u64.. {
        kernel.execute(&put("kept", 80, if n.is_multiple_of(2) { 7 } else { 8 })).unwrap();
        let other = format!("s{}", n % 5);
        if n.is_multiple_of(3) {
            kernel.execute(&Operation::RemoveService(ServiceName::new("shop", other))).unwrap();
        } else {
            kernel.execute(&put(&other, 1000 + (n % 11) as u16, (n % 100) as u8 + 1)).unwrap();
        }
        kernel.commit();
    }
}

#[test]
fn a_writer_killed_at_any_moment_leaves_traffic_in_order() {
    let bed = Bed::new();
    bed.with(|kernel| {
        kernel.execute(&put_next_hop()).unwrap();
        kernel.execute(&put("kept", 80, 7)).unwrap();
        kernel.commit();
    });
    for round in 0..10 {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "datapath::kernel_tests::killed::endless_writer", "--ignored", "--nocapture"])
            .env("GNT_PIN_DIR", &bed.pin_dir)
            .env("GNT_STATE_DIR", bed.state.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("this test's own binary starts");
        let child = Killed(child);
        let revision = bed.reader().meta().revision;
        wait_for("the writer to write", || bed.reader().meta().revision > revision + 2);
        std::thread::sleep(Duration::from_micros(round * 731));
        drop(child);
        let reader = bed.reader();
        let seen = endpoint_of(reader.store(), 80);
        assert!(seen == Some([10, 0, 0, 7].into()) || seen == Some([10, 0, 0, 8].into()), "{seen:?}");
        bed.with(|kernel| {
            assert_eq!(endpoint_of(kernel.store(), 80), seen, "the next writer leaves it in force");
            for (name, service) in kernel.observe().services {
                for frontend in &service.frontends {
                    assert!(endpoint_of(kernel.store(), frontend.port).is_some(), "{frontend} of {name}");
                }
            }
        });
    }
}
