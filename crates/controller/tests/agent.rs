//! The real agent on real namespaces: client - switch - director - decap node. Needs root.

#[path = "support/net.rs"]
mod net;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use net::{GUENON, Netns, Process, Scratch, ask, host, http_get, serve, wait_until};
use nix::sys::signal::Signal;

const VIP: &str = "203.0.113.10:8080";
const METRICS: &str = "127.0.0.1:9478";

/// Client 10.77.0.1, director 10.77.0.2 and decap node 10.77.0.3 on one switch; the client reaches VIPs through the
/// director.
struct Bed {
    name: String,
    switch: Netns,
    client: Netns,
    director: Netns,
    decap: Netns,
    scratch: Scratch,
    pass_pins: String,
}

impl Bed {
    fn new(name: &str) -> Self {
        let netns = |role: &str| Netns::new(&format!("gt-{name}-{role}"));
        let bed = Self {
            name: name.to_owned(),
            switch: netns("sw"),
            client: netns("cl"),
            director: netns("di"),
            decap: netns("de"),
            scratch: Scratch::new(name),
            pass_pins: format!("/sys/fs/bpf/guenon-test-{name}-pass"),
        };
        bed.switch.run(&["ip", "link", "add", "br0", "type", "bridge"]);
        bed.switch.run(&["ip", "link", "set", "br0", "up"]);
        bed.plug(&bed.client, "cl", "10.77.0.1/24");
        bed.plug(&bed.director, "di", "10.77.0.2/24");
        bed.plug(&bed.decap, "de", "10.77.0.3/24");
        bed.client.run(&["ip", "route", "add", "203.0.113.0/24", "via", "10.77.0.2"]);
        std::fs::create_dir(bed.scratch.path("manifests")).expect("a directory");
        bed
    }

    /// A veth from the node's eth0 to the switch. Both of its ends are made fit for XDP: the far one has a pass program
    /// (lesson 1), and nobody leaves checksums unfinished (lesson 11).
    fn plug(&self, node: &Netns, port: &str, address: &str) {
        let peer = ["peer", "name", port, "netns", &self.switch.name];
        node.run(&[&["ip", "link", "add", "eth0", "type", "veth"][..], &peer].concat());
        node.run(&["ethtool", "-K", "eth0", "tx", "off"]);
        self.switch.run(&["ethtool", "-K", port, "tx", "off"]);
        self.switch.run(&["ip", "link", "set", port, "master", "br0", "up"]);
        node.run(&["ip", "address", "add", address, "dev", "eth0"]);
        node.run(&["ip", "link", "set", "eth0", "up"]);
        self.switch.run(&[GUENON, "pass", "attach", "--interface", port, "--pin-dir", &self.pass_pins]);
    }

    fn manifest(&self, name: &str, text: &str) {
        let (new, path) = (self.scratch.path("new"), self.scratch.path("manifests").join(name));
        std::fs::write(&new, text).and_then(|()| std::fs::rename(new, path)).expect("the manifest is written");
    }

    fn directories(&self, node: &Netns) -> [String; 4] {
        let pins = self.scratch.pins.join(&node.name);
        let state = self.scratch.path(&format!("state-{}", node.name));
        ["--pin-dir".into(), pins.display().to_string(), "--state-dir".into(), state.display().to_string()]
    }

    /// An agent on this node, once it is ready.
    fn agent(&self, node: &Netns, more: &[&str]) -> Process {
        let mut agent = self.start_agent(node, more);
        wait_until(&format!("the agent of {} is ready", node.name), || {
            agent.assert_runs();
            http_get(node, metrics(), "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
        });
        agent
    }

    fn start_agent(&self, node: &Netns, more: &[&str]) -> Process {
        std::fs::create_dir_all(&self.scratch.pins).expect("a directory of pins");
        let mut command = node.command(GUENON);
        command.arg("agent").arg("--manifests").arg(self.scratch.path("manifests"));
        command.args(["--interface", "eth0", "--node", &node.name]).args(self.directories(node)).args(more);
        Process::start(command, self.scratch.path(&format!("{}.log", node.name)))
    }

    fn status(&self, node: &Netns, subject: &[&str]) -> serde_json::Value {
        let directories = self.directories(node);
        let mut command = vec![GUENON, "status", "-o", "json"];
        command.extend(subject);
        command.extend(directories.iter().map(String::as_str));
        serde_json::from_str(&node.run(&command)).expect("JSON")
    }

    fn detach(&self, node: &Netns) -> std::process::Output {
        let mut command: Command = node.command(GUENON);
        command.arg("detach").args(self.directories(node)).output().expect("the command starts")
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.pass_pins);
        let _ = std::fs::remove_dir_all(&self.scratch.pins);
        assert!(!self.name.is_empty());
    }
}

fn metrics() -> SocketAddr {
    METRICS.parse().expect("an address")
}

