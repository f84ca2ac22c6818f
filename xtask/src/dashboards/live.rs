//! Every query of every committed panel, asked of a real Prometheus that scrapes live agents under traffic, some of it dropped.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::COMMITTED;
use super::queries::{Query, metrics, queries};
use crate::test::{Count, count};
use crate::topology::layout::{ECHO, HTTP, Host, VIP4, addresses};
use crate::topology::{FAMILIES, Plan, Topology, client, netns};
use crate::{build, demo, interrupt, paths, progress, prometheus, setup};
use setup::packages;

const PROMETHEUS: &str = "127.0.0.1:9090";
/// Where the agents' metrics are, for somebody outside.
const PORT: u16 = 9478;
/// How long traffic goes on: the shortest window of a query, and some more.
const TRAFFIC: Duration = Duration::from_secs(25);
/// A port of the VIP that nobody answers on: its packets are dropped as no_backend.
const DEAD: u16 = 81;
const DEAD_SERVICE: &str = "apiVersion: guenon.dev/v1alpha1\nkind: VirtualService\nmetadata: {namespace: demo, name: dead}\n\
    spec:\n  addresses: [203.0.113.10]\n  ports: [{port: 81, protocol: UDP}]\n  endpoints: [{address: 172.17.3.3, weight: 0}]\n";

pub(super) fn test() -> Result<Count> {
    setup::programs(&[packages::DEMO])?;
    let guenon = build::guenon()?;
    let mut plan = Plan::new("dashboards", &guenon, &paths::root().join("examples/demo"));
    (plan.listen, plan.metrics_detail) = ("0.0.0.0:9478", "endpoint");
    let mut topology = Topology::build(plan)?;
    let result = prepare(&mut topology).and_then(|()| tests(&topology));
    let removed = topology.remove();
    let total = result?;
    removed.map(|()| total)
}

