//! What a change costs, with 10,000 services of ten endpoints: the real agent, started in a network namespace on manifests that it has never
//! seen, then told of changes of one endpoint. And how long a table takes to build.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use aya::maps::{Array, MapData};
use guenon_controller::table::{Builder, Candidate, Group};
use guenon_crd::VirtualService;
use guenon_ebpf::abi::{MAX_ROWS, map};
use guenon_ebpf::hash::{DEFAULT_KEY, Schedule};

use crate::harness::median;
use crate::process::{Guenon, detach, pinned, service_id};
use crate::report::{Figure, Report};
use crate::wires::{FAR, NODE, Wires, enter, ip};

const SERVICES: u32 = 10_000;
const ENDPOINTS: u32 = 10;
const METRICS: &str = "127.0.0.1:9478";
/// How often the map is looked at for a change.
const LOOK: Duration = Duration::from_micros(50);
const PINS: &str = "/sys/fs/bpf/guenon-bench";

pub(crate) fn measure(report: &mut Report, quick: bool) -> anyhow::Result<()> {
    eprintln!("control plane:");
    tables(report);
    let _wires = Wires::lay()?;
    ip(&["-n", NODE, "address", "add", "172.17.2.2/16", "dev", FAR])?;
    ip(&["-n", NODE, "route", "add", "default", "via", "172.17.2.1"])?;
    ip(&["-n", NODE, "neighbour", "add", "172.17.2.1", "lladdr", "02:00:00:00:00:01", "dev", FAR])?;
    agent(report, quick)
}

/// How long forwarding tables take.
fn tables(report: &mut Report) {
    let mut builder = Builder::new(&Schedule::new(DEFAULT_KEY));
    for (name, endpoints, rows, rounds) in [
        ("table, 1,024 rows x 10 endpoints", ENDPOINTS, None, 200),
        ("table, 65,536 rows x 100 endpoints", 100, Some(MAX_ROWS), 20),
    ] {
        let members = (0..endpoints).map(|i| Candidate { address: endpoint(0, i), weight: 1 }).collect();
        let groups = [Group { name: String::new(), weight: 1, members }];
        let times = (0..rounds).map(|_| {
            let start = Instant::now();
            let table = match rows {
                Some(rows) => builder.build_rows(&groups, rows),
                None => builder.build(&groups),
            };
            std::hint::black_box(table);
            start.elapsed().as_secs_f64() * 1e6
        });
        let value = median(times.collect());
        report.add(Figure { subject: "control", name: name.to_owned(), value, unit: "us", floor: None, aim: None });
    }
}

/// Leaves the thread in the node's namespace.
fn agent(report: &mut Report, quick: bool) -> anyhow::Result<()> {
    enter(NODE)?;
    let directory = tempfile::tempdir()?;
    let manifests = directory.path().join("manifests");
    fs::create_dir(&manifests)?;
    for number in 0..SERVICES {
        fs::write(file(&manifests, number), manifest(number, 0))?;
    }
    let floor = parse(&manifests)?;

    let agent = Agent::start(&manifests, &directory.path().join("state"))?;
    let Agent { guenon: agent, .. } = &agent;
    let cold = agent.wait_ready()?;
    report.add(Figure {
        subject: "control",
        name: format!(
            "cold start, {SERVICES} services x {ENDPOINTS} endpoints, exec to in force (floor: parsing alone)"
        ),
        value: cold.as_secs_f64() * 1e3,
        unit: "ms",
        floor: Some(floor.as_secs_f64() * 1e3),
        aim: Some(("<= 2 x floor".to_owned(), cold <= floor * 2)),
    });
    let own = agent.metric("guenon_reconcile_duration_seconds_sum")?;
    report.add(Figure {
        subject: "control",
        name: "cold start, own work: index, resolve, plan, apply".to_owned(),
        value: own * 1e3,
        unit: "ms",
        floor: None,
        aim: Some(("< 1,000 ms".to_owned(), own < 1.0)),
    });
    changes(report, agent, &manifests, if quick { 50 } else { 500 })?;
    let (resident, maps) = agent.memory()?;
    report.add(Figure {
        subject: "control",
        name: "agent's peak memory, maps apart".to_owned(),
        value: resident / 1e6,
        unit: "MB",
        floor: None,
        aim: Some(("<= 200 MB".to_owned(), resident <= 200e6)),
    });
    report.add(Figure {
        subject: "control",
        name: "maps that the agent has touched".to_owned(),
        value: maps / 1e6,
        unit: "MB",
        floor: None,
        aim: None,
    });
    Ok(())
}

