//! Next hops, and the devices that frames leave from.

use guenon_ebpf::abi::{self, Address, NextHop};
use zerocopy::transmute;

use super::quarantine::Retired;
use super::store::{Store, Table};
use super::{Tables, full};
use crate::apply::Refusal;
use crate::model::{Egress, Mac, NextHopKey, NextHopState};

const KEY_WORDS: usize = size_of::<abi::NextHopKey>() / 8;
const HOP_WORDS: usize = size_of::<NextHop>() / 8;
const INTERFACE_WORDS: usize = size_of::<abi::Interface>() / 8;

impl<S: Store> Tables<S> {
    pub(super) fn put_next_hop(&mut self, key: &NextHopKey, state: &NextHopState) -> Result<(), Refusal> {
        let known = self.hops.get(key).copied();
        let written_key = encode_key(key).ok_or_else(|| {
            Refusal::Inconsistent(format!("write next hop {key:?}: the interface's name is too long"))
        })?;
        let egress = encode_egress(&state.egress)
            .ok_or_else(|| Refusal::Inconsistent(format!("write next hop {key:?}: more than two VLAN tags")))?;
        if known.is_none() && self.hop_ids.free() == 0 {
            return Err(full(Table::NextHops.map(), 1, 0, self.store.elements(Table::NextHops) as usize));
        }
        let slot = self.egress(egress)?;

        let index = match known {
            Some(index) => index,
            None => self.hop_ids.take().unwrap_or_default(),
        };
        let first = index as usize * HOP_WORDS;
        let before = known.map(|_| self.store.load(Table::NextHops, first));
        let after = NextHop::pack(state.mac.map_or([0; 6], |mac| mac.0), slot as u16);
        for (word, value) in [(first + 1, u64::from(state.mtu)), (first, after)] {
            if self.store.load(Table::NextHops, word) != value {
                self.store.publish(Table::NextHops, word, value);
            }
        }
        self.egress_uses[slot as usize] += 1;
        if let Some(before) = before {
            let left = u32::from(NextHop::unpack(before).1);
            self.egress_uses[left as usize] -= 1;
            if self.egress_uses[left as usize] == 0 {
                self.quarantine.push(Retired::Egress(left));
            }
        } else {
            let first = index as usize * KEY_WORDS;
            for word in [0, 1, 3, 2] {
                // The word that the name begins in says that the key is there.
                self.store.publish(Table::NextHopKeys, first + word, written_key[word]);
            }
            self.hops.insert(key.clone(), index);
        }
        Ok(())
    }

    pub(super) fn remove_next_hop(&mut self, key: &NextHopKey) -> Result<(), Refusal> {
        let Some(index) = self.hops.get(key).copied() else { return Ok(()) };
        let uses = self.hop_uses[index as usize];
        if uses > 0 {
            return Err(Refusal::Inconsistent(format!(
                "remove next hop {} on {}: {} endpoints go there",
                key.gateway, key.interface, uses
            )));
        }
        self.hops.remove(key);
        self.clear_key(index);
        self.quarantine.push(Retired::NextHop(index));
        Ok(())
    }

    /// After the grace period of a removal.
    pub(super) fn free_next_hop(&mut self, index: u32) {
        let first = index as usize * HOP_WORDS;
        let (_, slot) = NextHop::unpack(self.store.load(Table::NextHops, first));
        self.store.publish(Table::NextHops, first, 0);
        self.store.publish(Table::NextHops, first + 1, 0);
        self.hop_ids.release(index);
        self.egress_uses[usize::from(slot)] -= 1;
        if self.egress_uses[usize::from(slot)] == 0 {
            self.egress_slots.release(u32::from(slot));
        }
    }

    pub(super) fn clear_key(&self, index: u32) {
        let first = index as usize * KEY_WORDS;
        for word in [2, 3, 0, 1] {
            self.store.publish(Table::NextHopKeys, first + word, 0);
        }
    }