fn vip() -> SocketAddr {
    VIP.parse().expect("an address")
}

/// The sum of a metric's samples that contain all of `labels`.
fn metric(node: &Netns, name: &str, labels: &[&str]) -> f64 {
    let text = http_get(node, metrics(), "/metrics").expect("metrics are served");
    let mut found = false;
    let samples =
        text.lines().filter(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")));
    let sum = samples
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .map(|line| {
            found = true;
            line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")
        })
        .sum();
    assert!(found, "no {name} with {labels:?} in\n{text}");
    sum
}

const WEB: &str = "
apiVersion: guenon.dev/v1alpha1
kind: VirtualService
metadata: {namespace: shop, name: web}
spec:
  addresses: [203.0.113.10]
  ports: [{name: http, protocol: TCP, port: 8080}]
  endpoints: [{address: 10.77.0.3}]
";

#[test]
fn tcp_goes_through_director_and_decap_node_and_back_to_the_client() {
    let bed = Bed::new("tcp");
    bed.manifest("web.yaml", WEB);
    let before = bed.decap.run(&[
        "sh",
        "-c",
        "ip address show lo; sysctl -a 2>/dev/null | grep -E 'rp_filter|arp_|accept_local' | sort",
    ]);
    let mut decap = bed.agent(&bed.decap, &["--director", "10.77.0.2"]);
    let mut director = bed.agent(&bed.director, &[]);
    serve(&bed.decap, "0.0.0.0:8080".parse().expect("an address"), "decap: ");

    // Answered, with every packet accounted for.
    let request = vec![b'x'; 20_000];
    for _ in 0..20 {
        let answer = ask(&bed.client, vip(), &request).expect("an answer");
        assert_eq!(answer, [&b"decap: "[..], &request].concat());
    }
    assert!(metric(&bed.director, "guenon_events_total", &["\"encapsulated\""]) >= 60.0);
    assert!(metric(&bed.decap, "guenon_events_total", &["\"decapsulated\""]) >= 60.0);
    for node in [&bed.director, &bed.decap] {
        assert_eq!(metric(node, "guenon_ledger_difference", &["eth0"]), 0.0, "{}", node.name);
        assert_eq!(metric(node, "guenon_drops_total", &[]), 0.0, "{}", node.name);
        assert_eq!(metric(node, "guenon_problems", &[]), 0.0, "{}", node.name);
    }
    let status = bed.status(&bed.director, &[]);
    assert_eq!((&status["agent_runs"], &status["services"]["services"]), (&true.into(), &1.into()));
    assert_eq!(status["interfaces"][0]["mode"], "native");
    let endpoints = bed.status(&bed.director, &["endpoints"]);
    assert_eq!((&endpoints[0]["path"], &endpoints[0]["share"]), (&"tunnel".into(), &1.0.into()));

    // Agents that end leave everything in force; those that come adopt it.
    assert_eq!((director.end(Signal::SIGTERM), decap.end(Signal::SIGKILL)), (Some(0), None));
    ask(&bed.client, vip(), b"still there").expect("an answer with no agent");
    assert_eq!(bed.status(&bed.director, &[])["agent_runs"], false);
    let revision = bed.status(&bed.director, &[])["revision"].clone();
    let mut director = bed.agent(&bed.director, &[]);
    assert_eq!(bed.status(&bed.director, &[])["revision"], revision, "a restart changes nothing");
    assert!(metric(&bed.director, "guenon_events_total", &["\"encapsulated\""]) >= 60.0, "counters go on");

    // A directory that is not there yet takes nothing out of force.
    assert_eq!(director.end(Signal::SIGTERM), Some(0));
    let (here, away) = (bed.scratch.path("manifests"), bed.scratch.path("away"));
    std::fs::rename(&here, &away).expect("the directory is moved");
    let mut director = bed.start_agent(&bed.director, &[]);
    wait_until("the agent says what it waits for", || {
        director.assert_runs();
        http_get(&bed.director, metrics(), "/readyz").is_ok_and(|answer| answer.contains("has not told of its objects"))
    });
    ask(&bed.client, vip(), b"no manifests").expect("an answer");
    std::fs::rename(&away, &here).expect("the directory is moved back");
    wait_until("the agent is ready", || {
        http_get(&bed.director, metrics(), "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    });
    assert_eq!(bed.status(&bed.director, &[])["revision"], revision, "nothing had changed");

    // While an agent runs, its data path is not taken away.
    let refused = bed.detach(&bed.director);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && message.contains(&director.pid().to_string()), "{message}");

    // Then it is, and nothing is left.
    assert_eq!(director.end(Signal::SIGINT), Some(0));
    for node in [&bed.director, &bed.decap] {
        let done = bed.detach(node);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert!(!node.run(&["ip", "-details", "link", "show", "eth0"]).contains("xdp"), "{}", node.name);
        assert!(!bed.scratch.pins.join(&node.name).exists(), "pins of {}", node.name);
    }
    let after = bed.decap.run(&[
        "sh",
        "-c",
        "ip address show lo; sysctl -a 2>/dev/null | grep -E 'rp_filter|arp_|accept_local' | sort",
    ]);
    assert_eq!(after, before, "the node is as it was");
}

#[test]
fn changes_of_files_come_into_force_and_bad_ones_disturb_nothing() {
    let bed = Bed::new("chg");
    bed.manifest("web.yaml", WEB);
    let _decap = bed.agent(&bed.decap, &["--director", "10.77.0.2"]);
    let _director = bed.agent(&bed.director, &[]);
    serve(&bed.decap, "0.0.0.0:8080".parse().expect("an address"), "");
    serve(&bed.decap, "0.0.0.0:8081".parse().expect("an address"), "");
    let second: SocketAddr = "203.0.113.10:8081".parse().expect("an address");
    ask(&bed.client, vip(), b"first").expect("an answer");

    // A bad file beside it is told of, and that is all.
    bed.manifest("bad.yaml", &WEB.replace("name: web", "name: bad").replace("port: 8080", "port: 0"));
    wait_until("the problem is told", || metric(&bed.director, "guenon_problems", &["\"Invalid\""]) == 1.0);
    let status = bed.status(&bed.director, &[]);
    let problem = &status["agent"]["problems"][0];
    assert_eq!(problem["place"]["field"], "spec.ports[0].port", "{problem}");
    ask(&bed.client, vip(), b"undisturbed").expect("an answer");

    // Mended, it comes into force on both nodes.
    bed.manifest("bad.yaml", &WEB.replace("name: web", "name: bad").replace("port: 8080", "port: 8081"));
    wait_until("the new frontend answers", || ask(&bed.client, second, b"mended").is_ok());
    assert_eq!(metric(&bed.director, "guenon_problems", &[]), 0.0);

    // Gone, it is dropped under its reason.
    std::fs::remove_file(bed.scratch.path("manifests").join("bad.yaml")).expect("the file is removed");
    wait_until("the frontend is gone", || bed.status(&bed.director, &[])["services"]["frontends"] == 1);
    assert!(ask(&bed.client, second, b"gone").is_err());
    assert!(metric(&bed.director, "guenon_drops_total", &["\"no_frontend\""]) >= 1.0);
    let drops = bed.status(&bed.director, &["drops"]);
    assert_eq!(drops[0]["reason"], "no_frontend");

    // The directory vanishes: what is in force stays.
    std::fs::rename(bed.scratch.path("manifests"), bed.scratch.path("elsewhere")).expect("the directory is moved");
    wait_until("its absence is told", || metric(&bed.director, "guenon_problems", &["\"Source\""]) == 1.0);
    ask(&bed.client, vip(), b"no directory").expect("an answer");
}

#[test]
fn an_interface_that_goes_and_comes_back_is_attached_again() {
    let bed = Bed::new("flap");
    bed.manifest("web.yaml", WEB);
    let _decap = bed.agent(&bed.decap, &["--director", "10.77.0.2"]);
    let _director = bed.agent(&bed.director, &[]);
    serve(&bed.decap, "0.0.0.0:8080".parse().expect("an address"), "");
    ask(&bed.client, vip(), b"before").expect("an answer");

    bed.director.run(&["ip", "link", "del", "eth0"]);
    wait_until("its absence is told", || metric(&bed.director, "guenon_problems", &["\"Interface\""]) == 1.0);
    let answer = http_get(&bed.director, metrics(), "/readyz").expect("an answer");
    assert!(answer.contains("not attached to eth0"), "{answer}");
    bed.plug(&bed.director, "di", "10.77.0.2/24");
    wait_until("it answers again", || ask(&bed.client, vip(), b"after").is_ok());
    wait_until("nothing is wrong", || metric(&bed.director, "guenon_problems", &[]) == 0.0);
}

/// Lesson 6 where it bites: the VIP is on the node's loopback and on that of a namespace behind a veth.
#[test]
fn an_endpoint_in_a_namespace_answers_beside_one_of_the_node_itself() {
    let bed = Bed::new("veth");
    let pod = Netns::new("gt-veth-pod");
    bed.decap.run(&["ip", "link", "add", "pod0", "type", "veth", "peer", "name", "eth0", "netns", &pod.name]);
    bed.decap.run(&["ip", "address", "add", "10.99.0.1/24", "dev", "pod0"]);
    bed.decap.run(&["ip", "link", "set", "pod0", "up"]);
    pod.run(&["ip", "address", "add", "10.99.0.7/24", "dev", "eth0"]);
    pod.run(&["ip", "address", "add", "203.0.113.10/32", "dev", "lo"]);
    pod.run(&["ip", "link", "set", "eth0", "up"]);
    pod.run(&["ip", "route", "add", "default", "via", "10.99.0.1"]);
    let both = "[{address: 10.77.0.3}, {address: 10.99.0.7, tunnel: 10.77.0.3, delivery: Veth}]";
    bed.manifest("web.yaml", &WEB.replace("[{address: 10.77.0.3}]", both));
    let _decap = bed.agent(&bed.decap, &["--director", "10.77.0.2"]);
    let _director = bed.agent(&bed.director, &[]);
    serve(&bed.decap, "0.0.0.0:8080".parse().expect("an address"), "node ");
    serve(&pod, "0.0.0.0:8080".parse().expect("an address"), "pod ");
    wait_until("the endpoint's MAC is known", || bed.status(&bed.decap, &["endpoints"])[1]["mac"].is_string());

    let answers: Vec<_> = (0..60).map(|_| ask(&bed.client, vip(), b"who?").expect("an answer")).collect();
    for who in [&b"node who?"[..], b"pod who?"] {
        let count = answers.iter().filter(|answer| *answer == who).count();
        assert!(count >= 10, "{count} of 60 answers from {}", String::from_utf8_lossy(who));
    }
    assert!(pod.run(&["ip", "-details", "link", "show", "eth0"]).contains("prog/xdp"), "the far end has a program");
    for node in [&bed.director, &bed.decap] {
        assert_eq!(metric(node, "guenon_drops_total", &[]), 0.0, "{}", node.name);
        assert_eq!(metric(node, "guenon_ledger_difference", &["eth0"]), 0.0, "{}", node.name);
    }

    // Without an endpoint behind it, the far end is given back.
    bed.manifest("web.yaml", WEB);
    wait_until("the far end is free", || !pod.run(&["ip", "-details", "link", "show", "eth0"]).contains("prog/xdp"));
}

/// What the agent says when it cannot start.
fn refusal(bed: &Bed, arguments: &[&str]) -> String {
    let mut agent = bed.start_agent(&bed.director, arguments);
    let code = agent.wait();
    assert_eq!(code, Some(1), "{}", agent.log());
    agent.log()
}

#[test]
fn what_keeps_an_agent_from_starting_is_told_before_anything_is_changed() {
    let bed = Bed::new("err");
    bed.manifest("web.yaml", WEB);
    let file = bed.scratch.path("key");
    std::fs::write(&file, "short").expect("a file");
    let file = file.display().to_string();
    #[rustfmt::skip]
    let cases: [(&[&str], &[&str]); 4] = [
        (&["--interface", "eth7"], &["eth7", "eth0", "--interface"]),
        (&["--listen", "192.0.2.1:1"], &["192.0.2.1:1", "--listen"]),
        (&["--hash-key-file", &file], &[&file, "32 hex digits"]),
        (&["--pin-dir", "/tmp"], &["/tmp", "BPF file system"]),
    ];
    for (arguments, words) in cases {
        let message = refusal(&bed, arguments);
        for word in words {
            assert!(message.contains(word), "`{word}` is not in the answer to {arguments:?}: {message}");
        }
    }
    assert!(!bed.scratch.pins.join(&bed.director.name).exists(), "nothing was pinned");
    assert!(!bed.director.run(&["ip", "-details", "link", "show", "eth0"]).contains("xdp"));

    // Somebody else's program is not taken over, and named.
    bed.director.run(&[GUENON, "pass", "attach", "--interface", "eth0", "--pin-dir", &bed.pass_pins]);
    let _agent = bed.start_agent(&bed.director, &[]);
    wait_until("the program is named", || metric_of(&bed, "Interface") == Some(1.0));
    let status = bed.status(&bed.director, &[]);
    let message = status["agent"]["problems"].to_string();
    assert!(message.contains("already has an XDP program (id "), "{message}");
    bed.director.run(&[GUENON, "pass", "detach", "--interface", "eth0", "--pin-dir", &bed.pass_pins]);
    wait_until("it is attached once the other is gone", || metric_of(&bed, "Interface") == Some(0.0));
}

fn metric_of(bed: &Bed, reason: &str) -> Option<f64> {
    http_get(&bed.director, metrics(), "/healthz").ok()?;
    Some(metric(&bed.director, "guenon_problems", &[&format!("\"{reason}\"")]))
}

#[test]
fn a_second_agent_on_the_same_pins_is_refused_with_the_first_ones_pid() {
    let bed = Bed::new("two");
    bed.manifest("web.yaml", WEB);
    let first = bed.agent(&bed.director, &[]);
    let message = refusal(&bed, &["--listen", "127.0.0.1:9479"]);
    assert!(message.contains(&format!("process {}", first.pid())), "{message}");
    assert!(Path::new(&bed.scratch.pins).exists());
    host(&["true"]);
}