/// From the rename that puts a changed file there to the descriptor in the map.
fn changes(report: &mut Report, agent: &Guenon, manifests: &Path, rounds: u32) -> anyhow::Result<()> {
    let descriptors: Array<MapData, u64> = pinned(Path::new(PINS), map::SERVICES)?;
    let id = service_id(Path::new(PINS), "bench/s7")?;
    let staged = manifests.join(".staged");
    let mut times = Vec::new();
    for round in 1..=rounds {
        fs::write(&staged, manifest(7, round))?;
        let before = descriptors.get(&id, 0)?;
        let start = Instant::now();
        fs::rename(&staged, file(manifests, 7))?;
        while descriptors.get(&id, 0)? == before {
            ensure!(start.elapsed() < Duration::from_secs(10), "change {round} did not come into force within 10 s");
            // The agent wants the cores too.
            thread::sleep(LOOK);
        }
        times.push(start.elapsed().as_secs_f64() * 1e3);
        // Grace periods of one change are not to be counted to the next.
        thread::sleep(Duration::from_millis(20));
    }
    ensure!(agent.metric("guenon_revision")? >= f64::from(rounds), "the agent counted fewer revisions than changes");
    times.sort_by(f64::total_cmp);
    let p99 = times[(times.len() * 99).div_ceil(100) - 1];
    for (name, value, aim) in [
        ("one endpoint of one service changed, file to map, median", median(times.clone()), None),
        ("one endpoint of one service changed, file to map, p99", p99, Some(("<= 10 ms".to_owned(), p99 <= 10.0))),
    ] {
        report.add(Figure { subject: "control", name: name.to_owned(), value, unit: "ms", floor: None, aim });
    }
    Ok(())
}

/// Time to merely read and parse all manifests, on as many threads as the agent has cores.
fn parse(manifests: &Path) -> anyhow::Result<Duration> {
    let paths: Vec<PathBuf> = fs::read_dir(manifests)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    let threads = thread::available_parallelism()?.get();
    let start = Instant::now();
    let parsed = thread::scope(|scope| -> anyhow::Result<usize> {
        let parts = paths.chunks(paths.len().div_ceil(threads)).map(|part| {
            scope.spawn(move || -> anyhow::Result<usize> {
                for path in part {
                    let object: VirtualService = serde_yaml_ng::from_str(&fs::read_to_string(path)?)?;
                    std::hint::black_box(object);
                }
                Ok(part.len())
            })
        });
        let parts: Vec<_> = parts.collect();
        parts.into_iter().map(|part| part.join().map_err(|_| anyhow!("a parser panicked"))?).sum()
    })?;
    ensure!(parsed == SERVICES as usize, "parsed {parsed} of {SERVICES} manifests");
    Ok(start.elapsed())
}

fn file(manifests: &Path, number: u32) -> PathBuf {
    manifests.join(format!("s{number}.yaml"))
}

/// A service of ten endpoints; the last one's address tells the round.
fn manifest(number: u32, round: u32) -> String {
    use std::fmt::Write as _;
    let vip = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number);
    let mut text = format!(
        "apiVersion: guenon.dev/v1alpha1\nkind: VirtualService\nmetadata: {{namespace: bench, name: s{number}}}\nspec:\n  \
         addresses: [{vip}]\n  ports:\n    - {{name: http, protocol: TCP, port: 80}}\n  endpoints:\n"
    );
    for i in 0..ENDPOINTS - 1 {
        let _ = writeln!(text, "    - {{address: {}, weight: 1}}", endpoint(number, i));
    }
    let _ = writeln!(text, "    - {{address: {}, weight: 1}}", endpoint(SERVICES + round, 0));
    text
}

fn endpoint(service: u32, number: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 18, 0, 0)) + service * ENDPOINTS + number).into()
}

/// A running agent; what it pinned is removed when it is dropped.
struct Agent {
    guenon: Guenon,
    _pins: Pins,
}

/// Removed when dropped.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        detach(Path::new(PINS), &self.0, None);
    }
}

impl Agent {
    fn start(manifests: &Path, state: &Path) -> anyhow::Result<Self> {
        let (manifests, state) = (manifests.to_string_lossy(), state.to_string_lossy());
        let args = [
            "agent",
            "--interface",
            FAR,
            "--node",
            "bench",
            "--pin-dir",
            PINS,
            "--no-node-setup",
            "--manifests",
            &manifests,
            "--state-dir",
            &state,
        ];
        let log = PathBuf::from(format!("{state}.log"));
        let guenon = Guenon::start(&args, None, METRICS.parse()?, log)?;
        Ok(Self { guenon, _pins: Pins(PathBuf::from(state.as_ref())) })
    }
}
