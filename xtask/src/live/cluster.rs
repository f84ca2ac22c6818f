//! Agents that follow a real API server.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::changes::{eventually, no_problem_is_left, problems, status};
use super::controller::within;
use super::load::Load;
use super::{ensure, traffic};
use crate::apiserver::{ApiServer, HASH_KEY, User};
use crate::chart::NAMESPACE;
use crate::demo;
use crate::shell::cmd;
use crate::topology::layout::{HTTP, Host, VIP4, VIP6};
use crate::topology::{Topology, client};

/// How often kube reads the files of credentials again.
const FILES_READ: Duration = Duration::from_secs(60);
/// The longest pause of an agent before it asks again: kube's 30 s, which its jitter doubles at most.
const PAUSE: Duration = Duration::from_secs(2 * 30);
/// For the rest, on a busy machine.
const MARGIN: Duration = Duration::from_secs(60);
/// How long an agent may take to see that the API server answers otherwise than before.
const ASKED_AGAIN: Duration = PAUSE.saturating_add(MARGIN);
/// The same where its credentials changed.
const CREDENTIALS_READ: Duration = FILES_READ.saturating_add(ASKED_AGAIN);

/// An API server that holds the nodes and the demo's VirtualServices, agents that follow it, and a controller.
pub(super) fn up(topology: &mut Topology) -> Result<ApiServer> {
    let server = ApiServer::start(topology)?;
    for host in Host::NODES {
        server.tell_addresses(host)?;
        topology.plan.kubeconfigs.insert(host, server.kubeconfig(User::Agent(host)));
    }
    let manifests = topology.manifests().join("web.yaml");
    server.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: demo}\n")?;
    server.apply(&std::fs::read_to_string(&manifests).context("the demo's manifests")?)?;
    start_controller(topology, &server, "controller-a")?;
    demo::start_agents(topology)?;
    Ok(server)
}

/// Starts a replica of the controller on the switch.
pub(super) fn start_controller(topology: &mut Topology, server: &ApiServer, identity: &str) -> Result<Child> {
    let command = cmd(&topology.plan.guenon)
        .args(["controller", "--create-hash-key", "--hash-key-secret", HASH_KEY, "--namespace", NAMESPACE])
        .args(["--director-selector", topology.plan.director_selector])
        .args(["--identity", identity, "--listen", "127.0.0.1:0", "--kubeconfig"])
        .arg(server.kubeconfig(User::Controller))
        .netns(&topology.netns(Host::Switch));
    topology.start(command, identity)
}

/// Waits until these hosts, and no others, answer on a VIP.
fn answers(topology: &Topology, vip: IpAddr, hosts: &[Host]) -> Result<()> {
    let netns = topology.netns(Host::Client);
    let wanted: BTreeSet<String> = hosts.iter().map(|host| host.name().to_owned()).collect();
    eventually(|| {
        let names =
            traffic::heard(|| Ok(client::get(&netns, SocketAddr::new(vip, HTTP), "/")?.text().trim().to_owned()))?;
        ensure(names == wanted, || format!("{names:?} answered, not {wanted:?}"))
    })
}

/// What a server answers; a test of crates/controller wants the same of files.
const CORPUS: &str = include_str!("../../../crates/crd/corpus.yaml");

/// One object of the corpus.
#[derive(serde::Deserialize)]
struct Case {
    it: String,
    #[serde(default)]
    metadata: Option<Value>,
    #[serde(default)]
    spec: Option<Value>,
    #[serde(default)]
    status: Option<Value>,
    #[serde(default)]
    says: Vec<String>,
}

impl Case {
    fn object(&self) -> String {
        let Self { it: _, metadata, spec, status, says: _ } = self;
        let mut object = json!({"apiVersion": "guenon.dev/v1alpha1", "kind": "VirtualService"});
        object["metadata"] = metadata.clone().unwrap_or_else(|| json!({"namespace": "default", "name": "web"}));
        for (name, value) in [("spec", spec), ("status", status)] {
            if let Some(value) = value {
                object[name] = value.clone();
            }
        }
        object.to_string()
    }

    /// Whether the server says what the corpus says that it does.
    fn judged(&self, server: &ApiServer) -> Result<()> {
        let Self { it, says, .. } = self;
        let said = server.dry_run(&self.object())?;
        let found = answers_in(&said.stderr);
        let accepted = said.status.success();
        ensure(accepted == says.is_empty(), || format!("{it}: accepted: {accepted}. {}", said.stderr))?;
        let told = says.iter().all(|wanted| found.iter().any(|found| found.contains(wanted.as_str())));
        ensure(accepted || (told && found.len() == says.len()), || {
            format!("{it}: the server says {found:#?}, crates/crd/corpus.yaml {says:#?}")
        })
    }
}

