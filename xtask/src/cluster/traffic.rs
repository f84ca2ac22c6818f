//! Questions of the client outside, and who answered.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::layout::{Node, echo, http};
use super::{Cluster, eventually};
use crate::demo::show;
use crate::demo::traffic::{Answers, judge};
use crate::progress;
use crate::shell::cmd;
use crate::topology::client;

/// How long it may take until what was applied is in force on every node.
const LIMIT: Duration = Duration::from_secs(60);
/// Questions after which both directors and both endpoints were met, but for one time in 10^8.
const ATTEMPTS: usize = 30;

/// What a round of questions came to.
pub(super) struct Round(Vec<Answers>);

/// 100 times curl and 100 datagrams, each from a port of its own.
pub(super) fn send(cluster: &Cluster) -> Result<Round> {
    in_force(cluster)?;
    let netns = cluster.client_netns();
    let url = format!("http://{}/", http());
    progress::step(format_args!("100 times curl {url} from outside, over both directors"));
    let curl = Answers::ask("curl".to_owned(), |_| {
        let curl = cmd("curl").args(["-sS", "--fail", "--max-time", "10", &url]).netns(&netns);
        Ok(curl.read()?.trim().to_owned())
    })?;
    progress::step(format_args!("100 datagrams to {}", echo()));
    let udp = Answers::ask("UDP".to_owned(), |number| {
        let payload = format!("datagram {number}");
        let reply = String::from_utf8_lossy(&client::echo(&netns, echo(), payload.as_bytes())?).into_owned();
        let (name, rest) = reply.split_once(' ').with_context(|| format!("{reply:?} echoed"))?;
        ensure!(rest == payload, "{rest:?} echoed for {payload:?}");
        Ok(name.to_owned())
    })?;
    Ok(Round(vec![curl, udp]))
}

/// Waits until every endpoint's node answers through every director.
pub(super) fn in_force(cluster: &Cluster) -> Result<()> {
    answered_by(cluster, &Node::ENDPOINTS)
}

/// Waits until these nodes answer, and no others.
pub(super) fn answered_by(cluster: &Cluster, nodes: &[Node]) -> Result<()> {
    let netns = cluster.client_netns();
    let wanted = nodes.iter().map(|node| node.name().to_owned()).collect::<std::collections::BTreeSet<_>>();
    eventually(LIMIT, || {
        let mut names = std::collections::BTreeSet::new();
        for _ in 0..ATTEMPTS {
            names.insert(client::try_get(&netns, http(), "/", Duration::from_millis(900))?.text().trim().to_owned());
        }
        ensure!(names == wanted, "{names:?} answered, not {wanted:?}");
        Ok(())
    })
}

impl Round {
    pub(super) fn show(&self) -> String {
        show::answers(&self.0, &Node::ENDPOINTS.map(Node::name))
    }

    /// Every question answered, every endpoint's node heard.
    pub(super) fn judge(&self) -> Result<()> {
        judge(&self.0, &Node::ENDPOINTS.map(Node::name))
    }
}
