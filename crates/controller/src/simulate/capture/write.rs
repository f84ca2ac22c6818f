use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use pcap_file::pcap::{PcapHeader, PcapWriter, RawPcapPacket};
use pcap_file::{DataLink, Endianness, PcapError};

use super::{CaptureError, LONGEST, Resolution};

/// Writes a pcap file of Ethernet frames.
pub struct Writer {
    path: PathBuf,
    writer: PcapWriter<BufWriter<File>>,
}

impl Writer {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn create(path: &Path, resolution: Resolution) -> Result<Self, CaptureError> {
        let failed = |source| CaptureError::Io { what: "create", path: path.to_owned(), source };
        let file = BufWriter::new(File::create(path).map_err(failed)?);
        let header = PcapHeader {
            snaplen: LONGEST,
            datalink: DataLink::ETHERNET,
            ts_resolution: resolution,
            endianness: Endianness::native(),
            ..PcapHeader::default()
        };
        let writer = PcapWriter::with_header(file, header).map_err(|error| failed(io_error(error)))?;
        Ok(Self { path: path.to_owned(), writer })
    }

    /// Appends a frame: the seconds and fraction at which it shall be shown, its bytes, and how many more bytes the
    /// capture that it was made of had cut off.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn write(&mut self, timestamp: (u32, u32), frame: &[u8], missing: u32) -> Result<(), CaptureError> {
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let packet = RawPcapPacket {
            ts_sec: timestamp.0,
            ts_frac: timestamp.1,
            incl_len: length,
            orig_len: length.saturating_add(missing),
            data: frame.into(),
        };
        self.writer.write_raw_packet(&packet).map(drop).map_err(|error| self.failed(io_error(error)))
    }

    /// Writes out what is still in memory.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn finish(self) -> Result<(), CaptureError> {
        let Self { path, writer } = self;
        writer.into_writer().flush().map_err(|source| CaptureError::Io { what: "write", path, source })
    }

    fn failed(&self, source: io::Error) -> CaptureError {
        CaptureError::Io { what: "write", path: self.path.clone(), source }
    }
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        PcapError::IncompleteBuffer
        | PcapError::InvalidField(_)
        | PcapError::Utf8Error(_)
        | PcapError::FromUtf8Error(_)
        | PcapError::InvalidInterfaceId(_) => io::Error::other(error.to_string()),
    }
}
