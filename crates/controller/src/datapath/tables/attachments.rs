//! Which interface counts in which slot of `COUNTERS`, and how its program is attached.

use guenon_ebpf::abi;
use zerocopy::transmute;

use super::next_hops::zero_padded;
use super::store::{Store, Table};

const WORDS: usize = size_of::<abi::Attachment>() / 8;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Not at all.
    None,
    /// In the driver.
    Native,
    /// In the kernel, after the driver: slower.
    Generic,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Slot of `COUNTERS`.
    pub slot: u32,
    /// Name of the interface.
    pub interface: String,
    /// The kernel's index when it was attached last; 0 = not attached now.
    pub ifindex: u32,
    /// How.
    pub mode: Mode,
    /// The program on the way out.
    pub egress: Egress,
}

/// How the program on the way out is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Egress {
    /// It is not.
    #[default]
    None,
    /// By a tcx link (kernel 6.6).
    Tcx,
    /// As a filter of the clsact qdisc.
    Clsact,
}

/// Every interface that has a slot.
pub fn read_attachments(store: &impl Store) -> Vec<Attachment> {
    (0..store.elements(Table::Attachments)).filter_map(|slot| read(store, slot)).collect()
}

/// The slot of an interface, given to it where it has none. `None`: no slot is free.
pub fn attachment_slot(store: &impl Store, interface: &str) -> Option<u32> {
    let known = read_attachments(store);
    if let Some(attachment) = known.iter().find(|attachment| attachment.interface == interface) {
        return Some(attachment.slot);
    }
    if interface.is_empty() || interface.len() > 15 {
        return None;
    }
    let slot = (0..store.elements(Table::Attachments)).find(|slot| read(store, *slot).is_none())?;
    write(store, slot, interface, 0, Mode::None, Egress::None);
    Some(slot)
}

/// Says how an interface is attached now.
pub fn set_attachment(store: &impl Store, attachment: &Attachment) {
    let Attachment { slot, interface, ifindex, mode, egress } = attachment;
    write(store, *slot, interface, *ifindex, *mode, *egress);
}

fn write(store: &impl Store, slot: u32, interface: &str, ifindex: u32, mode: Mode, egress: Egress) {
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().zip(interface.bytes().take(15)) {
        *to = from;
    }
    let mode = match mode {
        Mode::None => 0,
        Mode::Native => 1,
        Mode::Generic => 2,
    };
    let egress = match egress {
        Egress::None => 0,
        Egress::Tcx => 1,
        Egress::Clsact => 2,
    };
    let written = abi::Attachment { interface: name, ifindex, mode, egress, reserved: [0; 10] };
    let words: [u64; WORDS] = transmute!(written);
    // The word that the name begins in says that the slot is taken: last.
    for (word, value) in words.into_iter().enumerate().rev() {
        store.publish(Table::Attachments, slot as usize * WORDS + word, value);
    }
}

fn read(store: &impl Store, slot: u32) -> Option<Attachment> {
    let words: [u64; WORDS] = store.element(Table::Attachments, slot);
    let attachment: abi::Attachment = transmute!(words);
    let mode = match attachment.mode {
        1 => Mode::Native,
        2 => Mode::Generic,
        _ => Mode::None,
    };
    let egress = match attachment.egress {
        1 => Egress::Tcx,
        2 => Egress::Clsact,
        _ => Egress::None,
    };
    Some(Attachment { slot, interface: zero_padded(&attachment.interface)?, ifindex: attachment.ifindex, mode, egress })
}
