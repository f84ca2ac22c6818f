//! Nodes that forget connections of their pods.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::nat::{CLOSED, ONE, POD_CLOSED, one_pod};
use crate::progress;
use crate::setup::{self, packages};
use crate::topology::layout::Host;
use crate::topology::{Topology, dial, netns};

const POD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 33, 1, 10)), POD_CLOSED);
const PATIENCE: Duration = Duration::from_secs(4);

/// The node's conntrack entry goes, and the pod says the next word: where a direct connection goes on, one through the VIP does.
pub(super) fn forgotten(topology: &mut Topology) -> Result<()> {
    setup::programs(&[packages::FORGETTING])?;
    one_pod(topology)?;
    let rules = |more: &str| {
        format!(
            "table inet cni {{\nchain forward {{ type filter hook forward priority 0; ct state invalid drop\n}}\n\
             {more}\n}}\n"
        )
    };
    let nft = |rules: String| topology.at(Host::T33, "nft").args(["-f", "-"]).input(rules).run();
    let vip = SocketAddr::new(ONE, CLOSED);

    nft(rules(""))?;
    for (name, port, server) in [("direct", 43_400, POD), ("through the VIP", 43_401, vip)] {
        let went_on = survives(topology, port, server).with_context(|| name.to_owned())?;
        ensure!(went_on == Ok(()), "a connection {name} ends when conntrack forgets it: {went_on:?}");
    }
    // Here the pod's word begins a connection of its own to conntrack, and gets the node's address.
    nft(rules(
        "chain post { type nat hook postrouting priority srcnat; ip saddr 10.0.0.0/8 oifname eth0 masquerade\n}",
    ))?;
    let direct = survives(topology, 43_402, POD).context("direct, masqueraded")?;
    let through = survives(topology, 43_403, vip).context("through the VIP, masqueraded")?;
    progress::note(format!("masqueraded pods: a direct connection {direct:?}, one through the VIP {through:?}"));
    ensure!(direct.is_err() || through.is_ok(), "through the VIP {through:?}, where a direct connection goes on");
    // What comes after it is not disturbed, on the same ports neither.
    for (port, server) in [(43_403, vip), (43_404, POD), (43_404, vip)] {
        let (mut client, mut pod) = open(topology, port, server).context("afterwards")?;
        said(&mut client, &mut pod).and_then(|()| said(&mut pod, &mut client)).context("afterwards")?;
    }
    Ok(())
}

/// Opens a connection, lets the pod's node forget it, lets the pod speak, and the client: `Ok(Err)` says what is not heard.
fn survives(topology: &Topology, port: u16, server: SocketAddr) -> Result<Result<(), &'static str>> {
    let (mut client, mut pod) = open(topology, port, server)?;
    said(&mut client, &mut pod).context("the client's first word")?;
    said(&mut pod, &mut client).context("the pod's first word")?;
    // Nothing may be under way that would be remembered at once.
    std::thread::sleep(Duration::from_millis(200));
    let which = ["-D", "-p", "tcp", "--orig-src", "198.51.100.9", "--orig-port-src", &port.to_string()];
    // It fails if there is nothing to forget.
    topology.at(Host::T33, "conntrack").args(which).run()?;
    Ok(match (said(&mut pod, &mut client), said(&mut client, &mut pod)) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(_), _) => Err("breaks: the client does not hear the pod"),
        (Ok(()), Err(_)) => Err("breaks: the pod does not hear the client"),
    })
}

/// Both ends of a connection to a port of the pod.
fn open(topology: &Topology, port: u16, server: SocketAddr) -> Result<(TcpStream, TcpStream)> {
    let listener = netns::inside(&topology.netns(Host::PodA), || {
        TcpListener::bind(("0.0.0.0", POD_CLOSED)).context("cannot listen in the pod")
    })?;
    let client = dial::tcp(&topology.netns(Host::Client), port, server, PATIENCE)?;
    let (pod, from) = listener.accept().context("cannot accept")?;
    ensure!(from == SocketAddr::from(([198, 51, 100, 9], port)), "the pod sees {from}, not port {port} of the client");
    pod.set_read_timeout(Some(PATIENCE))?;
    pod.set_nodelay(true)?;
    Ok((client, pod))
}

/// One end says a word, and the other hears it.
fn said(from: &mut TcpStream, to: &mut TcpStream) -> Result<()> {
    let mut word = [0; 4];
    from.write_all(b"word").context("cannot say it")?;
    to.read_exact(&mut word).context("not heard")?;
    ensure!(&word == b"word", "{word:?} was heard");
    Ok(())
}
