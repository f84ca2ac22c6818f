//! pcapng (draft-ietf-opsawg-pcapng).

use std::borrow::Cow;
use std::fs::File;

use pcap_file::pcapng::Block;
use pcap_file::pcapng::PcapNgReader;
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::{Endianness, PcapError};

use super::{Frame, LONGEST, Stop, is_ethernet};

const NANOS: u128 = 1_000_000_000;

pub(super) struct NextGeneration(PcapNgReader<File>);

/// What the three kinds of packet blocks tell.
struct Packet {
    interface: u32,
    /// In units of the interface's `if_tsresol`; none in a simple packet block.
    ticks: Option<u64>,
    original_length: u32,
    data: Vec<u8>,
}

impl NextGeneration {
    pub(super) fn new(file: File) -> Result<Self, Stop> {
        Ok(Self(PcapNgReader::new(file)?))
    }

    pub(super) fn next_frame(&mut self, number: usize) -> Result<Option<Frame>, Stop> {
        let packet = loop {
            let is_little = self.0.section().endianness == Endianness::Little;
            let Some(block) = self.0.next_block() else { return Ok(None) };
            if let Some(packet) = packet_of(block?, is_little) {
                break packet;
            }
        };
        let Packet { interface, ticks, original_length, mut data } = packet;
        let interface = usize::try_from(interface)
            .ok()
            .and_then(|index| self.0.interfaces().get(index))
            .ok_or(PcapError::InvalidInterfaceId(interface))?;
        if !is_ethernet(interface.linktype) {
            return Err(Stop::LinkType(interface.linktype));
        }
        if ticks.is_none() {
            // A simple packet block does not say how much was captured, and is padded to four bytes.
            let snap_length = if interface.snaplen == 0 { u32::MAX } else { interface.snaplen };
            data.truncate(original_length.min(snap_length) as usize);
        }
        if data.len() > LONGEST as usize {
            return Err(Stop::Damaged(format!("it claims to have {} bytes", data.len())));
        }
        let nanoseconds = nanoseconds(interface, ticks.unwrap_or(0));
        let seconds = u32::try_from(nanoseconds / NANOS)
            .map_err(|_| Stop::Damaged("its time is after the year 2106, which pcap cannot say".to_owned()))?;
        Ok(Some(Frame {
            number,
            timestamp: (seconds, (nanoseconds % NANOS) as u32),
            original_length: original_length.max(data.len() as u32),
            data,
        }))
    }
}

fn packet_of(block: Block<'_>, is_little: bool) -> Option<Packet> {
    match block {
        Block::EnhancedPacket(packet) => Some(Packet {
            interface: packet.interface_id,
            // The library takes ticks for nanoseconds, whatever the interface says.
            ticks: Some(packet.timestamp.as_nanos() as u64),
            original_length: packet.original_len,
            data: Cow::into_owned(packet.data),
        }),
        Block::SimplePacket(packet) => Some(Packet {
            interface: 0,
            ticks: None,
            original_length: packet.original_len,
            data: Cow::into_owned(packet.data),
        }),
        Block::Packet(packet) => Some(Packet {
            interface: u32::from(packet.interface_id),
            // Two words, high one first, which the library reads as one.
            ticks: Some(if is_little { packet.timestamp.rotate_left(32) } else { packet.timestamp }),
            original_length: packet.original_len,
            data: Cow::into_owned(packet.data),
        }),
        Block::SectionHeader(_)
        | Block::InterfaceDescription(_)
        | Block::NameResolution(_)
        | Block::InterfaceStatistics(_)
        | Block::SystemdJournalExport(_)
        | Block::Unknown(_) => None,
    }
}

/// Ticks of this interface as nanoseconds since the Unix epoch.
fn nanoseconds(interface: &InterfaceDescriptionBlock<'_>, ticks: u64) -> u128 {
    let (mut resolution, mut offset) = (6, 0); // microseconds, from the epoch
    for option in &interface.options {
        if let InterfaceDescriptionOption::IfTsResol(value) = option {
            resolution = *value;
        } else if let InterfaceDescriptionOption::IfTsOffset(value) = option {
            offset = *value;
        }
    }
    let exponent = u32::from(resolution & 0x7f);
    let per_second = if resolution & 0x80 == 0 { 10_u128.checked_pow(exponent) } else { 1_u128.checked_shl(exponent) };
    let ticks = u128::from(ticks);
    let since_offset = match per_second {
        Some(per_second) => ticks / per_second * NANOS + ticks % per_second * NANOS / per_second,
        None => 0,
    };
    since_offset + u128::from(offset) * NANOS
}