/// The lines of a refusal, without those that only accompany others.
fn answers_in(said: &str) -> Vec<String> {
    if let Some((_, unknown)) = said.split_once("strict decoding error: ") {
        return unknown.trim().split(", ").map(str::to_owned).collect();
    }
    let said = said.split_once(" is invalid: ").map_or(said, |(_, said)| said);
    let accompanies = |line: &str| {
        line.is_empty()
            || line.contains("some validation rules were not checked")
            || line.contains("Checked value must be")
    };
    said.lines().map(|line| line.trim_start_matches("* ").to_owned()).filter(|line| !accompanies(line)).collect()
}

pub(super) fn bad_objects_are_refused(topology: &mut Topology) -> Result<()> {
    let server = ApiServer::start(topology)?;
    let cases: Vec<Case> = serde_yaml_ng::from_str(CORPUS).context("cannot read crates/crd/corpus.yaml")?;
    for case in &cases {
        case.judged(&server)?;
    }
    server.apply(&cases[0].object())?;
    let columns = server.kubectl(&["get", "gvs"]).read()?;
    let header: Vec<&str> = columns.lines().next().unwrap_or_default().split_whitespace().collect();
    let wanted = ["NAME", "VIPS", "PORTS", "ENDPOINTS", "DIRECTORS", "READY", "ACCEPTED", "PROGRAMMED", "AGE"];
    ensure(header == wanted, || format!("kubectl get gvs says {columns}"))?;
    let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}";
    let reason = server.kubectl(&["get", "gvs", "web", "-o", ready]).read()?;
    ensure(reason == "Pending", || format!("a new object's Ready says {reason:?}"))?;
    let explained = server.kubectl(&["explain", "gvs.spec.sessionAffinity"]).read()?;
    ensure(explained.contains("client"), || format!("kubectl explain says {explained}"))
}

pub(super) fn agents_follow(topology: &mut Topology) -> Result<()> {
    let server = up(topology)?;
    traffic::everybody_answers(topology)?;

    let fewer = "{\"spec\":{\"endpoints\":[{\"address\":\"172.17.2.2\"}]}}";
    server.kubectl(&["-n", "demo", "patch", "gvs", "web", "--type=merge", "-p", fewer]).run()?;
    answers(topology, VIP4, &[Host::T22])?;

    // The same VIP in front of a Service without a selector.
    server.kubectl(&["-n", "demo", "delete", "gvs", "web"]).run()?;
    let slice = |t22: bool, t33: bool| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{namespace: demo, name: backend-1, labels: {{kubernetes.io/service-name: backend}}}}\n\
             addressType: IPv4\nports: [{{name: http, port: {HTTP}}}]\nendpoints:\n\
             - {{addresses: [172.17.2.2], nodeName: t22, conditions: {{ready: {t22}}}}}\n\
             - {{addresses: [172.17.3.3], nodeName: t33, conditions: {{ready: {t33}}}}}\n"
        )
    };
    server.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{namespace: demo, name: backend}}\n\
         spec: {{ports: [{{name: http, port: {HTTP}}}]}}\n---\n{}---\n\
         apiVersion: guenon.dev/v1alpha1\nkind: VirtualService\nmetadata: {{namespace: demo, name: web}}\n\
         spec: {{addresses: [\"{VIP4}\"], ports: [{{port: {HTTP}}}], backendRefs: [{{name: backend}}]}}\n",
        slice(true, true)
    ))?;
    answers(topology, VIP4, &[Host::T22, Host::T33])?;
    server.apply(&slice(false, true))?;
    answers(topology, VIP4, &[Host::T33])?;
    server.apply(&slice(true, true))?;
    answers(topology, VIP4, &[Host::T22, Host::T33])?;

    // Endpoints by hand, which nobody mirrors here; the slice goes before what names it.
    server.kubectl(&["-n", "demo", "delete", "endpointslice", "backend-1"]).run()?;
    server.apply(&format!(
        "apiVersion: v1\nkind: Endpoints\nmetadata: {{namespace: demo, name: backend}}\nsubsets:\n\
         - ports: [{{name: http, port: {HTTP}}}]\n  addresses: [{{ip: 172.17.3.3, nodeName: t33}}]\n"
    ))?;
    answers(topology, VIP4, &[Host::T33])?;
    traffic::answers(topology, VIP6)
}

pub(super) fn lists_in_pages(topology: &mut Topology) -> Result<()> {
    agents_follow(topology)?;
    for host in Host::NODES {
        let log = topology.agent_log(host)?;
        let says = "the server streams no lists; reading pages";
        ensure(log.contains(says), || format!("the agent of {} does not say {says:?}:\n{log}", host.name()))?;
    }
    Ok(())
}

