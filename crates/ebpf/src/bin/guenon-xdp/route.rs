//! Whether an endpoint's reply to a client will leave this node where it can be translated. Asked once for each flow.
//!
//! `bpf_fib_lookup`, which would tell from the kernel's own tables, is for programs under the GPL alone; so the agent
//! writes down which prefixes its routes send elsewhere.

use aya_ebpf::maps::lpm_trie::Key;
use guenon_ebpf::abi::{Address, AddressKind, HAIRPIN};

use crate::{maps, tables};

/// Whether it will: the client is neither this node, nor an endpoint of it, nor behind another device than an uplink.
#[inline(always)]
pub(crate) fn is_answerable(client: Address) -> bool {
    let kind = tables::address(client).kind();
    let here = kind == AddressKind::Tunnel as u8 || kind == AddressKind::Endpoint as u8;
    !here && guenon_hairpin(client.hi, client.lo) == 0
}

/// A key of `HAIRPINS` behind four bytes that put its address where the verifier lets words be written.
#[repr(C, align(8))]
struct Aligned {
    unused: u32,
    prefix: u32,
    address: Address,
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn guenon_hairpin(hi: u64, lo: u64) -> u64 {
    let key = Aligned { unused: 0, prefix: 128, address: Address { hi, lo } };
    // SAFETY: from `prefix` on, it is laid out as a key is.
    let key = unsafe { &*(&raw const key.prefix).cast::<Key<[u8; 16]>>() };
    maps::HAIRPINS.get(key).is_some_and(|value| *value == HAIRPIN).into()
}
