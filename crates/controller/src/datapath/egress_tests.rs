//! The program on the way out in a real kernel: attached, adopted, replaced, taken off. Needs root.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::Command;
use std::time::Duration;

use guenon_ebpf::abi::{RECEIVED, Settings};

use super::kernel_tests::Bed;
use super::tables::attachments::{Attachment, Egress};
use super::{AttachMode, EgressHook, Extent, Kernel, Options, detach_all, program, sys};
use crate::netlink::tests::net::wait_for;
use crate::netlink::{Connection, Interest, Monitor, ViewOptions, filters};

impl Bed {
    /// What `tc` says of filters and qdiscs of eth0.
    fn tc(&self) -> String {
        let said = |arguments: &[&str]| {
            let output = Command::new("tc").args(["-n", &self.net.name]).args(arguments).output().expect("tc");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        said(&["qdisc", "show", "dev", "eth0"]) + &said(&["filter", "show", "dev", "eth0", "egress"])
    }

    /// Ids of the tcx programs at eth0's egress.
    fn tcx(&self) -> Vec<u32> {
        self.net.inside(|| sys::tcx_programs(index()).expect("the kernel has tcx"))
    }

    fn filters(&self) -> Vec<filters::Filter> {
        self.net.inside(|| filters::egress_filters(&mut Connection::open().unwrap(), index()).unwrap())
    }

    /// A program of somebody else's.
    fn other(&self) -> OwnedFd {
        let settings = Settings { slot: 63, ..Settings::default() };
        program::load_egress(&self.pin_dir.join("maps"), &settings).expect("it is loaded").fd
    }

    fn put_other_filter(&self, preference: u16) {
        let other = self.other();
        let put = || {
            filters::put_egress_filter(&mut Connection::open().unwrap(), index(), preference, "other", other.as_fd())
        };
        self.net.inside(|| put().expect("it is put there"));
    }

    fn clsact(&self) -> Options {
        Options { egress: EgressHook::Clsact, ..self.options() }
    }
}

/// eth0's, in this thread's namespace.
fn index() -> u32 {
    super::interfaces::index_of("eth0").expect("it is there")
}

/// Attaches both programs to eth0, without trouble.
fn attach(kernel: &mut Kernel) -> Attachment {
    kernel.attach("eth0").expect("the XDP program is attached");
    assert_eq!(kernel.tend_egress(true), []);
    kernel.attachments().remove(0)
}

/// A key of `HAIRPINS`; the prefixes of IPv4 count from 96.
fn hairpin_key(prefix: u32, address: impl Into<IpAddr>) -> [u8; 20] {
    let address = match address.into() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let mut key = [0; 20];
    key[..4].copy_from_slice(&prefix.to_ne_bytes());
    key[4..].copy_from_slice(&address.octets());
    key
}

fn left(bed: &Bed) -> u64 {
    let reading = bed.reader().reading(Extent::default()).expect("counters");
    reading.interfaces[0].total_egress().at(RECEIVED).packets
}

#[test]
fn it_is_attached_once_it_is_wanted_and_adopted_by_the_next_agent() {
    let bed = Bed::new();
    bed.with(|kernel| {
        assert_eq!(kernel.attach("eth0").unwrap().egress, Egress::None);
        assert_eq!(kernel.tend_egress(false), []);
        assert_eq!(kernel.attachments()[0].egress, Egress::None);
        assert_eq!(attach(kernel).egress, Egress::Tcx);
    });
    let programs = bed.tcx();
    assert_eq!(programs.len(), 1);
    bed.net.ip("neigh flush all");
    bed.ping();
    assert!(left(&bed) > 0, "answers to ARP leave at least");

    bed.with(|kernel| {
        let attachment = kernel.attach("eth0").unwrap();
        assert_eq!(attachment.egress, Egress::Tcx, "what is there stays, though nobody wants it just now");
        assert_eq!(kernel.tend_egress(false), []);
    });
    assert_eq!(bed.tcx(), programs, "the same program");

    let other = Options { gue_port: 7000, ..bed.options() };
    bed.with_options(other, |kernel| assert_eq!(attach(kernel).egress, Egress::Tcx));
    let replaced = bed.tcx();
    assert!(replaced.len() == 1 && replaced != programs, "{replaced:?} instead of {programs:?}");

    bed.with(|kernel| {
        kernel.detach("eth0").unwrap();
        assert_eq!(kernel.attachments()[0].egress, Egress::None);
    });
    assert_eq!(bed.tcx(), [0; 0]);
}

#[test]
fn an_interface_that_comes_while_it_is_wanted_gets_it_before_flows_come_in() {
    for hook in [EgressHook::Auto, EgressHook::Clsact] {
        let bed = Bed::new();
        bed.with_options(Options { egress: hook, ..bed.options() }, |kernel| {
            assert_eq!(kernel.tend_egress(true), [], "there is none yet");
            let attached = kernel.attach("eth0").expect("both are attached");
            assert_ne!(attached.egress, Egress::None);
            assert_eq!(kernel.attachments(), [attached]);
        });
        let on_the_way_out = bed.tcx().into_iter().chain(bed.filters().into_iter().filter_map(|filter| filter.program));
        let (on_the_way_in, _) = bed.in_force();
        // Later programs have greater ids.
        assert!(on_the_way_out.clone().eq(on_the_way_out.clone().filter(|id| *id < on_the_way_in)), "{hook:?}");
        assert_eq!(on_the_way_out.count(), 1, "{hook:?}");
    }
}

#[test]
fn where_the_xdp_program_is_refused_it_goes_again_unless_it_was_there() {
    for hook in [EgressHook::Auto, EgressHook::Clsact] {
        let bed = Bed::new();
        let (options, before) = (Options { egress: hook, ..bed.options() }, bed.tc());
        let foreign = program::load_pass().expect("a program");
        let put = || sys::create_xdp_link(foreign.fd.as_fd(), index(), sys::XDP_GENERIC).expect("it is attached");
        let there = || (bed.tcx().len() + bed.filters().len(), bed.tc());
        let foreign_link = bed.net.inside(put);
        bed.with_options(options.clone(), |kernel| {
            assert_eq!(kernel.tend_egress(true), []);
            kernel.attach("eth0").expect_err("another program is there");
            assert!(kernel.attachments().iter().all(|attached| attached.egress == Egress::None));
            assert_eq!(there(), (0, before.clone()), "{hook:?}");
            assert_eq!(kernel.answering(), BTreeSet::new());
            assert!(!kernel.egress_placed.contains("eth0"), "it has not come and gone");
        });
        // Which has no XDP in the driver.
        bed.with_options(Options { mode: AttachMode::Native, ..options.clone() }, |kernel| {
            assert_eq!(kernel.tend_egress(true), []);
            kernel.attach("lo").expect_err("the driver refuses");
            assert!(kernel.egress_placed.contains("lo"), "it was there for a moment");
            assert_eq!(kernel.answering(), BTreeSet::new());
            let lo = super::interfaces::index_of("lo").expect("it is there");
            wait_for("its end", || sys::tcx_programs(lo).expect("the kernel has tcx").is_empty());
            let pinned = std::fs::read_dir(bed.pin_dir.join("egress-programs")).expect("the directory is there");
            assert_eq!(pinned.count(), 0, "{hook:?}");
        });
        drop(foreign_link);
        bed.with_options(options.clone(), attach);
        let after = there();
        assert_eq!(after.0, 1, "{hook:?}");
        std::fs::remove_file(bed.pin_dir.join("links/eth0")).expect("the link was pinned");
        let mut foreign_link = None;
        // The kernel lets go of a link some time after its pin.
        wait_for("the place", || {
            let free = bed.net.inside(|| super::interfaces::program_on(index()).expect("it is there")) == 0;
            free && foreign_link.insert(bed.net.inside(put)).as_raw_fd() >= 0
        });
        bed.with_options(options, |kernel| {
            kernel.attach("eth0").expect_err("another program has taken the place");
            assert_eq!(kernel.answering(), BTreeSet::from(["eth0".into()]));
        });
        assert_eq!(there().0, after.0, "flows that came in still leave: {hook:?}");
    }
}

#[test]
fn it_stands_before_other_tcx_programs_and_tells_of_one_that_came_before_it() {
    let bed = Bed::new();
    let mut others: BTreeMap<u32, OwnedFd> = BTreeMap::new();
    let mut come_first = |bed: &Bed| {
        let other = bed.other();
        let (id, _) = sys::program_info(other.as_fd()).unwrap();
        let link = bed.net.inside(|| sys::create_tcx_link(other.as_fd(), index()).expect("it is attached"));
        others.insert(id, link);
        id
    };
    bed.with(|kernel| {
        let other = come_first(&bed);
        attach(kernel);
        let programs = bed.tcx();
        assert!(programs.len() == 2 && programs[1] == other, "{programs:?}: ours comes before {other}");

        let earlier = come_first(&bed);
        let troubles = kernel.tend_egress(true);
        let [trouble] = &troubles[..] else { panic!("{troubles:?}") };
        assert_eq!(trouble.interface, "eth0");
        assert!(trouble.message.contains(&format!("tcx program {earlier}, name \"guenon_egress\"")), "{trouble:?}");
        assert!(!trouble.message.contains(&other.to_string()), "{trouble:?}");
    });
    // The next agent puts its own first again.
    bed.with(attach);
    assert_eq!(bed.tcx().len(), 3);
}

#[test]
fn without_tcx_it_is_a_filter_of_a_qdisc_that_goes_with_it() {
    let bed = Bed::new();
    let before = bed.tc();
    bed.with_options(bed.clsact(), |kernel| assert_eq!(attach(kernel).egress, Egress::Clsact));
    let filters = bed.filters();
    let [filter] = &filters[..] else { panic!("{filters:?}") };
    assert_eq!((filter.preference, filter.name.as_deref()), (1, Some("guenon_egress")));
    assert!(bed.tc().contains("guenon_egress direct-action"), "{}", bed.tc());
    bed.net.ip("neigh flush all");
    bed.ping();
    assert!(left(&bed) > 0);

    bed.with_options(bed.clsact(), attach);
    assert_eq!(bed.filters(), filters, "the next agent leaves it as it is");
    let other = Options { gue_port: 7000, ..bed.clsact() };
    bed.with_options(other, attach);
    let replaced = bed.filters();
    assert!(replaced.len() == 1 && replaced[0].preference == 1 && replaced != filters, "{replaced:?}");
    // Without the record it is known by its name.
    std::fs::remove_file(bed.state.path().join("programs.json")).unwrap();
    bed.with_options(bed.clsact(), attach);
    assert_eq!(bed.filters().len(), 1);

    bed.with_options(bed.clsact(), |kernel| kernel.detach("eth0").unwrap());
    assert_eq!(bed.filters(), []);
    assert!(bed.tc().contains("clsact"), "whose it is was in the record that is gone, so it stays");
    bed.net.inside(|| filters::remove_clsact(&mut Connection::open().unwrap(), index()).unwrap());
    bed.with_options(bed.clsact(), |kernel| {
        attach(kernel);
        kernel.detach("eth0").unwrap();
    });
    assert_eq!(bed.tc(), before);
}

#[test]
fn a_filter_before_ours_is_named_and_others_are_left_alone() {
    let bed = Bed::new();
    bed.with_options(bed.clsact(), |kernel| {
        kernel.attach("eth0").unwrap();
        bed.net.inside(|| filters::add_clsact(&mut Connection::open().unwrap(), index()).unwrap());
        bed.put_other_filter(1);
        let troubles = kernel.tend_egress(true);
        let [trouble] = &troubles[..] else { panic!("{troubles:?}") };
        assert!(trouble.message.contains("the bpf filter \"other\""), "{trouble:?}");
        assert!(trouble.message.contains("of preference 1:"), "{trouble:?}");
        assert_eq!(bed.filters()[1].preference, 2, "the lowest that is free");
        bed.put_other_filter(9);
        bed.net.inside(|| filters::remove_egress_filter(&mut Connection::open().unwrap(), index(), 1).unwrap());
        assert_eq!(kernel.tend_egress(true), []);
        kernel.detach("eth0").unwrap();
    });
    let filters = bed.filters();
    assert!(filters.len() == 1 && filters[0].preference == 9, "{filters:?}");
}

#[test]
fn a_filter_that_somebody_removed_is_put_back() {
    let bed = Bed::new();
    bed.with_options(bed.clsact(), |kernel| {
        attach(kernel);
        bed.net.inside(|| filters::remove_clsact(&mut Connection::open().unwrap(), index()).unwrap());
        assert_eq!(bed.filters(), []);
        assert_eq!(kernel.tend_egress(true), []);
    });
    assert_eq!(bed.filters().len(), 1);
}

#[test]
fn a_kernel_that_learned_tcx_has_no_filter_any_more() {
    let bed = Bed::new();
    let before = bed.tc();
    bed.with_options(bed.clsact(), attach);
    bed.with(|kernel| assert_eq!(attach(kernel).egress, Egress::Tcx));
    assert_eq!((bed.tc(), bed.tcx().len()), (before, 1));
    bed.with_options(bed.clsact(), |kernel| assert_eq!(attach(kernel).egress, Egress::Clsact));
    assert_eq!((bed.filters().len(), bed.tcx()), (1, vec![]));
}

#[test]
fn an_ingress_qdisc_in_the_way_is_told_with_its_cure() {
    let bed = Bed::new();
    let tc = |words: &str| {
        let done = Command::new("tc").args(["-n", &bed.net.name]).args(words.split(' ')).status();
        assert!(done.expect("tc").success(), "tc {words}");
    };
    tc("qdisc add dev eth0 ingress");
    bed.with_options(bed.clsact(), |kernel| {
        kernel.attach("eth0").unwrap();
        let troubles = kernel.tend_egress(true);
        let [trouble] = &troubles[..] else { panic!("{troubles:?}") };
        assert!(trouble.message.contains("tc qdisc del dev INTERFACE ingress"), "{trouble:?}");
        assert_eq!(kernel.attachments()[0].egress, Egress::None);
        tc("qdisc del dev eth0 ingress");
        assert_eq!(kernel.tend_egress(true), [], "the cure cures");
        assert_eq!(kernel.attachments()[0].egress, Egress::Clsact);
    });
}

#[test]
fn clients_whose_replies_would_leave_without_it_are_hairpins_until_it_is_there() {
    let bed = Bed::new();
    let tc = |words: &str| {
        let done = Command::new("tc").args(["-n", &bed.net.name]).args(words.split(' ')).status();
        assert!(done.expect("tc").success(), "tc {words}");
    };
    let start = |kernel: &Kernel| {
        let options = ViewOptions {
            node: "t22".into(),
            roles: Vec::new(),
            interfaces: vec!["eth0".into()],
            tunnels: Vec::new(),
            answering: kernel.answering(),
            interest: Interest::Only(BTreeSet::new()),
            far_ends: BTreeMap::new(),
        };
        Monitor::start(options).expect("the kernel tells its tables").0
    };
    // As an agent does it in each round.
    let is_hairpin = |kernel: &mut Kernel, monitor: &Monitor| {
        assert!(monitor.answers_by(kernel.answering(), Duration::from_secs(5)));
        kernel.set_hairpins(&monitor.hairpins()).expect("there is room");
        let keys = sys::prefixes(kernel.store().fd("HAIRPINS").expect("the map")).expect("its keys");
        keys.contains(&hairpin_key(120, [172, 17, 2, 0]))
    };
    bed.with_options(bed.clsact(), |kernel| {
        let monitor = start(kernel);
        kernel.attach("eth0").unwrap();
        assert_eq!(kernel.tend_egress(false), []);
        assert!(!is_hairpin(kernel, &monitor), "nobody asks");
        tc("qdisc add dev eth0 ingress");
        assert_eq!(kernel.tend_egress(true).len(), 1);
        assert!(is_hairpin(kernel, &monitor));
        tc("qdisc del dev eth0 ingress");
        assert_eq!(kernel.tend_egress(true), []);
        assert!(!is_hairpin(kernel, &monitor), "the cure cures");
    });
    bed.with_options(bed.clsact(), |kernel| {
        let monitor = start(kernel);
        assert_eq!(monitor.hairpins().keys().filter(|net| net.prefix_len() == 24).count(), 0, "adopted");
        assert!(!is_hairpin(kernel, &monitor));
        kernel.attach("eth0").unwrap();
        assert!(!is_hairpin(kernel, &monitor));
        assert_eq!(kernel.tend_egress(true), []);
        kernel.detach("eth0").unwrap();
        assert!(is_hairpin(kernel, &monitor), "it is not attached any more");
    });
}

#[test]
fn an_interface_that_comes_back_gets_it_again() {
    for hook in [EgressHook::Auto, EgressHook::Clsact] {
        let bed = Bed::new();
        let options = Options { egress: hook, ..bed.options() };
        bed.with_options(options, |kernel| {
            let egress = attach(kernel).egress;
            bed.net.ip("link delete eth0");
            assert_eq!(kernel.tend_egress(true), [], "an interface that is away is told of elsewhere");
            kernel.detach("eth0").unwrap();
            assert_eq!(kernel.attachments()[0].egress, Egress::None);
            bed.net.veth(("eth0", "02:00:00:00:00:16"), &bed.peer, ("gw", "02:00:00:00:00:01"));
            assert_eq!(kernel.attach("eth0").expect("it is back").egress, egress);
            // Replaced before anybody has seen that it was away.
            bed.net.ip("link delete eth0");
            bed.net.veth(("eth0", "02:00:00:00:00:16"), &bed.peer, ("gw", "02:00:00:00:00:01"));
            assert_eq!(kernel.attach("eth0").expect("it is another").egress, egress);
        });
        assert_eq!(bed.tcx().len() + bed.filters().len(), 1, "{hook:?}");
    }
}

#[test]
fn new_maps_get_both_programs_and_what_was_counted() {
    let bed = Bed::new();
    bed.with(attach);
    bed.net.ip("neigh flush all");
    bed.ping();
    let (counted, programs) = (left(&bed), bed.tcx());
    let capacities = super::tables::Capacities { frontends: 256, ..bed.options().capacities };
    let larger = Options { capacities, ..bed.options() };
    bed.with_options(larger, |kernel| {
        assert_eq!(kernel.answering(), BTreeSet::from(["eth0".into()]), "no reply is ever held back");
        assert_eq!(kernel.attach("eth0").unwrap().egress, Egress::Tcx);
        assert_eq!(kernel.tend_egress(false), []);
        assert_eq!(kernel.attachments()[0].egress, Egress::Tcx);
    });
    assert!(bed.tcx().len() == 1 && bed.tcx() != programs);
    assert!(counted > 0 && left(&bed) >= counted, "{counted}, then {}", left(&bed));
}

#[test]
fn prefixes_that_uplinks_do_not_answer_are_in_force_and_those_of_before_are_not() {
    let bed = Bed::new();
    let nets = |all: &[(&str, bool)]| -> BTreeMap<ipnet::IpNet, bool> {
        all.iter().map(|(net, hairpin)| (net.parse().expect("a net"), *hairpin)).collect()
    };
    let in_force = |kernel: &Kernel| {
        let mut keys = sys::prefixes(kernel.store().fd("HAIRPINS").expect("the map")).expect("its keys");
        keys.sort();
        keys
    };
    let (v4, narrow) = (hairpin_key(112, [10, 22, 0, 0]), hairpin_key(120, [10, 22, 2, 0]));
    let v6 = hairpin_key(64, "2001:db8:2::".parse::<Ipv6Addr>().unwrap());
    bed.with(|kernel| {
        let first = nets(&[("10.22.0.0/16", true), ("10.22.2.0/24", false), ("2001:db8:2::/64", true)]);
        kernel.set_hairpins(&first).expect("there is room");
        let mut all = vec![v4, narrow, v6];
        all.sort();
        assert_eq!(in_force(kernel), all);
    });
    bed.with(|kernel| {
        kernel.set_hairpins(&nets(&[("2001:db8:2::/64", true)])).expect("there is room");
        assert_eq!(in_force(kernel), [v6], "what an earlier agent left is gone");
    });
}

#[test]
fn the_capabilities_of_the_chart_suffice() {
    const CAPABILITIES: u64 = 1 << 12 | 1 << 38 | 1 << 39; // NET_ADMIN, PERFMON, BPF
    for hook in [EgressHook::Auto, EgressHook::Clsact] {
        let bed = Bed::new();
        let options = Options { egress: hook, ..bed.options() };
        let other = bed.with(|kernel| {
            attach(kernel);
            bed.other()
        });
        let _link = bed.net.inside(|| sys::create_tcx_link(other.as_fd(), index()).expect("it is attached"));
        bed.net.inside(|| {
            let (low, high) = (CAPABILITIES as u32, (CAPABILITIES >> 32) as u32);
            let (header, sets) = ([0x2008_0522u32, 0], [low, low, 0, high, high, 0]);
            // SAFETY: version 3 of capset(2) reads a header of two words and a set of six; this thread alone loses its
            // capabilities, and ends right after.
            let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const sets) };
            assert_eq!(result, 0);
            let mut kernel = Kernel::open(options).expect("the data path opens");
            kernel.attach("eth0").expect("the XDP program is attached");
            let troubles = kernel.tend_egress(true);
            // By tcx it is put first again. What stands before is named by its id where its name may not be read.
            match (hook, &troubles[..]) {
                (EgressHook::Auto, []) => {}
                (EgressHook::Clsact, [trouble]) => {
                    assert!(
                        trouble.message.contains("tcx program ") && !trouble.message.contains("name"),
                        "{trouble:?}"
                    );
                }
                other => panic!("{other:?}"),
            }
            kernel.detach("eth0").expect("it is taken off");
        });
        assert_eq!((bed.tcx().len(), bed.filters()), (1, vec![]), "{hook:?}");
    }
}

#[test]
fn detaching_leaves_nothing_at_the_egress() {
    for hook in [EgressHook::Auto, EgressHook::Clsact] {
        let bed = Bed::new();
        let before = bed.tc();
        bed.with_options(Options { egress: hook, ..bed.options() }, attach);
        bed.net.inside(|| detach_all(&bed.pin_dir, bed.state.path()).expect("it is detached"));
        assert_eq!((bed.tc(), bed.tcx()), (before, vec![]), "{hook:?}");
        assert!(!bed.pin_dir.exists());
        assert_eq!(std::fs::read_dir(bed.state.path()).unwrap().count(), 0);
    }
}
