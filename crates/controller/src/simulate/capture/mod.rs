//! Captured frames in and out: pcap (both byte orders, micro- and nanoseconds) and pcapng are read, pcap is written.

mod classic;
mod next_generation;
#[cfg(test)]
mod tests;
mod write;

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use pcap_file::{DataLink, PcapError};

pub use pcap_file::TsResolution as Resolution;
pub use write::Writer;

use classic::Classic;
use next_generation::NextGeneration;

/// The longest frame that libpcap allows (`MAXIMUM_SNAPLEN`): a file that tells of a longer one is damaged.
const LONGEST: u32 = 262_144;

/// A frame as it was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its number in the file, from 1.
    pub number: usize,
    /// When it was captured: seconds, and the fraction in units of [`Capture::resolution`].
    pub timestamp: (u32, u32),
    /// What was captured of it, from the Ethernet header on.
    pub data: Vec<u8>,
    /// Its length on the wire, bytes; more than `data` where the capture cut it (`tcpdump -s`).
    pub original_length: u32,
}

/// Why a file of captured frames is refused.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The operating system refuses.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is something else.
    #[error("{} is no capture: {why}; a capture is what `tcpdump -w FILE` writes (pcap or pcapng)", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        why: String,
    },
    /// It holds no Ethernet frames.
    #[error(
        "{} holds packets of link type {}, but the program takes Ethernet frames (link type 1); capture on an \
         Ethernet device, not on `any`, a tunnel or Wi-Fi in monitor mode",
        path.display(), link_type(*found)
    )]
    LinkType {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: DataLink,
    },
    /// It ends too early.
    #[error(
        "{} is cut off: it ends within packet {packet}; copy it again, or make it whole with `tcpdump -r {} -w NEW`, \
         which keeps the packets before",
        path.display(), path.display()
    )]
    CutOff {
        /// The file.
        path: PathBuf,
        /// The packet, from 1.
        packet: usize,
    },
    /// It contradicts itself.
    #[error("{} is damaged at packet {packet}: {why}; capture or copy it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The packet, from 1.
        packet: usize,
        /// The contradiction.
        why: String,
    },
}

/// A file of captured frames, read from its start.
pub struct Capture {
    path: PathBuf,
    reader: Format,
    read: usize,
}

enum Format {
    Classic(Classic),
    NextGeneration(NextGeneration),
}

/// What ends reading, not yet told of whom.
#[derive(Debug)]
enum Stop {
    Pcap(PcapError),
    LinkType(DataLink),
    Damaged(String),
}

impl Stop {
    /// Whether the file ended where more was to come.
    fn is_end(&self) -> bool {
        match self {
            Self::Pcap(PcapError::IoError(error)) => error.kind() == io::ErrorKind::UnexpectedEof,
            Self::Pcap(error) => matches!(error, PcapError::IncompleteBuffer),
            Self::LinkType(_) | Self::Damaged(_) => false,
        }
    }
}

impl From<PcapError> for Stop {
    fn from(error: PcapError) -> Self {
        Self::Pcap(error)
    }
}

impl Capture {
    /// Opens a capture.
    ///
    /// # Errors
    ///
    /// It cannot be read, is no capture, or holds something else than Ethernet frames.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let io_error = |what| move |source| CaptureError::Io { what, path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io_error("open"))?;
        let mut magic = Vec::new();
        file.by_ref().take(4).read_to_end(&mut magic).map_err(io_error("read"))?;
        file.rewind().map_err(io_error("read"))?;
        let reader = match *magic.as_slice() {
            [0x0a, 0x0d, 0x0d, 0x0a] => NextGeneration::new(file).map(Format::NextGeneration),
            [0xa1, 0xb2, 0xc3, 0xd4]
            | [0xd4, 0xc3, 0xb2, 0xa1]
            | [0xa1, 0xb2, 0x3c, 0x4d]
            | [0x4d, 0x3c, 0xb2, 0xa1] => Classic::new(file).map(Format::Classic),
            _ => return Err(CaptureError::Format { path: path.to_owned(), why: looks_like(&magic) }),
        };
        let reader = reader.map_err(|stop| {
            if stop.is_end() {
                CaptureError::Format { path: path.to_owned(), why: "it ends within the file header".to_owned() }
            } else {
                told(path, 0, stop)
            }
        })?;
        Ok(Self { path: path.to_owned(), reader, read: 0 })
    }

    /// Reads a whole capture, to find out whether it is sound: how many frames it has.
    ///
    /// # Errors
    ///
    /// As for [`Self::open`], or it is cut off or damaged.
    pub fn check(path: &Path) -> Result<usize, CaptureError> {
        let mut capture = Self::open(path)?;
        while capture.next_frame()?.is_some() {}
        Ok(capture.read)
    }

    /// The unit of fractions of seconds.
    #[must_use]
    pub fn resolution(&self) -> Resolution {
        match &self.reader {
            Format::Classic(reader) => reader.resolution(),
            Format::NextGeneration(_) => Resolution::NanoSecond,
        }
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    ///
    /// The file is cut off or damaged there, or goes on with another link type.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, CaptureError> {
        let number = self.read + 1;
        let frame = match &mut self.reader {
            Format::Classic(reader) => reader.next_frame(number),
            Format::NextGeneration(reader) => reader.next_frame(number),
        };
        let frame = frame.map_err(|stop| told(&self.path, number, stop))?;
        self.read += usize::from(frame.is_some());
        Ok(frame)
    }
}

fn told(path: &Path, packet: usize, stop: Stop) -> CaptureError {
    let path = path.to_owned();
    if stop.is_end() {
        return CaptureError::CutOff { path, packet };
    }
    match stop {
        Stop::LinkType(found) => CaptureError::LinkType { path, found },
        Stop::Damaged(why) => CaptureError::Damaged { path, packet, why },
        Stop::Pcap(PcapError::IoError(source)) => CaptureError::Io { what: "read", path, source },
        Stop::Pcap(PcapError::IncompleteBuffer) => CaptureError::CutOff { path, packet },
        Stop::Pcap(PcapError::InvalidField(why)) => CaptureError::Damaged { path, packet, why: why.to_owned() },
        Stop::Pcap(PcapError::InvalidInterfaceId(id)) => CaptureError::Damaged {
            path,
            packet,
            why: format!("it names interface {id}, which the file does not have"),
        },
        Stop::Pcap(PcapError::Utf8Error(_) | PcapError::FromUtf8Error(_)) => {
            CaptureError::Damaged { path, packet, why: "a text in it is not UTF-8".to_owned() }
        }
    }
}

fn looks_like(magic: &[u8]) -> String {
    match magic {
        [] => "it is empty".to_owned(),
        [0x1f, 0x8b, ..] => "it is compressed with gzip (unpack it first)".to_owned(),
        [0x28, 0xb5, 0x2f, 0xfd] => "it is compressed with zstd (unpack it first)".to_owned(),
        [0xa1, 0xb2, 0xcd, 0x34] | [0x34, 0xcd, 0xb2, 0xa1] => {
            "it is of a variant of pcap (Kuznetzov's) that is not understood".to_owned()
        }
        _ => format!("it begins with the bytes {}", super::hex(magic)),
    }
}

/// The number of a link type with its name.
fn link_type(link: DataLink) -> String {
    format!("{} ({link:?})", u32::from(link))
}

/// The link type without what a header may say beside it (length of the frame check sequence).
fn is_ethernet(link: DataLink) -> bool {
    u32::from(link) & 0x0fff_ffff == u32::from(DataLink::ETHERNET)
}
