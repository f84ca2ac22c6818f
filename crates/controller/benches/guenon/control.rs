//! What a change costs, with 10,000 services of ten endpoints: the real agent, started in a network namespace on manifests that it has never
//! seen, then told of changes of one endpoint. And how long a table takes to build.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use aya::Pod;
use aya::maps::{Array, Map, MapData};
use guenon_controller::table::{Builder, Candidate, Group};
use guenon_crd::VirtualService;
use guenon_ebpf::abi::{MAX_ROWS, map};
use guenon_ebpf::hash::{DEFAULT_KEY, Schedule};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::median;
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
    changes(report, &agent, &manifests, if quick { 50 } else { 500 })?;
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
fn changes(report: &mut Report, agent: &Agent, manifests: &Path, rounds: u32) -> anyhow::Result<()> {
    let descriptors: Array<MapData, u64> = pinned(map::SERVICES)?;
    let id = service_id("bench/s7")?;
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

fn pinned<V: Pod>(name: &str) -> anyhow::Result<Array<MapData, V>> {
    let path = Path::new(PINS).join("maps").join(name);
    let data = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Array::try_from(Map::Array(data))?)
}

/// The id of a service, by its name in the map.
fn service_id(wanted: &str) -> anyhow::Result<u32> {
    let names: Array<MapData, [u8; 320]> = pinned(map::SERVICE_NAMES)?;
    for id in 0..names.len() {
        let name = names.get(&id, 0)?;
        let len = usize::from(u16::from_le_bytes([name[0], name[1]]));
        if &name[2..2 + len] == wanted.as_bytes() {
            return Ok(id);
        }
    }
    bail!("no service {wanted} in {}", map::SERVICE_NAMES)
}

/// A running `guenon agent`; ended, and its data path removed, when dropped.
struct Agent {
    process: Child,
    state: PathBuf,
    started: Instant,
}

impl Agent {
    fn start(manifests: &Path, state: &Path) -> anyhow::Result<Self> {
        let log = fs::File::create(state.with_extension("log"))?;
        let started = Instant::now();
        let process = Command::new(env!("CARGO_BIN_EXE_guenon"))
            .args([
                "agent",
                "--interface",
                FAR,
                "--node",
                "bench",
                "--listen",
                METRICS,
                "--pin-dir",
                PINS,
                "--no-node-setup",
            ])
            .arg("--manifests")
            .arg(manifests)
            .arg("--state-dir")
            .arg(state)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start guenon")?;
        Ok(Self { process, state: state.to_owned(), started })
    }

    /// Time from its start until it says that it is ready.
    fn wait_ready(&self) -> anyhow::Result<Duration> {
        loop {
            if get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Ok(self.started.elapsed());
            }
            if self.started.elapsed() > Duration::from_secs(120) {
                let log = fs::read_to_string(self.state.with_extension("log")).unwrap_or_default();
                bail!("the agent is not ready after 120 s: {:?}; its log:\n{log}", get("/readyz"));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = get("/metrics")?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("no metric {name}"))?.parse()?)
    }

    /// Bytes: peak resident memory without BPF maps, and the maps' resident pages.
    fn memory(&self) -> anyhow::Result<(f64, f64)> {
        let id = self.process.id();
        let status = fs::read_to_string(format!("/proc/{id}/status"))?;
        let peak = kilobytes(&status, "VmHWM:").context("no VmHWM")?;
        let (mut maps, mut in_map) = (0.0, false);
        for line in fs::read_to_string(format!("/proc/{id}/smaps"))?.lines() {
            // The first line of a mapping begins with its address range, in lower-case hexadecimal.
            if line.split(' ').next().is_some_and(|word| word.contains('-') && !word.ends_with(':')) {
                in_map = line.contains("bpf-map");
            } else if in_map {
                maps += kilobytes(line, "Rss:").unwrap_or(0.0);
            }
        }
        Ok((peak - maps, maps))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGTERM);
        let _ = self.process.wait();
        let detached = Command::new(env!("CARGO_BIN_EXE_guenon"))
            .args(["detach", "--pin-dir", PINS, "--state-dir"])
            .arg(&self.state)
            .stdout(Stdio::null())
            .status();
        if !detached.is_ok_and(|status| status.success()) {
            eprintln!("`guenon detach --pin-dir {PINS}` failed: pins are left behind");
        }
    }
}

fn kilobytes(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
}

/// The answer of the agent to a GET, with its head.
fn get(path: &str) -> anyhow::Result<String> {
    let address: SocketAddr = METRICS.parse()?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {METRICS}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
