//! Addresses and sysctls: set, recorded, restored.

use super::*;

#[test]
fn everything_set_is_restored_exactly() {
    let bed = Bed::new();
    let before = picture(&bed.node);
    let problems = bed.keeper(|keeper| keeper.apply(&everything("eth0", "veth7")));
    assert_eq!(problems, []);
    assert_eq!(bed.value("ipv4/conf/eth0/rp_filter"), 2);
    assert_eq!(bed.value("ipv4/conf/veth7/accept_local"), 1);
    assert_ne!(picture(&bed.node), before);

    // Another agent goes on, and changes nothing.
    let (set, recorded) = (picture(&bed.node), fs::read(bed.state.path().join(FILE)).unwrap());
    assert_eq!(bed.keeper(|keeper| keeper.apply(&everything("eth0", "veth7"))), []);
    assert_eq!(picture(&bed.node), set);
    assert_eq!(fs::read(bed.state.path().join(FILE)).unwrap(), recorded);

    assert_eq!(bed.keeper(|keeper| keeper.restore()), []);
    assert_eq!(picture(&bed.node), before);
    assert!(!bed.state.path().join(FILE).exists(), "nothing is left to undo");
}

#[test]
fn ipv6_forwarding_of_all_devices_is_restored_exactly() {
    let bed = Bed::new();
    bed.sysctl("ipv6/conf/veth7/forwarding", 1);
    let before = picture(&bed.node);
    // As on a kernel that cannot forward for one device alone.
    let key = crate::node::plan::all_forwarding();
    let also = [(crate::node::Sysctl::of_device(crate::node::setup::Family::V6, "veth7", "forwarding"), 1)].into();
    bed.keeper(|keeper| {
        let namespace = keeper.record().namespace;
        let sysctls = [(key, Owned { previous: 0, set: 1, index: None, also })].into();
        Record { namespace, sysctls, ..Record::default() }.save(bed.state.path()).unwrap();
    });
    bed.sysctl("ipv6/conf/all/forwarding", 1);
    assert_eq!(bed.value("ipv6/conf/eth0/forwarding"), 1, "the kernel sweeps every device along");
    assert_eq!(bed.keeper(|keeper| keeper.restore()), []);
    assert_eq!(picture(&bed.node), before);
}

#[test]
fn a_vip_is_nobodys_source_and_goes_with_its_last_endpoint() {
    let bed = Bed::new();
    bed.keeper(|keeper| keeper.apply(&setup(&["203.0.113.10", "2001:db8::10"], [])));
    let addresses = || {
        let output = Command::new("ip").args(["-n", &bed.node.name, "-o", "address", "show", "dev", "lo"]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let shown = addresses();
    assert!(shown.contains("203.0.113.10/32 scope host lo"), "{shown}");
    assert!(shown.contains("2001:db8::10/128 scope global nodad deprecated"), "{shown}");
    assert!(!shown.contains("tentative"), "{shown}");
    bed.keeper(|keeper| keeper.apply(&setup(&["2001:db8::10"], [])));
    let shown = addresses();
    assert!(!shown.contains("203.0.113.10") && shown.contains("2001:db8::10"), "{shown}");
}

#[test]
fn an_address_of_somebody_else_stays() {
    let bed = Bed::new();
    bed.node.address("203.0.113.10/32", "lo");
    let before = picture(&bed.node);
    bed.keeper(|keeper| keeper.apply(&setup(&["203.0.113.10"], [])));
    bed.keeper(|keeper| keeper.restore());
    assert_eq!(picture(&bed.node), before);
}

#[test]
fn a_crash_between_recording_and_setting_loses_nothing() {
    let bed = Bed::new();
    let before = picture(&bed.node);
    let wanted = everything("eth0", "veth7");
    // All is recorded, nothing is done: the worst that a crash can leave.
    bed.keeper(|keeper| assert_eq!(keeper.apply(&wanted), []));
    let recorded = fs::read(bed.state.path().join(FILE)).unwrap();
    bed.keeper(|keeper| keeper.restore());
    assert_eq!(picture(&bed.node), before);
    fs::write(bed.state.path().join(FILE), &recorded).unwrap();

    assert_eq!(bed.keeper(|keeper| keeper.apply(&wanted)), []);
    assert_eq!(bed.value("ipv4/conf/eth0/rp_filter"), 2);
    assert_eq!(fs::read(bed.state.path().join(FILE)).unwrap(), recorded, "the previous values are still those");
    assert_eq!(bed.keeper(|keeper| keeper.restore()), []);
    assert_eq!(picture(&bed.node), before);
}

#[test]
fn a_record_of_another_namespace_means_nothing_here() {
    let bed = Bed::new();
    bed.keeper(|keeper| keeper.apply(&everything("eth0", "veth7")));
    let other = Net::new();
    let before = picture(&other);
    let problems =
        other.inside(|| NodeKeeper::open(bed.state.path(), Permission::Change, Path::new(SYSCTLS)).unwrap().restore());
    assert_eq!(problems, []);
    assert_eq!(picture(&other), before);
}

#[test]
fn a_device_that_comes_back_is_set_up_anew() {
    let bed = Bed::new();
    let wanted = setup(&[], [Wish::LooseReversePath("veth7".into())]);
    bed.keeper(|keeper| keeper.apply(&wanted));
    bed.node.ip("link delete veth7");
    bed.node.ip("link add veth7 type veth peer name far7");
    assert_eq!(bed.keeper(|keeper| keeper.apply(&wanted)), []);
    assert_eq!(bed.value("ipv4/conf/veth7/rp_filter"), 2);
    bed.node.ip("link delete veth7");
    assert_eq!(bed.keeper(|keeper| keeper.restore()), []);
    assert!(!bed.state.path().join(FILE).exists());
}

#[test]
fn a_record_that_cannot_be_read_stops_everything_but_says_what_to_do() {
    let bed = Bed::new();
    fs::write(bed.state.path().join(FILE), "{").unwrap();
    let error =
        bed.node.inside(|| NodeKeeper::open(bed.state.path(), Permission::Change, Path::new(SYSCTLS)).unwrap_err());
    assert!(error.to_string().contains("node.json") && error.to_string().contains("move it away"), "{error}");
}
