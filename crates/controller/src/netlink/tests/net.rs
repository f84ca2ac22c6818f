//! Network namespaces for tests: made by `ip netns`, removed when dropped, also by a panic.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::netlink::inside;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A network namespace of the test's own.
pub(crate) struct Net {
    pub(crate) name: String,
}

impl Net {
    pub(crate) fn new() -> Self {
        let name = format!("gnt-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        run(&["netns", "add", &name]);
        let net = Self { name };
        net.ip("link set lo up");
        net
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// `ip` in this namespace.
    pub(crate) fn ip(&self, arguments: &str) {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(arguments.split_whitespace());
        run(&all);
    }

    /// Runs something in this namespace.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.path()).expect("the namespace's file");
        inside(file.as_fd(), work).expect("root may enter it")
    }

    /// A veth pair between two namespaces, both ends up: (name here, MAC) to (name there, MAC).
    pub(crate) fn veth(&self, here: (&str, &str), other: &Self, there: (&str, &str)) {
        self.ip(&format!(
            "link add {} address {} type veth peer name {} address {} netns {}",
            here.0, here.1, there.0, there.1, other.name
        ));
        self.ip(&format!("link set {} up", here.0));
        other.ip(&format!("link set {} up", there.0));
    }

    /// An IPv6 address that is usable at once.
    pub(crate) fn address(&self, address: &str, link: &str) {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        self.ip(&format!("address add {address} dev {link} {nodad}"));
    }

    pub(crate) fn index(&self, link: &str) -> u32 {
        self.inside(|| nix::net::if_::if_nametoindex(link).expect("the link is there"))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // No panic in drop: the test's own message matters more.
        drop(Command::new("ip").args(["netns", "delete", &self.name]).status());
    }
}

fn run(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    assert!(
        output.status.success(),
        "ip {}: {} (these tests need root)",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
}

/// Waits until something holds, and tells how long it took.
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited 20 s in vain for: {what}");
        thread::sleep(Duration::from_millis(1));
    }
    start.elapsed()
}