pub(super) fn server_away(topology: &mut Topology) -> Result<()> {
    let mut server = up(topology)?;
    let load = Load::start(topology);
    server.stop()?;
    for host in Host::NODES {
        eventually(|| {
            let found = problems(topology, host)?;
            ensure(found.contains_key("Source"), || format!("{} reports {found:?}, not Source", host.name()))
        })?;
        let said = status(topology, host)?;
        ensure(said.contains("cannot ask the API server"), || format!("status of {}:\n{said}", host.name()))?;
    }
    server.restart(topology)?;
    load.finish().context("while the API server was away")?;
    // What changes before agents ask again is not missed.
    let fewer = "{\"spec\":{\"endpoints\":[{\"address\":\"2001:db8:2::2\"}]}}";
    server.kubectl(&["-n", "demo", "patch", "gvs", "web-v6", "--type=merge", "-p", fewer]).run()?;
    no_problem_is_left_for_long(topology)?;
    answers(topology, VIP6, &[Host::T22])
}

/// Agents wait longer and longer before they ask again: a minute at most.
pub(super) fn no_problem_is_left_for_long(topology: &Topology) -> Result<()> {
    within(ASKED_AGAIN, || no_problem_is_left(topology))
}

pub(super) fn rights_taken_away(topology: &mut Topology) -> Result<()> {
    let mut server = up(topology)?;
    server.forbid()?;
    // A watch that is open stays open; the next one is refused.
    server.stop()?;
    server.restart(topology)?;
    status_says(topology, "allow the verbs list and watch of nodes", ASKED_AGAIN)?;
    traffic::everybody_answers(topology)?;
    server.allow()?;
    no_problem_is_left_for_long(topology)
}

/// Waits for this sentence in `guenon status` of every node.
fn status_says(topology: &Topology, sentence: &str, limit: Duration) -> Result<()> {
    for host in Host::NODES {
        within(limit, || {
            let said = status(topology, host)?;
            ensure(said.contains(sentence), || format!("status of {} does not say {sentence:?}:\n{said}", host.name()))
        })?;
    }
    Ok(())
}

pub(super) fn definition_deleted(topology: &mut Topology) -> Result<()> {
    let server = up(topology)?;
    let load = Load::start(topology);
    server.kubectl(&["delete", "crd", "virtualservices.guenon.dev", "--timeout=60s"]).run()?;
    status_says(topology, "kubectl apply -f deploy/crds", ASKED_AGAIN)?;
    traffic::everybody_answers(topology)?;
    server.define()?;
    let gone = "2 VirtualServices (VirtualService demo/web, VirtualService demo/web-v6) are gone since";
    status_says(topology, gone, ASKED_AGAIN)?;
    let manifests = std::fs::read_to_string(topology.manifests().join("web.yaml")).context("the manifests")?;
    server.apply(&manifests)?;
    no_problem_is_left_for_long(topology)?;
    load.finish().context("while VirtualServices had no definition")?;
    // From now on a deletion is one.
    server.kubectl(&["-n", "demo", "delete", "gvs", "web"]).run()?;
    eventually(|| {
        let said = topology.guenon(Host::T22, "status").arg("services").read()?;
        ensure(!said.contains("demo/web "), || format!("demo/web is still in force:\n{said}"))
    })
}

pub(super) fn credentials_change(topology: &mut Topology) -> Result<()> {
    let mut server = up(topology)?;
    let load = Load::start(topology);
    let tokens: Vec<String> = Host::NODES
        .iter()
        .map(|&host| std::fs::read_to_string(server.token_file(User::Agent(host))).context("a token"))
        .collect::<Result<_>>()?;
    // Another certificate, by an authority that nobody has heard of: files are read again from time to time.
    server.stop()?;
    server.forget_certificate()?;
    for host in Host::NODES {
        server.write_token(User::Agent(host), "expired")?;
    }
    server.restart(topology)?;
    status_says(topology, "the token is not accepted", CREDENTIALS_READ)?;
    for (&host, token) in Host::NODES.iter().zip(&tokens) {
        server.write_token(User::Agent(host), token)?;
    }
    within(CREDENTIALS_READ, || no_problem_is_left(topology))?;
    load.finish().context("while credentials changed")?;
    let fewer = "{\"spec\":{\"endpoints\":[{\"address\":\"172.17.2.2\"}]}}";
    server.kubectl(&["-n", "demo", "patch", "gvs", "web", "--type=merge", "-p", fewer]).run()?;
    answers(topology, VIP4, &[Host::T22])
}
