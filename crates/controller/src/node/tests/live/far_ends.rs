//! Far ends of veths.

use super::*;

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
