//! The start: everything that can be wrong is told before anything is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, bail};
use guenon_ebpf::hash::Schedule;
use prometheus::Registry;
use tokio::sync::mpsc;

use super::agent::Agent;
use super::attachments::Attachments;
use super::config::{Config, SourceChoice};
use super::egress::EgressSide;
use super::node_side::NodeSide;
use super::node_status::NodeReports;
use super::reconciler::Reconciler;
use super::report::Reporter;
use super::too_big;
use crate::datapath::tables::read_meta;
use crate::datapath::{EgressHook, Extent, Kernel, Options, Reader, TunnelTooBig};
use crate::metrics::{DataPathCollector, Detail};
use crate::model::{HashKey, Role};
use crate::netlink::{self, Connection, Interest, Monitor, ViewOptions};
use crate::node::{NodeKeeper, Permission};
use crate::resolve::ResolveOptions;

/// "Packet too big" answers a second and CPU: a client needs one for each path, an attacker gets no more.
const TOO_BIG_RATE: u64 = 1000;

/// Checks all that can be checked, then takes over the data path and starts what keeps it current.
///
/// # Errors
///
/// What is wrong, where, and what to do. Until the data path is opened, nothing has been changed.
pub(super) fn start(
    config: &Config,
    key: HashKey,
    reporter: Reporter,
    told: Option<NodeReports>,
    registry: &Registry,
) -> anyhow::Result<(Agent, mpsc::Receiver<TunnelTooBig>)> {
    let schedule = Schedule::new(key.0);
    let interfaces = interfaces(config)?;
    fs::create_dir_all(&config.state_dir).with_context(|| {
        format!(
            "cannot create {} (--state-dir): run as root, or name a directory that can be written",
            config.state_dir.display()
        )
    })?;
    let permission = if config.node_setup { Permission::Change } else { Permission::Tell };
    let keeper = NodeKeeper::open(&config.state_dir, permission, &config.sysctl_dir)?;

    let data_path = Kernel::open(Options {
        pin_dir: config.pin_dir.clone(),
        state_dir: config.state_dir.clone(),
        capacities: config.capacities,
        gue_port: config.gue_port,
        hash: schedule,
        mode: config.xdp_mode,
        egress: EgressHook::Auto,
        too_big_rate: TOO_BIG_RATE,
        director: true,
        decap: true,
    })?;
    let too_big = too_big::receive(data_path.events()?)?;
    registry.register(Box::new(collector(config)?)).context("cannot register the metrics of the data path")?;

    let roles = vec![Role::Director, Role::Decap]; // Until its labels are known.
    let options = ViewOptions {
        node: config.node.clone(),
        roles: roles.clone(),
        interfaces: interfaces.clone(),
        tunnels: config.tunnel_addresses.clone(),
        // What is pinned answers, before this agent has looked at it.
        answering: data_path.answering(),
        interest: Interest::Only(BTreeSet::new()),
        far_ends: BTreeMap::new(),
    };
    let (monitor, views) =
        Monitor::start(options).context("cannot follow the kernel's links, routes and neighbours")?;
    let resolve = ResolveOptions { schedule, directors: config.directors.clone(), policy: config.policy.clone() };
    let revision = read_meta(data_path.store()).revision;
    if revision > 0 {
        tracing::info!(revision, "adopted the data path that is in force");
    }
    let agent = Agent {
        reconciler: Reconciler::adopt(data_path, revision, resolve),
        monitor,
        views,
        node: NodeSide::new(keeper, config.netns_dir.clone())?,
        node_setup: config.node_setup,
        tended: None,
        attachments: Attachments::new(&interfaces),
        egress: EgressSide::new(),
        next_tick: Instant::now(),
        reporter,
        name: config.node.clone(),
        roles,
        told,
        started: Instant::now(),
        was_ready: false,
    };
    Ok((agent, too_big))
}

/// A path that can never be a directory of manifests is a mistake in the command line. One that is not there may come.
pub(super) fn check_manifests(config: &Config) -> anyhow::Result<()> {
    let SourceChoice::Files(path) = &config.source else { return Ok(()) };
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => {
            bail!(
                "{} is not a directory: --manifests (GUENON_MANIFESTS) names the directory that holds the manifests",
                path.display()
            )
        }
        Ok(_) => {
            fs::read_dir(path).with_context(|| {
                format!("cannot read {} (--manifests, GUENON_MANIFESTS): give this user the right to", path.display())
            })?;
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            Err(error).with_context(|| format!("cannot read {} (--manifests, GUENON_MANIFESTS)", path.display()))
        }
    }
}

/// The interfaces to attach to. One that is not there is a mistake, unless it had the program before: then it comes back.
fn interfaces(config: &Config) -> anyhow::Result<Vec<String>> {
    let tables = netlink::read(&mut Connection::open()?)?;
    match netlink::choose_interfaces(&tables, &config.interfaces) {
        Ok(interfaces) => Ok(interfaces),
        Err(error) => {
            let known = known_interfaces(config);
            let wanted = if config.interfaces.is_empty() { known.clone() } else { config.interfaces.clone() };
            let came_before = |name: &String| known.contains(name) || tables.link_named(name).is_some();
            if known.is_empty() || !wanted.iter().all(came_before) {
                return Err(error.into());
            }
            tracing::warn!("{error}; it had the program before, so it is waited for");
            Ok(wanted)
        }
    }
}

/// Interfaces that have the program, or had it when they were last there.
fn known_interfaces(config: &Config) -> Vec<String> {
    let attachments = Reader::open(&config.pin_dir, &config.state_dir).map(|reader| reader.attachments());
    attachments.into_iter().flatten().map(|attachment| attachment.interface).collect()
}

/// Reads the maps at each scrape, by pins of its own: a scrape never waits for the reconciler.
fn collector(config: &Config) -> anyhow::Result<DataPathCollector> {
    let (pin_dir, state_dir) = (config.pin_dir.clone(), config.state_dir.clone());
    let reader: Mutex<Option<Reader>> = Mutex::new(None);
    let read = move |detail: Detail| {
        let extent = Extent { frontends: detail >= Detail::Service, endpoints: detail >= Detail::Endpoint };
        let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = match &mut *reader {
            Some(reader) => reader,
            none @ None => none.insert(Reader::open(&pin_dir, &state_dir)?),
        };
        Ok(reader.reading(extent)?)
    };
    DataPathCollector::new(Box::new(read), config.metrics_detail).context("a metric's definition is not valid")
}
