use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::model::Role;
use crate::netlink::{Connection, Interest, ViewOptions, choose_interfaces, compose, read};
use crate::node::observe_far_ends;

const EXAMPLES: &str = "\
Examples:
  guenon view > view.yaml
      What this node knows of itself now; with its manifests and a capture, all that a bug report needs.
  guenon simulate --manifests DIR --view view.yaml --in IN.pcap --out OUT.pcap
      Replays packets against it, anywhere.";

/// What this node knows of itself (interfaces, addresses, next hops, MTUs), as YAML
///
/// What this node knows of itself: interfaces, addresses, routes and resolved neighbours, MTUs. This is the NodeView
/// that the forwarding tables are computed from, beside the objects. Reads the kernel; changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Interface that the program is for; repeatable. Default: the one with the default route
    #[arg(long, env = "GUENON_INTERFACE", value_name = "NAME", value_delimiter = ',')]
    interface: Vec<String>,

    /// Name of this node, as Node objects and EndpointSlices call it. Default: the host name
    #[arg(long, env = "GUENON_NODE", value_name = "NAME")]
    node: Option<String>,

    /// Tunnel address of this node; repeatable. Default: the first interface's first global address of each family
    #[arg(long, env = "GUENON_TUNNEL_ADDRESS", value_name = "ADDR", value_delimiter = ',')]
    tunnel_address: Vec<IpAddr>,

    /// Directory of named network namespaces, to look at the far ends of veths
    #[arg(long, env = "GUENON_NETNS_DIR", value_name = "DIR", default_value = "/run/netns")]
    netns_dir: PathBuf,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let Args { interface, node, tunnel_address, netns_dir } = args;
    let node = match node {
        Some(node) => node,
        None => host_name()?,
    };
    let mut connection = Connection::open()?;
    let tables = read(&mut connection)?;
    let interfaces = choose_interfaces(&tables, &interface)?;
    let mut options = ViewOptions {
        node,
        roles: vec![Role::Director, Role::Decap],
        interfaces,
        tunnels: tunnel_address,
        answering: BTreeSet::new(),
        interest: Interest::All,
        far_ends: BTreeMap::new(),
    };
    // Of the veths only those that a route leads to can have an endpoint behind them.
    let shown = compose(&tables, &options).view.interfaces;
    let shown = shown.iter().filter_map(|interface| tables.links.get(&interface.index));
    let endpoint_sides = shown.filter(|link| link.is_veth() && !options.interfaces.contains(&link.name));
    options.far_ends = observe_far_ends(&mut connection, endpoint_sides, &netns_dir);
    let view = compose(&tables, &options).view;
    let text = serde_yaml_ng::to_string(&view).context("cannot write the view as YAML")?;
    std::io::stdout().write_all(quote_macs(&text).as_bytes()).context("cannot print the view")
}

/// Quotes MAC addresses: to a reader of YAML 1.1, `52:54:00:12:34:56` is a number of base 60.
fn quote_macs(yaml: &str) -> String {
    let quoted = |line: &str| match line.split_once("mac: ") {
        Some((indent, mac)) if !mac.starts_with(['"', '\'']) => format!("{indent}mac: \"{mac}\"\n"),
        _ => format!("{line}\n"),
    };
    yaml.lines().map(quoted).collect()
}

fn host_name() -> anyhow::Result<String> {
    const FILE: &str = "/proc/sys/kernel/hostname";
    let name = std::fs::read_to_string(FILE)
        .with_context(|| format!("cannot read the host name from {FILE}; give the node's name with --node NAME"))?;
    Ok(name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeView;

    #[test]
    fn mac_addresses_are_quoted_and_still_read() {
        let yaml = "node: t22\nroles: []\ntunnel: []\ninterfaces:\n- name: eth0\n  index: 2\n  \
                    mac: 52:54:00:12:34:56\n  mtu: 1500\nnextHops: []\n";
        let quoted = quote_macs(yaml);
        assert!(quoted.contains("\n  mac: \"52:54:00:12:34:56\"\n"), "{quoted}");
        assert_eq!(
            serde_yaml_ng::from_str::<NodeView>(&quoted).unwrap(),
            serde_yaml_ng::from_str::<NodeView>(yaml).unwrap()
        );
    }
}
