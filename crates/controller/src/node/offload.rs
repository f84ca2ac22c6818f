//! Checksum offload of veths (lessons 11 and 13): what the peer of an attached veth hands over with an unfinished
//! checksum stays so once XDP has encapsulated or redirected it.

use std::os::fd::AsFd;
use std::path::Path;

use super::far_end::far_link;
use super::keeper::problem;
use super::sys::tx_checksum;
use crate::model::Problem;
use crate::netlink::{Connection, Namespaces, inside, read_links};

/// Which attached veths have a peer that leaves checksums unfinished. A peer in a namespace that has no file in
/// the directory cannot be looked at: nothing is said of it.
#[must_use]
pub fn offload_problems(connection: &mut Connection, attached: &[String], directory: &Path) -> Vec<Problem> {
    let Ok(links) = read_links(connection) else { return Vec::new() };
    let veths: Vec<_> = links.values().filter(|link| link.is_veth() && attached.contains(&link.name)).collect();
    if veths.is_empty() {
        return Vec::new();
    }
    let Ok(namespaces) = Namespaces::scan(connection, directory) else { return Vec::new() };
    let mut problems = Vec::new();
    for link in veths {
        let Ok(peer) = namespaces.find_peer(link) else { continue };
        let Ok(far) = far_link(&peer) else { continue };
        if let Ok(Ok(true)) = inside(peer.namespace.as_fd(), || tx_checksum(&far.name)) {
            let (far, path) = (&far.name, peer.path.display());
            let message = format!(
                "its peer {far} (namespace {path}) hands over packets with unfinished checksums, which stay so in \
                 tunnels; switch that off: `nsenter --net={path} ethtool -K {far} tx off`"
            );
            problems.push(problem(&link.name, message));
        }
    }
    problems
}
