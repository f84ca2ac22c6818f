//! One client port in several roles towards one pod: through the VIP, through another frontend, directly.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};

use super::ensure;
use super::nat::{ONE, OTHER_ECHO, OTHER_HTTP, event, one_pod};
use crate::topology::layout::{ECHO, HTTP, Host, POD_ECHO, POD_HTTP};
use crate::topology::line::Line;
use crate::topology::{Topology, dial, netns};

const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 33, 1, 10));
const PATIENCE: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(4);

fn open(topology: &Topology, port: u16, server: SocketAddr) -> Result<Line> {
    Line::open(&topology.netns(Host::Client), port, server)
}

/// Each order in which a client may use one port for the VIP, for its other frontend and for the pod itself.
pub(super) fn one_port_in_several_roles(topology: &mut Topology) -> Result<()> {
    one_pod(topology)?;
    let (vip, other, pod) =
        (SocketAddr::new(ONE, HTTP), SocketAddr::new(ONE, OTHER_HTTP), SocketAddr::new(POD, POD_HTTP));
    // One after the other.
    for (port, servers) in [(41_001, [vip, pod]), (41_002, [pod, vip]), (41_003, [vip, other])] {
        for server in servers {
            open(topology, port, server).context("one after the other")?.goes_on()?;
        }
    }
    // A direct connection is open when the VIP is dialled.
    let mut direct = open(topology, 41_011, pod)?;
    let mut through = open(topology, 41_011, vip).context("while a direct connection is open")?;
    direct.goes_on()?;
    through.goes_on()?;
    // Both frontends at once.
    let clashes = event(topology, Host::T33, "flow_clash")?;
    let mut first = open(topology, 41_012, vip)?;
    let mut second = open(topology, 41_012, other).context("while the other frontend's is open")?;
    first.goes_on()?;
    second.goes_on()?;
    first.goes_on()?;
    let now = event(topology, Host::T33, "flow_clash")?;
    ensure(now > clashes, || format!("flow_clash stays at {now}"))?;
    // The VIP's connection is open when the pod is dialled directly: that is not answered, and disturbs nothing.
    let mut through = open(topology, 41_013, vip)?;
    let answer = dial::tcp(&topology.netns(Host::Client), 41_013, pod, SILENCE);
    ensure(answer.is_err(), || "a direct connection was answered in place of the VIP's".to_owned())?;
    through.goes_on()
}

/// The same with datagrams, which have no handshake.
pub(super) fn datagrams_from_one_port(topology: &mut Topology) -> Result<()> {
    one_pod(topology)?;
    let netns = topology.netns(Host::Client);
    let (vip, other) = (SocketAddr::new(ONE, ECHO), SocketAddr::new(ONE, OTHER_ECHO));
    let pod = SocketAddr::new(POD, POD_ECHO);
    let ask = |port: u16, server: SocketAddr| -> Result<()> {
        let socket = dial::udp(&netns, port, server, SILENCE)?;
        socket.send(b"x").context("cannot send")?;
        let mut reply = [0; 64];
        let length = socket.recv(&mut reply).with_context(|| format!("{server} does not answer port {port}"))?;
        ensure(&reply[..length] == b"pod-a x", || format!("{server} says {:?}", &reply[..length]))
    };
    for server in [vip, pod, vip, other, vip, pod, other] {
        ask(42_001, server)?;
    }
    Ok(())
}

/// A thousand clients at a time on UDP.
pub(super) fn a_thousand_datagram_clients(topology: &mut Topology) -> Result<()> {
    one_pod(topology)?;
    let server = SocketAddr::new(ONE, ECHO);
    netns::inside(&topology.netns(Host::Client), || {
        let sockets: Vec<_> = (0..1000)
            .map(|_| {
                let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
                socket.connect(server)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                Ok(socket)
            })
            .collect::<std::io::Result<_>>()
            .context("cannot make sockets")?;
        for round in 0..3 {
            // In portions, which the server's buffer holds.
            for portion in sockets.chunks(100) {
                for (number, socket) in portion.iter().enumerate() {
                    socket.send(format!("{round} {number}").as_bytes()).context("cannot send")?;
                }
                for (number, socket) in portion.iter().enumerate() {
                    let mut reply = [0; 64];
                    let length = socket.recv(&mut reply).with_context(|| format!("client {number}, round {round}"))?;
                    let wanted = format!("pod-a {round} {number}");
                    ensure(&reply[..length] == wanted.as_bytes(), || {
                        format!("client {number} hears {:?}", &reply[..length])
                    })?;
                }
            }
        }
        Ok(())
    })
}

/// Ten thousand connections, all open at the same time.
pub(super) fn ten_thousand_connections(topology: &mut Topology) -> Result<()> {
    const COUNT: u16 = 10_000;
    one_pod(topology)?;
    let server = SocketAddr::new(ONE, HTTP);
    let mut lines = Vec::new();
    for number in 0..COUNT {
        crate::interrupt::check()?;
        lines.push(open(topology, 45_000 + number, server).with_context(|| format!("connection {number}"))?);
    }
    lines.iter_mut().try_for_each(Line::goes_on)
}
