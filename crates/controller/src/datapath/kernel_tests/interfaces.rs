//! Interfaces that come, change and go.

use super::*;

#[test]
fn an_interface_that_comes_back_counts_on() {
    let bed = Bed::new();
    bed.with(|kernel| {
        kernel.attach("eth0").unwrap();
        bed.ping();
        let counted = received(&mut bed.reader());
        bed.net.ip("link delete eth0");
        assert!(matches!(kernel.attach("eth0"), Err(DataPathError::NoInterface(_))));
        bed.net.veth(("eth0", "02:00:00:00:00:16"), &bed.peer, ("gw", "02:00:00:00:00:01"));
        bed.net.address("172.17.2.2/24", "eth0");
        bed.peer.address("172.17.2.1/24", "gw");
        assert_eq!(kernel.attach("eth0").expect("it is back").slot, 0);
        bed.ping();
        assert!(received(&mut bed.reader()) >= counted + 3);
    });
}

#[test]
fn generic_mode_is_taken_when_asked_for_and_changed_when_asked_otherwise() {
    let bed = Bed::new();
    let generic = Options { mode: AttachMode::Generic, ..bed.options() };
    assert_eq!(bed.with_options(generic, |kernel| kernel.attach("eth0").unwrap().mode), Mode::Generic);
    bed.ping();
    assert_eq!(bed.with(|kernel| kernel.attach("eth0").unwrap().mode), Mode::Generic, "auto keeps what is there");
    let native = Options { mode: AttachMode::Native, ..bed.options() };
    assert_eq!(bed.with_options(native, |kernel| kernel.attach("eth0").unwrap().mode), Mode::Native);
    bed.ping();
}

#[test]
fn the_far_end_of_a_veth_gets_a_program_that_outlives_the_agent() {
    let bed = Bed::new();
    let far = bed.peer.index("gw");
    let on_far = || bed.peer.inside(|| crate::datapath::interfaces::program_on(far).unwrap());
    let namespace = std::fs::File::open(bed.peer.path()).expect("the namespace");
    bed.with(|kernel| {
        kernel.attach_far_end("eth0", namespace.as_fd(), far).expect("it is attached");
        kernel.attach_far_end("eth0", namespace.as_fd(), far).expect("once more is nothing");
        assert_eq!(kernel.far_ends().unwrap(), ["eth0"]);
        assert_eq!(kernel.linked().unwrap(), Vec::<String>::new());
    });
    assert_ne!(on_far(), 0);
    bed.with(|kernel| kernel.detach_far_end("eth0").unwrap());
    assert_eq!(on_far(), 0);
}

#[test]
fn detaching_leaves_nothing_behind() {
    let bed = Bed::new();
    bed.with(|kernel| {
        kernel.attach("eth0").unwrap();
        kernel.commit();
    });
    let detached = detach_all(&bed.pin_dir, bed.state.path()).expect("it is detached");
    assert_eq!((detached.interfaces, detached.maps), (vec!["eth0".to_owned()], 25));
    assert!(!bed.pin_dir.exists());
    assert_eq!(std::fs::read_dir(bed.state.path()).unwrap().count(), 0);
    // The kernel lets go of a link some time after its pin.
    let on =
        || crate::datapath::interfaces::program_on(crate::datapath::interfaces::index_of("eth0").unwrap()).unwrap();
    wait_for("the end of the program", || bed.net.inside(on) == 0);
    assert_eq!(detach_all(&bed.pin_dir, bed.state.path()).expect("nothing left").maps, 0);
}
