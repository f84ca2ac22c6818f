//! The classic pcap format (draft-ietf-opsawg-pcap).

use std::fs::File;

use pcap_file::pcap::PcapReader;

use super::{Frame, LONGEST, Resolution, Stop, is_ethernet};

pub(super) struct Classic(PcapReader<File>);

impl Classic {
    pub(super) fn new(file: File) -> Result<Self, Stop> {
        let reader = PcapReader::new(file)?;
        let link = reader.header().datalink;
        if is_ethernet(link) { Ok(Self(reader)) } else { Err(Stop::LinkType(link)) }
    }

    pub(super) fn resolution(&self) -> Resolution {
        self.0.header().ts_resolution
    }

    pub(super) fn next_frame(&mut self, number: usize) -> Result<Option<Frame>, Stop> {
        // Raw: the library refuses frames longer than the snap length of the header, which is what a snap length is for.
        let Some(packet) = self.0.next_raw_packet() else { return Ok(None) };
        let packet = packet?;
        if packet.incl_len > LONGEST {
            return Err(Stop::Damaged(format!("it claims to have {} bytes", packet.incl_len)));
        }
        Ok(Some(Frame {
            number,
            timestamp: (packet.ts_sec, packet.ts_frac),
            original_length: packet.orig_len.max(packet.incl_len),
            data: packet.data.into_owned(),
        }))
    }
}
