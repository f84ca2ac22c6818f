//! Steady traffic in the background that notices every packet that is lost.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::topology::layout::{ECHO, HTTP, Host};
use crate::topology::serve::pattern;
use crate::topology::{FAMILIES, Topology, client, netns};

/// Flows at a time: enough for every endpoint to get some.
const FLOWS: usize = 24;
/// Between two rounds of one datagram a flow.
const PAUSE: Duration = Duration::from_millis(2);
/// An answer that takes longer than this is lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// UDP echo traffic over both families.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<u64>>>,
}

impl Load {
    /// Begins.
    pub(super) fn start(topology: &Topology) -> Self {
        Self::on(topology, FAMILIES)
    }

    /// Begins, to these VIPs.
    pub(super) fn on(topology: &Topology, vips: [(&str, IpAddr); 2]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = vips
            .iter()
            .map(|&(_, vip)| {
                let (stop, netns) = (Arc::clone(&stop), topology.netns(Host::Client));
                std::thread::spawn(move || netns::inside(&netns, || send(SocketAddr::new(vip, ECHO), &stop)))
            })
            .collect();
        Self { stop, threads }
    }

    /// Ends, and gives the number of datagrams that were answered; an error if one was not.
    pub(super) fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::SeqCst);
        let mut answered = 0;
        for thread in self.threads {
            answered += thread.join().map_err(|_| anyhow!("the load panicked"))??;
        }
        if answered == 0 {
            bail!("the load sent nothing");
        }
        Ok(answered)
    }
}

/// Uploads of some megabytes, one after the other, slow enough that no queue of the way overflows.
pub(super) struct Transfers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Transfers {
    /// Begins.
    pub(super) fn start(topology: &Topology) -> Self {
        Self::on(topology, FAMILIES)
    }

    /// Begins, to these VIPs.
    pub(super) fn on(topology: &Topology, vips: [(&str, IpAddr); 2]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = vips
            .iter()
            .map(|&(_, vip)| {
                let (stop, netns) = (Arc::clone(&stop), topology.netns(Host::Client));
                std::thread::spawn(move || upload(&netns, SocketAddr::new(vip, HTTP), &stop))
            })
            .collect();
        Self { stop, threads }
    }

    /// Ends; an error if a transfer broke, or one arrived spoilt.
    pub(super) fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("an upload panicked"))??;
        }
        Ok(())
    }
}

fn upload(netns: &str, server: SocketAddr, stop: &AtomicBool) -> Result<()> {
    let body = pattern(4 << 20);
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        let reply = client::post_gently(netns, server, "/", &body).with_context(|| format!("upload {number}"))?;
        if reply.status != 200 {
            bail!("upload {number} to {server} arrived spoilt: {}", reply.text());
        }
        number += 1;
    }
    Ok(())
}

fn send(server: SocketAddr, stop: &AtomicBool) -> Result<u64> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let sockets = (0..FLOWS)
        .map(|_| {
            let socket = UdpSocket::bind(any)?;
            socket.connect(server)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        })
        .collect::<std::io::Result<Vec<_>>>()
        .with_context(|| format!("cannot make sockets to {server}"))?;
    let begin = Instant::now();
    let mut round: u64 = 0;
    while !stop.load(Ordering::SeqCst) {
        let payload = round.to_be_bytes();
        for socket in &sockets {
            socket.send(&payload).with_context(|| format!("cannot send to {server}"))?;
        }
        for (flow, socket) in sockets.iter().enumerate() {
            let mut reply = [0; 64];
            let at = begin.elapsed().as_millis();
            let length = socket.recv(&mut reply).with_context(|| {
                format!("datagram {round} of flow {flow} to {server} was lost, {at} ms after the start")
            })?;
            if !reply[..length].ends_with(&payload) {
                bail!("datagram {round} of flow {flow} to {server} was answered by {:?}", &reply[..length]);
            }
        }
        round += 1;
        std::thread::sleep(PAUSE);
    }
    Ok(round * FLOWS as u64)
}
