//! From what is wanted and what is there to what is to be done. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::record::{Owned, Record};
use super::setup::{Family, NodeSetup, Sysctl};

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Values of sysctls; those that don't exist are absent.
    pub sysctls: BTreeMap<Sysctl, i64>,
    /// Indices of devices.
    pub indices: BTreeMap<String, u32>,
    /// Addresses of the loopback.
    pub loopback: BTreeSet<IpAddr>,
    /// Addresses of other devices.
    pub elsewhere: BTreeSet<IpAddr>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Record a sysctl's value as the previous one, then set it.
    Set(Sysctl, Owned),
    /// Set a sysctl that is recorded already: somebody else has changed it.
    SetAgain(Sysctl, i64),
    /// Ask for a sysctl that the agent leaves to others.
    Ask(Sysctl, i64),
    /// Put an address on the loopback, recorded first.
    AddAddress(IpAddr),
    /// Take an address of ours off the loopback.
    RemoveAddress(IpAddr),
    /// Give a sysctl its previous value back: it still has the value that was set.
    Restore(Sysctl, Owned),
    /// Forget a sysctl: its device is gone, or somebody else has changed it since.
    Forget(Sysctl),
    /// Forget an address that somebody else has taken off the loopback.
    ForgetAddress(IpAddr),
}

/// What is to be done. What protects is set before what it protects from is there, and restored after it is gone.
#[must_use]
pub fn steps(setup: &NodeSetup, observed: &Observed, record: &Record) -> Vec<Step> {
    let NodeSetup { addresses, wishes } = setup;
    let mut steps = Vec::new();
    let outdated = |key: &Sysctl, owned: &Owned| match key.device() {
        Some(device) => observed.indices.get(device).copied() != owned.index,
        None => false,
    };
    let (outdated, ours): (BTreeMap<_, _>, BTreeMap<_, _>) =
        record.sysctls.iter().partition(|(key, owned)| outdated(key, owned));
    steps.extend(outdated.keys().map(|key| Step::Forget((*key).clone())));

    // Judged by what is set without us: else what we set would seem to be needed no more.
    let without_us = without(&ours, observed);
    // In the order of wishes.
    let mut targets: Vec<(Sysctl, i64)> = Vec::new();
    let (left, done): (Vec<_>, Vec<_>) = wishes.iter().partition(|wish| wish.is_yours());
    for (key, value) in done.iter().filter_map(|wish| wish.change(&without_us)) {
        if targets.iter().all(|(other, _)| *other != key) {
            targets.push((key, value));
        }
    }
    for (key, value) in &targets {
        let now = observed.sysctls.get(key).copied();
        match ours.get(key) {
            Some(_) if now == Some(*value) => {}
            Some(_) => steps.push(Step::SetAgain(key.clone(), *value)),
            None => {
                let Some(previous) = now else { continue };
                let index = key.device().and_then(|device| observed.indices.get(device).copied());
                let owned = Owned { previous, set: *value, index, also: swept_along(key, observed) };
                steps.push(Step::Set(key.clone(), owned));
            }
        }
    }

    let mut then = without_us;
    then.extend(targets.iter().cloned());
    let asked: BTreeMap<Sysctl, i64> = left.iter().filter_map(|wish| wish.change(&then)).collect();
    steps.extend(asked.into_iter().map(|(key, value)| Step::Ask(key, value)));

    let there = |address: &IpAddr| observed.loopback.contains(address) || observed.elsewhere.contains(address);
    steps.extend(addresses.iter().filter(|address| !there(address)).map(|address| Step::AddAddress(*address)));
    for address in record.addresses.difference(addresses) {
        steps.push(if observed.loopback.contains(address) {
            Step::RemoveAddress(*address)
        } else {
            Step::ForgetAddress(*address)
        });
    }

    let unwanted = ours.into_iter().filter(|(key, _)| targets.iter().all(|(target, _)| target != *key));
    // The last set is the first restored.
    let mut unwanted: Vec<_> = unwanted.collect();
    unwanted.sort_by_key(|(key, _)| key.path().ends_with("/accept_ra"));
    for (key, owned) in unwanted {
        steps.push(if observed.sysctls.get(key) == Some(&owned.set) {
            Step::Restore(key.clone(), owned.clone())
        } else {
            Step::Forget(key.clone())
        });
    }
    steps
}

/// Values of sysctls as they would be without us.
fn without(ours: &BTreeMap<&Sysctl, &Owned>, observed: &Observed) -> BTreeMap<Sysctl, i64> {
    let mut values = observed.sysctls.clone();
    let all = all_forwarding();
    if let Some(owned) = ours.get(&all) {
        for (key, value) in &mut values {
            if is_swept_along(key) {
                *value = owned.also.get(key).copied().unwrap_or(owned.previous);
            }
        }
    }
    for (key, owned) in ours {
        if let Some(value) = values.get_mut(*key) {
            *value = owned.previous;
        }
    }
    values
}

/// Writing IPv6's `all/forwarding` writes every device's; setting it back leaves them all at 0. Those that
/// were something else are remembered.
fn swept_along(key: &Sysctl, observed: &Observed) -> BTreeMap<Sysctl, i64> {
    if *key != all_forwarding() {
        return BTreeMap::new();
    }
    let others = observed.sysctls.iter().filter(|(other, value)| is_swept_along(other) && **value != 0);
    others.map(|(other, value)| (other.clone(), *value)).collect()
}

fn is_swept_along(key: &Sysctl) -> bool {
    *key != all_forwarding() && key.path().starts_with("ipv6/conf/") && key.path().ends_with("/forwarding")
}

/// IPv6's `all/forwarding`.
pub(super) fn all_forwarding() -> Sysctl {
    Sysctl::of_device(Family::V6, "all", "forwarding")
}