fn prepare(topology: &mut Topology) -> Result<()> {
    std::fs::write(topology.manifests().join("dead.yaml"), DEAD_SERVICE).context("cannot write a manifest")?;
    demo::start_agents(topology)?;
    progress::step("starting Prometheus on the switch");
    let targets: Vec<String> = Host::NODES
        .iter()
        .filter_map(|&host| addresses(host).find(IpAddr::is_ipv4))
        .map(|address| SocketAddr::new(address, PORT).to_string())
        .collect();
    let rules = paths::root().join("deploy/helm/guenon/files/alerts.yaml");
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\n\
         scrape_configs:\n- job_name: guenon\n  static_configs: [{{targets: [\"{}\"]}}]\n",
        rules.display(),
        targets.join("\", \"")
    );
    let dir = topology.dir();
    std::fs::write(dir.join("prometheus.yaml"), config).context("cannot write Prometheus' configuration")?;
    let prometheus = prometheus::program("prometheus")?
        .arg(format!("--config.file={}", dir.join("prometheus.yaml").display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()))
        .arg(format!("--web.listen-address={PROMETHEUS}"))
        .netns(&topology.netns(Host::Switch));
    topology.start(prometheus, "prometheus")?;
    client::patiently(|| {
        let ready = client::get(&topology.netns(Host::Switch), PROMETHEUS.parse()?, "/-/ready")?;
        ensure!(ready.status == 200, "Prometheus is not ready: {}", ready.text());
        Ok(())
    })?;
    progress::note(format_args!("traffic for {} s", TRAFFIC.as_secs()));
    traffic(topology)
}

/// Questions that are answered, packets that are dropped, and changes of the configuration.
fn traffic(topology: &Topology) -> Result<()> {
    let netns = topology.netns(Host::Client);
    let manifest = topology.manifests().join("web.yaml");
    let text = std::fs::read_to_string(&manifest).context("the demo's manifest")?;
    let begin = Instant::now();
    for round in 1.. {
        for (_, vip) in FAMILIES {
            client::get(&netns, SocketAddr::new(vip, HTTP), "/")?;
            client::echo(&netns, SocketAddr::new(vip, ECHO), b"hello")?;
        }
        let tunnels =
            Host::NODES.iter().flat_map(|&host| addresses(host)).map(|address| SocketAddr::new(address, 6080));
        // Nobody's tunnel packets, and somebody for whom nobody is there.
        for to in tunnels.chain([SocketAddr::new(VIP4, DEAD)]) {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            netns::inside(&netns, || Ok(UdpSocket::bind(any)?.send_to(b"no tunnel at all", to)?))?;
        }
        if round % 20 == 0 {
            let weight = format!("{{address: 172.17.3.3, weight: {}}}", round / 20);
            let changed = text.replace("{address: 172.17.3.3}", &weight);
            ensure!(changed != text, "the demo's manifest has no endpoint 172.17.3.3");
            let scratch = manifest.with_extension("new");
            std::fs::write(&scratch, changed).and_then(|()| std::fs::rename(&scratch, &manifest))?;
        }
        interrupt::check()?;
        if begin.elapsed() > TRAFFIC {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn tests(topology: &Topology) -> Result<Count> {
    let directory = paths::root().join(COMMITTED[0]);
    let mut files = std::fs::read_dir(&directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>())
        .with_context(|| format!("cannot read {}", directory.display()))?;
    files.sort();
    let mut total = Count::default();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let board: Value = serde_json::from_str(&text).with_context(|| format!("{name} is no JSON"))?;
        total = total + count(&format!("every query of {name} returns data"), || board_has_data(topology, &board));
    }
    ensure!(total != Count::default(), "no dashboard in {}", directory.display());
    Ok(total + count("nothing is wrong with the alerts' rules, and none fires for long", || rules_work(topology)))
}

fn board_has_data(topology: &Topology, board: &Value) -> Result<()> {
    let queries = queries(board, |metric, label| label_values(topology, metric, label))?;
    ensure!(!queries.is_empty(), "no query");
    let known = ask(topology, "/api/v1/label/__name__/values")?;
    let known: BTreeSet<&str> = known.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut faults = Vec::new();
    for query in &queries {
        // "or vector(0)" answers for a metric that there is none of.
        let mut asked = query.expressions.iter().flat_map(|expression| metrics(expression));
        if let Some(unknown) = asked.find(|metric| !known.contains(metric)) {
            faults.push(format!("{}: nobody exports {unknown}", query.panel));
            continue;
        }
        // A variable that takes one value at a time: one of them must do.
        let mut last = Ok(());
        for expression in &query.expressions {
            last = has_data(topology, query, expression);
            if last.is_ok() {
                break;
            }
        }
        if let Err(error) = last {
            faults.push(format!("{}: {error:#}", query.panel));
        }
    }
    progress::note(format_args!("{} queries", queries.len()));
    ensure!(faults.is_empty(), "{} of {} queries:\n{}", faults.len(), queries.len(), faults.join("\n"));
    Ok(())
}

fn has_data(topology: &Topology, query: &Query, expression: &str) -> Result<()> {
    let encoded = encode(expression);
    let path = if query.instant {
        format!("/api/v1/query?query={encoded}")
    } else {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).context("the clock")?.as_secs();
        format!("/api/v1/query_range?query={encoded}&start={}&end={now}&step=1", now - 20)
    };
    let answer = ask(topology, &path).with_context(|| expression.to_owned())?;
    let series = answer["result"].as_array().context("no result")?;
    let is_number = |sample: &Value| sample[1].as_str().is_some_and(|value| value != "NaN");
    let samples = |series: &Value| {
        let values = series["values"].as_array().cloned().unwrap_or_default();
        values.into_iter().chain(series.get("value").cloned()).any(|sample| is_number(&sample))
    };
    ensure!(series.iter().any(samples), "no data for {expression}");
    for label in &query.labels {
        let named = series.iter().all(|series| series["metric"][label].is_string());
        ensure!(named, "the label {label} is not in what {expression} gives");
    }
    Ok(())
}

fn label_values(topology: &Topology, metric: &str, label: &str) -> Result<Vec<String>> {
    let answer = ask(topology, &format!("/api/v1/label/{label}/values?match[]={metric}"))?;
    let values = answer.as_array().context("no list of values")?;
    Ok(values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect())
}

/// What traffic and two well nodes are nothing to wake anybody for.
fn rules_work(topology: &Topology) -> Result<()> {
    let answer = ask(topology, "/api/v1/rules")?;
    let groups = answer["groups"].as_array().context("no groups")?;
    let rules: Vec<&Value> = groups.iter().filter_map(|group| group["rules"].as_array()).flatten().collect();
    ensure!(!rules.is_empty(), "Prometheus has read no rule");
    for rule in rules {
        let name = rule["name"].as_str().unwrap_or_default();
        ensure!(rule["health"] == "ok", "{name} is {}: {}", rule["health"], rule["lastError"]);
        ensure!(rule["state"] != "firing", "{name} fires: {}", rule["alerts"]);
    }
    Ok(())
}

fn ask(topology: &Topology, path: &str) -> Result<Value> {
    let reply = client::get(&topology.netns(Host::Switch), PROMETHEUS.parse()?, path)?;
    let mut answer: Value = serde_json::from_slice(&reply.body)
        .with_context(|| format!("Prometheus says no JSON ({}): {}", reply.status, reply.text()))?;
    if answer["status"] != "success" {
        bail!("Prometheus says {}", answer["error"]);
    }
    Ok(answer["data"].take())
}

/// For a URL.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
