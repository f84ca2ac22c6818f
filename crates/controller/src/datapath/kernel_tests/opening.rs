//! Adoption, and what keeps a data path from being opened or attached.

use super::*;

#[test]
fn a_restart_adopts_what_is_there_and_changes_nothing() {
    let bed = Bed::new();
    let before = bed.with(|kernel| {
        kernel.execute(&put_next_hop()).unwrap();
        kernel.execute(&put("web", 80, 7)).unwrap();
        assert_eq!(kernel.commit(), 1);
        let attached = kernel.attach("eth0").expect("a veth takes it");
        assert_eq!((attached.mode, attached.slot), (Mode::Native, 0));
        kernel.observe()
    });
    bed.ping();
    let (in_force, maps) = (bed.in_force(), bed.reader().store().id());
    assert_eq!(in_force.0, in_force.1, "netlink names the link's program");
    let after = bed.with(|kernel| {
        kernel.attach("eth0").expect("it is attached already");
        kernel.observe()
    });
    assert_eq!(after, before);
    assert_eq!((bed.in_force(), bed.reader().store().id()), (in_force, maps));
    assert!(received(&mut bed.reader()) >= 3);
    assert_eq!(bed.reader().state().unwrap(), before);
    assert_eq!(endpoint_of(bed.reader().store(), 80), Some([10, 0, 0, 7].into()));
}

#[test]
fn another_setting_swaps_the_program_and_keeps_the_link() {
    let bed = Bed::new();
    bed.with(|kernel| kernel.attach("eth0").unwrap());
    let before = bed.in_force();
    bed.with_options(Options { too_big_rate: 7, ..bed.options() }, |kernel| kernel.attach("eth0").unwrap());
    let after = bed.in_force();
    assert_ne!(after, before);
    assert_eq!(after.0, after.1);
    bed.ping();
}

#[test]
fn a_second_writer_is_kept_out_and_told_who_holds_the_lock() {
    let bed = Bed::new();
    bed.with(|_| {
        let Err(error) = Kernel::open(bed.options()).map(drop) else { panic!("two writers") };
        assert!(matches!(error, DataPathError::Locked { .. }), "{error}");
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        let error = detach_all(&bed.pin_dir, bed.state.path()).expect_err("the agent runs");
        assert!(matches!(error, DataPathError::Locked { .. }), "{error}");
    });
}

#[test]
fn somebody_elses_program_is_never_taken_over() {
    let bed = Bed::new();
    let foreign = program::load_pass().expect("a program");
    let link = bed.net.inside(|| {
        sys::create_xdp_link(
            foreign.fd.as_fd(),
            crate::datapath::interfaces::index_of("eth0").unwrap(),
            sys::XDP_NATIVE,
        )
        .unwrap()
    });
    bed.with(|kernel| {
        let error = kernel.attach("eth0").expect_err("it is taken").to_string();
        assert!(error.contains(&format!("id {}", foreign.id)) && error.contains("guenon_pass"), "{error}");
        assert!(!bed.pin_dir.join("links/eth0").exists());
    });
    assert_eq!(sys::link_info(link.as_fd()).unwrap().0, foreign.id, "it is still there");
    drop(link);
    bed.with(|kernel| kernel.attach("eth0").expect("it is free now"));
}

#[rstest::rstest]
#[case::all([0, 0], "lacks CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, which")]
// The kernel would take the maps, and the verifier refuse the program at each interface.
#[case::one([1 << 12, 1 << (39 - 32)], "lacks CAP_PERFMON, without which")]
fn a_missing_capability_is_named_before_anything_is_changed(#[case] has: [u32; 2], #[case] told: &str) {
    let ([low, high], bed) = (has, Bed::new());
    let error = bed.net.inside(|| {
        let header = [0x2008_0522u32, 0];
        let sets = [low, low, 0, high, high, 0];
        // SAFETY: version 3 of capset(2) reads a header of two words and a set of six; this thread alone loses its
        // capabilities, and ends right after.
        let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const sets) };
        assert_eq!(result, 0);
        Kernel::open(bed.options()).map(drop).expect_err("it may not").to_string()
    });
    assert!(error.contains(told), "{error}");
    assert!(!bed.pin_dir.exists());
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let bed = Bed::new();
    let error = bed.with(|kernel| kernel.attach("eth9").expect_err("there is none"));
    assert!(error.to_string().contains("`eth9`") && error.to_string().contains("--interface"), "{error}");
}
