//! What is told in place of being done.

use super::*;

#[test]
fn without_permission_it_says_what_to_set_and_sets_nothing() {
    let bed = Bed::new();
    let before = picture(&bed.node);
    let problems = bed.with(Permission::Tell, |keeper| {
        keeper.apply(&setup(&["203.0.113.10"], [Wish::LooseReversePath("eth0".into())]))
    });
    let messages: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        [
            "interface eth0: node setup is off (--no-node-setup): strict reverse-path filtering drops packets on the \
             direct way; set it by hand: `sysctl -w net.ipv4.conf.eth0.rp_filter=2` (Node)",
            "interface lo: node setup is off (--no-node-setup): endpoints of this node take packets for the VIP only \
             if it is theirs; by hand: `ip address add 203.0.113.10/32 dev lo scope host` (Node)",
        ]
    );
    assert_eq!(picture(&bed.node), before);
}

#[test]
fn forwarding_to_pods_is_told_with_its_cure_until_the_kernel_does() {
    let bed = Bed::new();
    bed.client.ip("route add 10.0.0.7/32 via 172.17.3.3");
    bed.client.ip("route add fd00:7::7/128 via 2001:db8:3::3");
    let view = NodeView {
        node: "t33".into(),
        roles: vec![Role::Decap],
        tunnel: Vec::new(),
        interfaces: Vec::new(),
        next_hops: ["10.0.0.7/32", "fd00:7::/64"]
            .map(|to| NextHopView {
                to: to.parse().unwrap(),
                via: None,
                interface: "veth7".into(),
                mac: None,
                mtu: 1500,
            })
            .into(),
        attached: vec!["eth0".into()],
    };
    let cases = [
        ("ipv4/conf/all/forwarding", "net.ipv4.conf.all.forwarding", "10.0.0.7"),
        ("ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding", "fd00:7::7"),
    ];
    for (path, name, pod) in cases {
        bed.sysctl(path, 0);
        let receiver = bed.pod.inside(|| UdpSocket::bind((ip(pod), 80)).unwrap());
        receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let sender =
            bed.client.inside(|| UdpSocket::bind((ip(if pod.contains(':') { "::" } else { "0.0.0.0" }), 0)).unwrap());
        let arrives = |attempts: usize| {
            (0..attempts).any(|_| {
                let _ = sender.send_to(b"question", (ip(pod), 80));
                receiver.recv_from(&mut [0; 16]).is_ok()
            })
        };
        let wanted = NodeSetup::new(&Duties { pods: [ip(pod)].into(), ..Duties::default() }, &view);
        let before = picture(&bed.node);
        let problems = bed.keeper(|keeper| keeper.apply(&wanted));
        let [problem] = problems.as_slice() else { panic!("one problem, not {problems:?}") };
        let text = problem.to_string();
        assert!(text.starts_with("this node: it does not forward: endpoints of delivery Nat"), "{text}");
        assert!(text.contains(&format!("`sysctl -w {name}=1`")), "{text}");
        assert_eq!(picture(&bed.node), before, "the agent makes no router of a node");
        assert!(!arrives(3), "{pod}");
        bed.sysctl(path, 1);
        assert_eq!(bed.keeper(|keeper| keeper.apply(&wanted)), []);
        assert!(arrives(40), "{pod}");
    }
}

#[test]
fn a_sysctl_that_may_not_be_written_is_told_with_its_cure_and_not_recorded() {
    let bed = Bed::new();
    // A file that reads as 1 and that not even root may write.
    let root = TempDir::new().unwrap();
    let device = root.path().join("ipv4/conf/eth0");
    fs::create_dir_all(&device).unwrap();
    symlink("/sys/class/net/lo/ifindex", device.join("rp_filter")).unwrap();
    let problems = bed.node.inside(|| {
        let mut keeper = NodeKeeper::open(bed.state.path(), Permission::Change, root.path()).unwrap();
        keeper.apply(&setup(&[], [Wish::LooseReversePath("eth0".into())]))
    });
    let [problem] = problems.as_slice() else { panic!("one problem, not {problems:?}") };
    let text = problem.to_string();
    assert!(text.contains("ermission denied"), "{text}");
    assert!(text.contains("`sysctl -w net.ipv4.conf.eth0.rp_filter=2`"), "{text}");
    assert!(!bed.state.path().join(FILE).exists());
}
