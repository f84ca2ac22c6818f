//! `guenon controller`, and what agents say of their nodes, with a real API server.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::changes::{problems, status};
use super::cluster::{no_problem_is_left_for_long, start_controller, up};
use super::load::Load;
use super::{ensure, traffic};
use crate::apiserver::{ApiServer, HASH_KEY, User};
use crate::chart::NAMESPACE;
use crate::shell::{Said, cmd};
use crate::topology::Topology;
use crate::topology::layout::{Host, VIP4};

/// How long a status may take: writes of one object are 5 s apart.
const LIMIT: Duration = Duration::from_secs(30);

/// Tries until it holds.
pub(super) fn within<T>(limit: Duration, mut holds: impl FnMut() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        crate::interrupt::check()?;
        match holds() {
            Err(error) if begin.elapsed() > limit => {
                return Err(error.context(format!("after {} s", limit.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
            Ok(value) => return Ok(value),
        }
    }
}

/// Waits until `kubectl get OBJECT` has this at a path.
fn shows(server: &ApiServer, object: &[&str], path: &str, wanted: &str, limit: Duration) -> Result<()> {
    within(limit, || {
        let found = field(server, object, path)?;
        ensure(found == wanted, || {
            let all = server.kubectl(&[&["get", "-o", "yaml"], object].concat()).read().unwrap_or_default();
            format!("{object:?} has {found:?} at {path}, not {wanted:?}:\n{all}")
        })
    })
}

fn field(server: &ApiServer, object: &[&str], path: &str) -> Result<String> {
    server.kubectl(&[&["get"], object, &["-o", &format!("jsonpath={{{path}}}")]].concat()).read()
}

fn condition(type_: &str, field: &str) -> String {
    format!(".status.conditions[?(@.type==\"{type_}\")].{field}")
}

/// The cells of a table, without those that tell ages and numbers that differ from run to run.
fn table(text: &str, columns: usize) -> Vec<Vec<String>> {
    text.lines().map(|line| line.split_whitespace().take(columns).map(str::to_owned).collect()).collect()
}

const WEB: [&str; 4] = ["-n", "demo", "gvs", "web"];

pub(super) fn statuses(topology: &mut Topology) -> Result<()> {
    let server = up(topology)?;
    for name in ["web", "web-v6"] {
        shows(&server, &["-n", "demo", "gvs", name], &condition("Ready", "reason"), "Ready", LIMIT)?;
    }
    // As scripts do it.
    server.kubectl(&["-n", "demo", "wait", "gvs", "--all", "--for=condition=Ready", "--timeout=60s"]).run()?;
    traffic::everybody_answers(topology)?;
    let said = checked(topology, &server, &["--strict"])?;
    ensure(said.status.success() && said.stdout.contains("2 of 2 are Ready, their agents heard"), || {
        format!("guenon check says\n{}{}", said.stdout, said.stderr)
    })?;

    // At a glance.
    let said = server.kubectl(&["-n", "demo", "get", "gvs"]).read()?;
    let wanted = [
        "NAME VIPS PORTS ENDPOINTS DIRECTORS READY ACCEPTED PROGRAMMED AGE",
        "web 203.0.113.10 80/TCP,7777/UDP 3/3 2/2 True True True",
        "web-v6 2001:db8:f::10 80/TCP,7777/UDP 3/3 2/2 True True True",
    ];
    let found: Vec<String> = table(&said, 9).iter().map(|cells| cells.join(" ")).collect();
    ensure(found.iter().zip(wanted).all(|(found, wanted)| found.starts_with(wanted)), || {
        format!("kubectl get gvs says\n{said}\nnot\n{}", wanted.join("\n"))
    })?;
    let said = server.kubectl(&["get", "guenonnodes"]).read()?;
    let found = table(&said, 5);
    let wanted = [
        ["t22", "Director,Decap", "True", "172.17.2.2,2001:db8:2::2", "eth0"],
        ["t33", "Director,Decap", "True", "172.17.3.3,2001:db8:3::3", "eth0"],
    ];
    ensure(found.get(1..).is_some_and(|rows| rows == wanted.map(|row| row.map(str::to_owned).to_vec())), || {
        format!("kubectl get guenonnodes says\n{said}")
    })?;

    // The hash key is the controller's, cannot be changed, and is the same everywhere.
    let key = ["-n", NAMESPACE, "secret", HASH_KEY];
    ensure(field(&server, &key, ".immutable")? == "true", || "the hash key's Secret can be changed".to_owned())?;
    let fingerprints: BTreeSet<String> = ["t22", "t33"]
        .iter()
        .map(|node| field(&server, &["guenonnode", node], ".status.hashKeyFingerprint"))
        .collect::<Result<_>>()?;
    ensure(fingerprints.len() == 1 && fingerprints.iter().all(|print| print.len() == 16), || {
        format!("fingerprints of the hash key: {fingerprints:?}")
    })?;
    let owner = field(&server, &["guenonnode", "t22"], ".metadata.ownerReferences[0].kind")?;
    ensure(owner == "Node", || format!("GuenonNode t22 is owned by {owner:?}"))?;

    // What is wrong, why, and what to do.
    let object = |name: &str, spec: &str| {
        format!(
            "apiVersion: guenon.dev/v1alpha1\nkind: VirtualService\nmetadata: {{namespace: demo, name: {name}}}\n\
             spec: {{{spec}}}\n"
        )
    };
    server.apply(&object(
        "claims",
        &format!("addresses: [\"{VIP4}\"], ports: [{{port: 80}}], endpoints: [{{address: 172.17.2.2}}]"),
    ))?;
    server.apply(&object("lost", "addresses: [203.0.113.77], ports: [{port: 80}], backendRefs: [{name: nowhere}]"))?;
    server
        .apply(&object("node", "addresses: [172.17.3.3], ports: [{port: 80}], endpoints: [{address: 172.17.2.2}]"))?;
    server.apply(&object(
        "drained",
        "addresses: [203.0.113.78], ports: [{port: 80}], endpoints: [{address: 172.17.2.2, weight: 0}]",
    ))?;
    for (name, type_, reason) in [
        ("claims", "Accepted", "Conflicted"),
        ("lost", "ResolvedRefs", "BackendNotFound"),
        ("node", "Accepted", "AddressNotAllowed"),
        ("drained", "Ready", "NoReadyEndpoints"),
    ] {
        let object = ["-n", "demo", "gvs", name];
        shows(&server, &object, &condition(type_, "reason"), reason, LIMIT)?;
        shows(&server, &object, &condition("Ready", "status"), "False", LIMIT)?;
        within(LIMIT, || {
            let described = server.kubectl(&["-n", "demo", "describe", "gvs", name]).read()?;
            let events = described.split_once("Events:").map_or("", |(_, events)| events);
            ensure(events.contains(&format!("Warning  {reason}")), || format!("kubectl describe says\n{described}"))
        })?;
    }
    let message = field(&server, &["-n", "demo", "gvs", "claims"], &condition("Accepted", "message"))?;
    ensure(message.contains("203.0.113.10:80/TCP stays with VirtualService demo/web"), || {
        format!("claims: {message}")
    })?;
    within(LIMIT, || {
        let described = server.kubectl(&["-n", "demo", "describe", "gvs", "web"]).read()?;
        ensure(described.contains("Contested"), || format!("the older one is not told of the claim:\n{described}"))
    })?;
    shows(&server, &WEB, &condition("Ready", "status"), "True", LIMIT)?;
    traffic::everybody_answers(topology)?;

    // Mended, it is well by itself.
    server.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {namespace: demo, name: nowhere}\nspec: {ports: [{port: 80}]}\n",
    )?;
    shows(&server, &["-n", "demo", "gvs", "lost"], &condition("ResolvedRefs", "status"), "True", LIMIT)?;
    shows(&server, &["-n", "demo", "gvs", "lost"], &condition("Ready", "reason"), "NoReadyEndpoints", LIMIT)?;
    server.kubectl(&["-n", "demo", "delete", "gvs", "node"]).run()?;
    within(LIMIT, || rights_are_used(&server, &["guenon-agent"]))
}

/// `guenon check` of this cluster.
fn checked(topology: &Topology, server: &ApiServer, args: &[&str]) -> Result<Said> {
    cmd(&topology.plan.guenon)
        .args(["check", "--namespace", NAMESPACE, "--kubeconfig"])
        .arg(server.kubeconfig(User::Admin))
        .args(args)
        .netns(&topology.netns(Host::Switch))
        .limit(Duration::from_secs(90))
        .try_read()
}

/// Nobody was refused, and no right was given to these in vain.
fn rights_are_used(server: &ApiServer, accounts: &[&str]) -> Result<()> {
    let log = server.audit_log()?;
    for account in ["guenon-agent", "guenon-controller"] {
        let user = format!("system:serviceaccount:{NAMESPACE}:{account}");
        let mut used = BTreeSet::new();
        for line in log.lines() {
            // The last line may not be whole.
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            if event["user"]["username"] != user.as_str() {
                continue;
            }
            let part = |name: &str| event["objectRef"][name].as_str().unwrap_or_default().to_owned();
            let resource = match part("subresource").as_str() {
                "" => part("resource"),
                subresource => format!("{}/{subresource}", part("resource")),
            };
            let verb = event["verb"].as_str().unwrap_or_default().to_owned();
            ensure(event["responseStatus"]["code"] != 403, || format!("{account} may not {verb} {resource}: {line}"))?;
            used.insert((resource, verb));
        }
        if !accounts.contains(&account) {
            continue;
        }
        for rules in [&["clusterrole", account][..], &["-n", NAMESPACE, "role", account]] {
            let rules: Value = serde_json::from_str(&field(server, rules, ".rules")?).context("rules")?;
            for rule in rules.as_array().into_iter().flatten() {
                let list = |name: &str| rule[name].as_array().into_iter().flatten().filter_map(Value::as_str);
                for resource in list("resources") {
                    let uses = |verb: &str| used.contains(&(resource.to_owned(), verb.to_owned()));
                    for verb in list("verbs") {
                        // Lists are streamed by watches where the server can; what is applied is patched, and made.
                        let in_vain = match verb {
                            "list" => !uses("list") && !uses("watch"),
                            "create" => !uses("create") && !uses("patch"),
                            // A series: an event that repeats.
                            "patch" if resource == "events" => false,
                            verb => !uses(verb),
                        };
                        ensure(!in_vain, || format!("{account} may {verb} {resource}, and never does: {used:?}"))?;
                    }
                }
            }
        }
    }
    Ok(())
}

pub(super) fn failover(topology: &mut Topology) -> Result<()> {
    let server = up(topology)?;
    let lease = ["-n", NAMESPACE, "lease", "guenon-controller"];
    shows(&server, &lease, ".spec.holderIdentity", "controller-a", LIMIT)?;
    shows(&server, &WEB, &condition("Ready", "status"), "True", LIMIT)?;
    let mut second = start_controller(topology, &server, "controller-b")?;
    std::thread::sleep(Duration::from_secs(3));
    shows(&server, &lease, ".spec.holderIdentity", "controller-a", LIMIT)?;

    // Without a word.
    let pid = server_side_pid(topology, "controller-a")?;
    let died = Instant::now();
    cmd("kill").args(["-9", &pid]).run()?;
    let fewer = "{\"spec\":{\"endpoints\":[{\"address\":\"172.17.2.2\"}]}}";
    server.kubectl(&["-n", "demo", "patch", "gvs", "web", "--type=merge", "-p", fewer]).run()?;
    shows(&server, &WEB, ".status.endpoints.summary", "1/1", LIMIT)?;
    let took = died.elapsed();
    crate::progress::note(format_args!(
        "the second controller wrote {:.1} s after the first had died",
        took.as_secs_f64()
    ));
    ensure(took < Duration::from_secs(20), || format!("a controller that died was replaced after {took:?}"))?;

    // With a word: the Lease is let go, and taken within one look.
    let _third = start_controller(topology, &server, "controller-c")?;
    std::thread::sleep(Duration::from_secs(3));
    cmd("kill").args(["-TERM", &second.id().to_string()]).run()?;
    second.wait().context("cannot wait for a controller")?;
    shows(&server, &lease, ".spec.holderIdentity", "controller-c", Duration::from_secs(6))
}

fn server_side_pid(topology: &Topology, identity: &str) -> Result<String> {
    let binary = topology.plan.guenon.display().to_string();
    let said = cmd("pgrep").args(["-f", &format!("^{binary} controller .*--identity {identity} ")]).read()?;
    Ok(said.trim().to_owned())
}

pub(super) fn agent_lost(topology: &mut Topology) -> Result<()> {
    let server = up(topology)?;
    shows(&server, &WEB, &condition("Ready", "status"), "True", LIMIT)?;
    let mut agent = topology.agent(Host::T33)?;
    agent.kill().and_then(|()| agent.wait()).context("cannot end an agent")?;
    let node = ["guenonnode", "t33"];
    // 40 s without a sign of life.
    shows(&server, &node, &condition("Ready", "reason"), "AgentLost", Duration::from_secs(70))?;
    shows(&server, &node, &condition("Ready", "status"), "Unknown", LIMIT)?;
    shows(&server, &WEB, ".status.directors.summary", "1/2", LIMIT)?;
    let said = checked(topology, &server, &["--timeout", "15", "-o", "json"])?;
    let found: Value = serde_json::from_str(&said.stdout).with_context(|| format!("guenon check says {said:?}"))?;
    let failed: Vec<&Value> =
        found["findings"].as_array().into_iter().flatten().filter(|one| one["result"] == "failed").collect();
    let named = matches!(failed[..], [one] if one["about"] == "node t33" && one["message"].to_string().contains("not been heard"));
    ensure(!said.status.success() && named, || format!("guenon check says\n{}{}", said.stdout, said.stderr))?;
    let message = field(&server, &WEB, &condition("Ready", "message"))?;
    ensure(message.contains("t33 has an agent that is not heard any more"), || format!("Ready says {message:?}"))?;
    topology.start_agent(Host::T33)?;
    topology.wait_ready(Host::T33)?;
    shows(&server, &node, &condition("Ready", "status"), "True", LIMIT)?;
    shows(&server, &WEB, ".status.directors.summary", "2/2", LIMIT)?;
    server.kubectl(&["-n", "demo", "delete", "gvs", "web"]).run()?;
    within(LIMIT, || rights_are_used(&server, &["guenon-controller"]))
}

pub(super) fn restarted_alone(topology: &mut Topology) -> Result<()> {
    let mut server = up(topology)?;
    let load = Load::start(topology);
    server.stop()?;
    for host in Host::NODES {
        let mut agent = topology.agent(host)?;
        agent.kill().and_then(|()| agent.wait()).context("cannot end an agent")?;
    }
    for host in Host::NODES {
        topology.start_agent(host)?;
    }
    for host in Host::NODES {
        topology.wait_ready(host).context("an agent that found everything in force is ready without API server")?;
        let found = problems(topology, host)?;
        ensure(found.contains_key("Source"), || format!("{} reports {found:?}, not Source", host.name()))?;
        let said = status(topology, host)?;
        ensure(said.contains("cannot ask the API server"), || format!("status of {}:\n{said}", host.name()))?;
    }
    load.finish().context("while agents were restarted without API server")?;
    traffic::everybody_answers(topology)?;
    server.restart(topology)?;
    no_problem_is_left_for_long(topology)?;
    shows(&server, &WEB, &condition("Ready", "status"), "True", LIMIT)
}

pub(super) fn directors_by_label(topology: &mut Topology) -> Result<()> {
    topology.plan.director_selector = "guenon-director=true";
    let server = up(topology)?;
    shows(&server, &WEB, &condition("Programmed", "reason"), "NoDirectors", LIMIT)?;
    server.kubectl(&["label", "node", "t22", "guenon-director=true"]).run()?;
    shows(&server, &WEB, ".status.directors.summary", "1/1", LIMIT)?;
    shows(&server, &["guenonnode", "t22"], ".status.summary.roles", "Director,Decap", LIMIT)?;
    shows(&server, &["guenonnode", "t33"], ".status.summary.roles", "Decap", LIMIT)?;
    traffic::everybody_answers(topology)?;
    server.kubectl(&["label", "node", "t22", "guenon-director-"]).run()?;
    shows(&server, &["guenonnode", "t22"], ".status.summary.roles", "Decap", LIMIT)?;
    shows(&server, &WEB, &condition("Programmed", "reason"), "NoDirectors", LIMIT)
}

pub(super) fn uninstall(topology: &mut Topology) -> Result<()> {
    let server = up(topology)?;
    shows(&server, &WEB, &condition("Ready", "status"), "True", LIMIT)?;
    let said = cmd(&topology.plan.guenon)
        .args(["uninstall", "--namespace", NAMESPACE, "--timeout", "60", "--kubeconfig"])
        .arg(server.kubeconfig(User::Admin))
        .netns(&topology.netns(Host::Switch))
        .read()?;
    for host in Host::NODES {
        ensure(said.contains(&format!("{}: as it was before", host.name())), || format!("uninstall says\n{said}"))?;
        let links = topology.at(host, "ip").args(["-d", "link", "show", "dev", "eth0"]).read()?;
        ensure(!links.contains("xdp"), || format!("{} still has the program:\n{links}", host.name()))?;
        let addresses = topology.at(host, "ip").args(["addr", "show", "dev", "lo"]).read()?;
        ensure(!addresses.contains(&VIP4.to_string()), || format!("{} still has the VIP:\n{addresses}", host.name()))?;
        let pins = topology.pins().join(host.name());
        let left = std::fs::read_dir(&pins).map(Iterator::count).unwrap_or_default();
        ensure(left == 0, || format!("{left} pins are left in {}", pins.display()))?;
        // It waits to be taken away, and does nothing.
        let ready =
            crate::topology::client::get(&topology.netns(host), crate::topology::layout::METRICS.parse()?, "/readyz")?;
        ensure(ready.text().contains("Detached"), || format!("/readyz of {} says {}", host.name(), ready.text()))?;
    }
    let left = server.kubectl(&["get", "guenonnodes", "-o", "name"]).read()?;
    ensure(left.is_empty(), || format!("GuenonNodes are left: {left}"))?;
    for host in Host::NODES {
        // As the DaemonSet that goes: there is no ledger left to balance.
        let mut agent = topology.agent(host)?;
        agent.kill().and_then(|()| agent.wait()).context("cannot end an agent")?;
    }
    Ok(())
}