    /// The slot of this device, written anew where none says exactly that.
    fn egress(&mut self, egress: abi::Interface) -> Result<u32, Refusal> {
        let wanted: [u64; INTERFACE_WORDS] = transmute!(egress);
        let mut used = (0u32..).zip(&self.egress_uses).filter(|(_, uses)| **uses > 0);
        if let Some((slot, _)) = used.find(|(slot, _)| self.store.element(Table::Interfaces, *slot) == wanted) {
            return Ok(slot);
        }
        let capacity = self.store.elements(Table::Interfaces) as usize;
        let slot = self.egress_slots.take().ok_or_else(|| full(Table::Interfaces.map(), 1, 0, capacity))?;
        for (word, value) in wanted.into_iter().enumerate() {
            self.store.prepare(Table::Interfaces, slot as usize * INTERFACE_WORDS + word, value);
        }
        Ok(slot)
    }
}

fn encode_key(key: &NextHopKey) -> Option<[u64; KEY_WORDS]> {
    let name = key.interface.as_bytes();
    let mut interface = [0; 16];
    if name.is_empty() || name.len() > 15 {
        return None;
    }
    interface[..name.len()].copy_from_slice(name);
    Some(transmute!(abi::NextHopKey { gateway: Address::from_ip(key.gateway), interface }))
}

/// What the next hop of this index stands for; `None`: it is free.
pub(super) fn decode_key(store: &impl Store, index: u32) -> Option<NextHopKey> {
    if index >= store.elements(Table::NextHopKeys) {
        return None;
    }
    let words: [u64; KEY_WORDS] = store.element(Table::NextHopKeys, index);
    let key: abi::NextHopKey = transmute!(words);
    let interface = zero_padded(&key.interface)?;
    Some(NextHopKey { interface, gateway: key.gateway.to_ip() })
}

/// What is known of the next hop of this index.
pub(super) fn decode_hop(store: &impl Store, index: u32) -> Option<NextHopState> {
    let [word, mtu]: [u64; HOP_WORDS] = store.element(Table::NextHops, index);
    let (mac, slot) = NextHop::unpack(word);
    if u32::from(slot) >= store.elements(Table::Interfaces) {
        return None;
    }
    let words: [u64; INTERFACE_WORDS] = store.element(Table::Interfaces, u32::from(slot));
    let interface: abi::Interface = transmute!(words);
    let tags = interface.tags.iter().take(usize::from(interface.tag_count));
    Some(NextHopState {
        mac: (!NextHop::is_unresolved(word)).then_some(Mac(mac)),
        mtu: mtu as u32,
        egress: Egress {
            ifindex: interface.ifindex,
            mac: Mac(interface.mac),
            mtu: interface.mtu,
            tags: tags.map(|[a, b, c, d]| (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))).collect(),
        },
    })
}

/// The slot of `INTERFACES` that a next hop leads to.
pub(super) fn egress_of(store: &impl Store, index: u32) -> u32 {
    u32::from(NextHop::unpack(store.load(Table::NextHops, index as usize * HOP_WORDS)).1)
}

fn encode_egress(egress: &Egress) -> Option<abi::Interface> {
    let mut tags = [[0; 4]; 2];
    for (index, (tpid, tci)) in egress.tags.iter().enumerate() {
        let ([a, b], [c, d]) = (tpid.to_be_bytes(), tci.to_be_bytes());
        *tags.get_mut(index)? = [a, b, c, d];
    }
    Some(abi::Interface {
        ifindex: egress.ifindex,
        mtu: egress.mtu,
        mac: egress.mac.0,
        tag_count: egress.tags.len() as u8,
        reserved0: 0,
        tags,
        reserved: [0; 8],
    })
}

/// The text of a zero-padded name; `None`: there is none.
pub(super) fn zero_padded(bytes: &[u8]) -> Option<String> {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = std::str::from_utf8(&bytes[..len]).ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}
