//! What Guenon may leave on a node, to be compared before and after.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Cluster;
use super::layout::Node;
use crate::topology::netns;

/// Lines that describe a node: programs, addresses, settings, what is pinned.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Traces(BTreeSet<String>);

impl Traces {
    /// What a node has now.
    pub(super) fn of(cluster: &Cluster, node: Node) -> Result<Self> {
        let mut lines = BTreeSet::new();
        let mut add =
            |what: &str, text: String| lines.extend(text.lines().map(|line| format!("{what}: {}", line.trim())));
        let read = |command: &str| {
            let mut words = command.split(' ');
            cluster.on(node, words.next().unwrap_or_default())?.args(words).read()
        };
        // More of it differs after a node was away.
        let link = read("ip -d -o link show dev eth0")?;
        add("link", format!("eth0, XDP: {}", link.contains("xdp")));
        add("address", read("ip -o addr show dev lo")?);
        add("pin", read("find /sys/fs/bpf -mindepth 1")?);
        // The directory itself is the chart's hostPath, and may stay.
        add("file", read("find /run -path /run/guenon/*")?);
        add("sysctl", sysctls(&cluster.node_netns(node))?);
        Ok(Self(lines))
    }

    /// An error unless a node has again what it had before.
    pub(super) fn compare(&self, now: &Self, node: Node) -> Result<()> {
        let new: Vec<&String> = now.0.difference(&self.0).collect();
        let old: Vec<&String> = self.0.difference(&now.0).collect();
        ensure!(new.is_empty() && old.is_empty(), "{} was left with {new:#?} in place of {old:#?}", node.name());
        Ok(())
    }
}

/// Those that the agent may set.
fn sysctls(name: &str) -> Result<String> {
    netns::inside(name, || {
        let mut lines = String::new();
        for device in ["all", "default", "lo", "eth0"] {
            for setting in ["rp_filter", "accept_local", "arp_ignore", "arp_announce", "forwarding"] {
                let file = Path::new("/proc/sys/net/ipv4/conf").join(device).join(setting);
                let value =
                    std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
                lines.push_str(&format!("{device} {setting} {}\n", value.trim()));
            }
        }
        Ok(lines)
    })
}
