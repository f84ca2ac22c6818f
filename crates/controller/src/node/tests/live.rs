//! Against the kernel, in namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::model::{FarEnd, NextHopView, NodeView, Role};
use crate::netlink::tests::net::Net;
use crate::netlink::{Connection, read, read_links};
use crate::node::record::{FILE, Record};
use crate::node::{
    Duties, FarEnds, NodeKeeper, NodeSetup, Owned, Permission, Wish, observe_far_ends, offload_problems, tx_checksum,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const SYSCTLS: &str = "/proc/sys/net";

/// All that a keeper may change in a namespace: every number under conf/, and every address.
fn picture(net: &Net) -> (BTreeMap<String, String>, Vec<String>) {
    net.inside(|| {
        let mut values = BTreeMap::new();
        for family in ["ipv4", "ipv6"] {
            for device in fs::read_dir(format!("/proc/sys/net/{family}/conf")).unwrap() {
                for file in fs::read_dir(device.unwrap().path()).unwrap() {
                    let path = file.unwrap().path();
                    let value = fs::read_to_string(&path).unwrap_or_default();
                    values.insert(path.display().to_string(), value);
                }
            }
        }
        // What was never asked for changes by itself.
        values.retain(|path, _| !path.ends_with("stable_secret"));
        let tables = read(&mut Connection::open().unwrap()).unwrap();
        let addresses = tables.addresses.iter().filter(|address| !address.net.to_string().starts_with("fe80"));
        (values, addresses.map(|address| format!("{address:?}")).collect())
    })
}

fn setup(addresses: &[&str], wishes: impl IntoIterator<Item = Wish>) -> NodeSetup {
    NodeSetup {
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        wishes: wishes.into_iter().collect::<BTreeSet<_>>(),
    }
}

fn everything(uplink: &str, veth: &str) -> NodeSetup {
    let (uplink, veth) = (uplink.to_owned(), veth.to_owned());
    setup(
        &["203.0.113.10", "2001:db8::10"],
        [
            Wish::LooseReversePath(uplink.clone()),
            Wish::ArpIgnore(uplink.clone()),
            Wish::ArpAnnounce(uplink.clone()),
            Wish::AcceptLocal(uplink),
            Wish::LooseReversePath(veth.clone()),
            Wish::AcceptLocal(veth.clone()),
            Wish::ForwardIpv4(veth.clone()),
            Wish::ForwardIpv6(veth),
        ],
    )
}

/// A node with an uplink and a veth to a pod.
struct Bed {
    client: Net,
    node: Net,
    pod: Net,
    state: TempDir,
}

impl Bed {
    fn new() -> Self {
        let bed = Self { client: Net::new(), node: Net::new(), pod: Net::new(), state: TempDir::new().unwrap() };
        bed.node.veth(("eth0", "02:00:00:00:00:33"), &bed.client, ("eth0", "02:00:00:00:00:01"));
        bed.client.address("172.17.3.1/24", "eth0");
        bed.client.address("2001:db8:3::1/64", "eth0");
        bed.node.address("172.17.3.3/24", "eth0");
        bed.node.address("2001:db8:3::3/64", "eth0");
        bed.node.veth(("veth7", "02:00:00:00:00:07"), &bed.pod, ("eth0", "02:00:00:00:00:77"));
        bed.node.address("169.254.7.1/32", "veth7");
        bed.node.ip("route add 10.0.0.7/32 dev veth7");
        bed.pod.address("10.0.0.7/32", "eth0");
        bed.pod.ip("route add 169.254.7.1 dev eth0");
        bed.pod.ip("route add default via 169.254.7.1 dev eth0");
        bed.node.address("fd00:7::1/64", "veth7");
        bed.pod.address("fd00:7::7/64", "eth0");
        bed.pod.ip("route add default via fd00:7::1 dev eth0");
        bed.pod.address("203.0.113.10/32", "lo");
        bed.pod.address("2001:db8::10/128", "lo");
        bed.sysctl("ipv4/conf/all/rp_filter", 1);
        bed.sysctl("ipv4/conf/veth7/forwarding", 0);
        bed
    }

    fn sysctl(&self, path: &str, value: i64) {
        self.node.inside(|| fs::write(Path::new(SYSCTLS).join(path), value.to_string()).unwrap());
    }

    fn value(&self, path: &str) -> i64 {
        self.node.inside(|| fs::read_to_string(Path::new(SYSCTLS).join(path)).unwrap().trim().parse().unwrap())
    }

    fn keeper<T: Send>(&self, work: impl FnOnce(&mut NodeKeeper) -> T + Send) -> T {
        self.with(Permission::Change, work)
    }

    fn with<T: Send>(&self, permission: Permission, work: impl FnOnce(&mut NodeKeeper) -> T + Send) -> T {
        self.node.inside(|| work(&mut NodeKeeper::open(self.state.path(), permission, Path::new(SYSCTLS)).unwrap()))
    }

    /// Whether one of so many datagrams from this address of the pod reaches the client.
    fn reply_arrives(&self, vip: &str, attempts: usize) -> bool {
        let client = if vip.contains(':') { "[2001:db8:3::1]:7777" } else { "172.17.3.1:7777" };
        let client: SocketAddr = client.parse().unwrap();
        let receiver = self.client.inside(|| UdpSocket::bind(client).unwrap());
        receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let sender = self.pod.inside(|| UdpSocket::bind((ip(vip), 80)).unwrap());
        (0..attempts).any(|_| {
            // An earlier one may have been answered with an ICMP error.
            let _ = sender.send_to(b"reply", client);
            let mut bytes = [0; 16];
            receiver.recv_from(&mut bytes).is_ok_and(|(_, from)| from.ip() == ip(vip))
        })
    }
}

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

#[test]
fn a_record_that_cannot_be_read_stops_everything_but_says_what_to_do() {
    let bed = Bed::new();
    fs::write(bed.state.path().join(FILE), "{").unwrap();
    let error =
        bed.node.inside(|| NodeKeeper::open(bed.state.path(), Permission::Change, Path::new(SYSCTLS)).unwrap_err());
    assert!(error.to_string().contains("node.json") && error.to_string().contains("move it away"), "{error}");
}

#[test]
fn lesson_6_and_10_a_veths_reply_gets_through_while_its_vip_is_on_the_nodes_loopback() {
    let bed = Bed::new();
    let vips = ["203.0.113.10", "2001:db8::10"];
    bed.keeper(|keeper| keeper.apply(&setup(&vips, [])));
    for vip in vips {
        assert!(!bed.reply_arrives(vip, 3), "{vip}: the node drops it as it is");
    }
    assert_eq!(bed.keeper(|keeper| keeper.apply(&everything("eth0", "veth7"))), []);
    for vip in vips {
        assert!(bed.reply_arrives(vip, 40), "{vip}");
    }
}

#[test]
fn lesson_10_a_vip_on_the_loopback_answers_no_arp() {
    let bed = Bed::new();
    bed.client.ip("route add 203.0.113.10/32 dev eth0");
    let is_answered = || {
        bed.client.ip("neighbour flush dev eth0");
        let socket = bed.client.inside(|| UdpSocket::bind("172.17.3.1:0").unwrap());
        socket.send_to(b"?", "203.0.113.10:9").unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let tables = bed.client.inside(|| read(&mut Connection::open().unwrap()).unwrap());
        tables.neighbours.iter().any(|((_, to), neighbour)| *to == ip("203.0.113.10") && neighbour.usable().is_some())
    };
    bed.keeper(|keeper| keeper.apply(&setup(&["203.0.113.10"], [])));
    assert!(is_answered(), "as Linux does by default");
    let quiet = [Wish::ArpIgnore("eth0".into()), Wish::ArpAnnounce("eth0".into())];
    bed.keeper(|keeper| keeper.apply(&setup(&["203.0.113.10"], quiet)));
    assert!(!is_answered());
}

#[test]
fn far_ends_are_given_a_program_once_and_again_when_they_come_back() {
    let bed = Bed::new();
    let mut far_ends = FarEnds::new("/run/netns".into());
    let mut given = Vec::new();
    let mut tend = |names: &[&str]| {
        let ready = bed.node.inside(|| {
            let mut connection = Connection::open().unwrap();
            let attach = |link: &crate::netlink::Link, peer: &crate::netlink::Peer| {
                given.push((link.name.clone(), peer.path.clone(), peer.index));
                Ok::<_, String>(())
            };
            far_ends.tend(&mut connection, names.iter().copied(), attach).unwrap()
        });
        (ready, given.clone())
    };
    let near = bed.node.index("veth7");
    let far = ("veth7".to_owned(), bed.pod.path(), bed.pod.index("eth0"));
    let (states, given) = tend(&["veth7", "lo", "nowhere"]);
    assert_eq!(states, [(near, FarEnd::Ready)].into());
    assert_eq!(given, [far]);
    assert_eq!(tend(&["veth7"]).1.len(), 1, "it is remembered");

    bed.node.ip("link delete veth7");
    assert_eq!(tend(&["veth7"]).0, BTreeMap::new());
    bed.node.veth(("veth7", "02:00:00:00:00:08"), &bed.pod, ("eth0", "02:00:00:00:00:78"));
    let (states, given) = tend(&["veth7"]);
    assert_eq!(states, [(bed.node.index("veth7"), FarEnd::Ready)].into());
    assert_eq!(given[1..], [("veth7".to_owned(), bed.pod.path(), bed.pod.index("eth0"))]);
}

#[test]
fn a_far_end_that_cannot_be_reached_or_given_a_program_is_refused_with_the_reason() {
    let bed = Bed::new();
    let empty = TempDir::new().unwrap();
    let refusal = |directory: &Path| {
        let mut far_ends = FarEnds::new(directory.to_owned());
        let states = bed.node.inside(|| {
            let mut connection = Connection::open().unwrap();
            far_ends.tend(&mut connection, ["veth7"], |_, _| Err("the verifier said no")).unwrap()
        });
        match states.into_values().next() {
            Some(FarEnd::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    assert!(refusal(empty.path()).contains("--netns-dir"));
    assert_eq!(refusal(Path::new("/run/netns")), "the verifier said no");
    let seen = bed.node.inside(|| {
        let mut connection = Connection::open().unwrap();
        let links = read_links(&mut connection).unwrap();
        let veth = links.values().filter(|link| link.name == "veth7");
        observe_far_ends(&mut connection, veth, Path::new("/run/netns"))
    });
    let expected = "no program is attached to its far end eth0; the agent attaches one".to_owned();
    assert_eq!(seen.into_values().collect::<Vec<_>>(), [FarEnd::Refused(expected)]);
}

#[test]
fn lesson_11_a_peer_that_offloads_checksums_is_told_until_it_is_switched_off() {
    let bed = Bed::new();
    let problems = || {
        bed.node.inside(|| {
            let mut connection = Connection::open().unwrap();
            offload_problems(&mut connection, &["eth0".to_owned()], Path::new("/run/netns"))
        })
    };
    let [problem] = problems().try_into().expect("one problem");
    assert!(problem.message.contains("ethtool -K eth0 tx off"), "{problem}");
    assert!(problem.message.contains(&bed.client.name), "{problem}");
    bed.client.inside(|| {
        let done = Command::new("ethtool").args(["-K", "eth0", "tx", "off"]).output().expect("ethtool is installed");
        assert!(done.status.success(), "{done:?}");
        assert!(!tx_checksum("eth0").unwrap());
    });
    assert_eq!(problems(), []);
    bed.client.inside(|| assert!(tx_checksum("a-name-that-is-too-long").is_err()));
}
