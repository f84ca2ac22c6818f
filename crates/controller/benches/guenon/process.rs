//! A `guenon` that is measured: how it is started, what it says of itself, and what it takes.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use aya::Pod;
use aya::maps::{Array, Map, MapData};
use guenon_ebpf::abi::map;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wires::enter;

/// How long it may take until it is ready.
const READY_LIMIT: Duration = Duration::from_secs(300);

/// A running `guenon`; ended when dropped. What it pinned stays.
pub(crate) struct Guenon {
    process: Child,
    /// Where it serves its metrics.
    address: SocketAddr,
    log: PathBuf,
    started: Instant,
}

impl Guenon {
    /// Starts it in a network namespace, or in the caller's, with its log in this file.
    pub(crate) fn start(args: &[&str], netns: Option<&str>, address: SocketAddr, log: PathBuf) -> anyhow::Result<Self> {
        let file = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_guenon"));
        command.args(args).args(["--listen", &address.to_string()]);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // A child is where the thread that starts it is.
        let start = || -> anyhow::Result<(Child, Instant)> {
            netns.map_or(Ok(()), enter)?;
            let started = Instant::now();
            Ok((command.spawn().context("cannot start guenon")?, started))
        };
        let (process, started) = thread::scope(|scope| scope.spawn(start).join())
            .map_err(|_| anyhow!("the thread that starts guenon panicked"))??;
        Ok(Self { process, address, log, started })
    }

    /// Time from its start until now.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Time from its start until it says that it is ready.
    pub(crate) fn wait_ready(&self) -> anyhow::Result<Duration> {
        loop {
            if self.get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Ok(self.age());
            }
            if self.age() > READY_LIMIT {
                bail!(
                    "guenon is not ready after {} s: {:?}; its log:\n{}",
                    READY_LIMIT.as_secs(),
                    self.get("/readyz"),
                    self.log()
                );
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The value of the line of its metrics that begins so: a name, with its labels if there are any.
    pub(crate) fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = self.get("/metrics")?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("no metric {name}"))?.parse()?)
    }

    /// The answer to a GET, with its head.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Bytes: peak resident memory without BPF maps, and the maps' resident pages.
    pub(crate) fn memory(&self) -> anyhow::Result<(f64, f64)> {
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

    /// CPU time that it has used so far, in seconds.
    pub(crate) fn cpu(&self) -> anyhow::Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let fields = stat.rsplit_once(')').context("no stat")?.1;
        let ticks: Vec<f64> =
            fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>().context("no times")?;
        /// USER_HZ, which is 100 on every architecture that Guenon runs on.
        const HZ: f64 = 100.0;
        Ok(ticks.iter().sum::<f64>() / HZ)
    }
}

impl Drop for Guenon {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

/// `guenon detach`: takes away what an agent has pinned.
pub(crate) fn detach(pins: &Path, state: &Path, netns: Option<&str>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_guenon"));
    command.arg("detach").arg("--pin-dir").arg(pins).arg("--state-dir").arg(state).stdout(Stdio::null());
    let run = || netns.map_or(Ok(()), enter).is_ok() && command.status().is_ok_and(|status| status.success());
    let detached = thread::scope(|scope| scope.spawn(run).join());
    if !detached.unwrap_or_default() {
        eprintln!("`guenon detach --pin-dir {}` failed: pins are left behind", pins.display());
    }
}

/// A map that an agent has pinned.
pub(crate) fn pinned<V: Pod>(pins: &Path, name: &str) -> anyhow::Result<Array<MapData, V>> {
    let path = pins.join("maps").join(name);
    let data = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Array::try_from(Map::Array(data))?)
}

/// The id of a service, by its name in the map.
pub(crate) fn service_id(pins: &Path, wanted: &str) -> anyhow::Result<u32> {
    let names: Array<MapData, [u8; 320]> = pinned(pins, map::SERVICE_NAMES)?;
    for id in 0..names.len() {
        let name = names.get(&id, 0)?;
        let len = usize::from(u16::from_le_bytes([name[0], name[1]]));
        if &name[2..2 + len] == wanted.as_bytes() {
            return Ok(id);
        }
    }
    bail!("no service {wanted} in {}", map::SERVICE_NAMES)
}

fn kilobytes(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
}
