//! Link headers with their tags, while the head of a frame moves.

use guenon_ebpf::headers::ethernet::{self, Macs};
use guenon_ebpf::packet::Packet;

use crate::frame::Frame;

/// A link header, in registers while the frame's head moves.
pub(crate) struct Link {
    macs: Macs,
    tags: [u32; ethernet::MAX_TAGS],
}

impl Link {
    /// The link header of `len` bytes at the head of a frame.
    #[inline(always)]
    pub(crate) fn read<const FRAGS: bool>(frame: &Frame<FRAGS>, len: usize) -> Option<Self> {
        let macs = Macs::read(frame.bytes(0)?);
        let mut tags = [0; ethernet::MAX_TAGS];
        if len > ethernet::LEN {
            tags[0] = u32::from_le_bytes(*frame.bytes(12)?);
        }
        if len > ethernet::LEN + ethernet::TAG_LEN {
            tags[1] = u32::from_le_bytes(*frame.bytes(16)?);
        }
        Some(Self { macs, tags })
    }

    /// Writes it, and another EtherType behind the tags.
    #[inline(always)]
    pub(crate) fn write<const FRAGS: bool>(self, frame: &mut Frame<FRAGS>, len: usize, ethertype: u16) -> Option<()> {
        self.macs.write::<12>(frame.bytes_mut(0)?);
        let ethertype = ethertype.to_be_bytes();
        if len == ethernet::LEN {
            *frame.bytes_mut(12)? = ethertype;
            return Some(());
        }
        *frame.bytes_mut(12)? = self.tags[0].to_le_bytes();
        if len == ethernet::LEN + ethernet::TAG_LEN {
            *frame.bytes_mut(16)? = ethertype;
            return Some(());
        }
        *frame.bytes_mut(16)? = self.tags[1].to_le_bytes();
        *frame.bytes_mut(20)? = ethertype;
        Some(())
    }

    /// The same with the MACs of the way back.
    #[inline(always)]
    pub(crate) fn reversed(self) -> Self {
        Self { macs: self.macs.reversed(), tags: self.tags }
    }

    /// Its MACs.
    #[inline(always)]
    pub(crate) fn macs(&self) -> Macs {
        self.macs
    }
}
