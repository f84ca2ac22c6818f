//! Which clients' replies leave where they cannot be translated: what the program asks of a new flow's client.

use std::collections::BTreeMap;

use guenon_ebpf::abi::{Address, HAIRPIN, HairpinKey, MAX_HAIRPINS, map};
use ipnet::IpNet;
use zerocopy::transmute;

use super::error::DataPathError;
use super::kernel::Kernel;
use super::sys::{self, TrieKey};

impl Kernel {
    /// Puts these prefixes in force, `true` = packets to it do not leave by an uplink; the longest decides. Costs what
    /// has changed since the last call.
    ///
    /// # Errors
    ///
    /// [`DataPathError::Map`]: some are not in force; the next call tries again.
    pub fn set_hairpins(&mut self, wanted: &BTreeMap<IpNet, bool>) -> Result<(), DataPathError> {
        if self.hairpins.as_ref() == Some(wanted) {
            return Ok(());
        }
        let trie = self.tables.store().fd(map::HAIRPINS);
        let trie =
            trie.ok_or_else(|| DataPathError::map("find", map::HAIRPINS)(std::io::ErrorKind::NotFound.into()))?;
        let refused = |what| DataPathError::map(what, map::HAIRPINS);
        // The widest first: where not all find room, these say most.
        let mut keys: Vec<(TrieKey, u32)> =
            wanted.iter().map(|(net, hairpin)| (key(net), if *hairpin { HAIRPIN } else { 0 })).collect();
        keys.sort_by_key(|(key, _)| prefix_of(key));
        if keys.len() > MAX_HAIRPINS as usize {
            tracing::warn!(
                prefixes = keys.len(),
                "more prefixes than there is room for ({MAX_HAIRPINS}) are routed elsewhere than to uplinks: clients in the \
                 narrowest get replies from the endpoint's address"
            );
            keys.truncate(MAX_HAIRPINS as usize);
        }
        // Those of an earlier agent too.
        let present = sys::prefixes(trie).map_err(refused("read"))?;
        let kept: BTreeMap<TrieKey, u32> = keys.iter().copied().collect();
        for key in present.iter().filter(|key| !kept.contains_key(*key)) {
            sys::remove_prefix(trie, key).map_err(refused("remove a prefix from"))?;
        }
        for (key, value) in &keys {
            sys::put_prefix(trie, key, *value).map_err(refused("add a prefix to"))?;
        }
        self.hairpins = Some(wanted.clone());
        Ok(())
    }
}

fn key(net: &IpNet) -> TrieKey {
    let prefix = u32::from(net.prefix_len()) + if net.addr().is_ipv4() { 96 } else { 0 };
    transmute!(HairpinKey { prefix, address: Address::from_ip(net.addr()).to_bytes() })
}

fn prefix_of(key: &TrieKey) -> u32 {
    let HairpinKey { prefix, .. } = transmute!(*key);
    prefix
}
