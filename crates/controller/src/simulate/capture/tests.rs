use std::io::Write as _;
use std::time::Duration;

use pcap_file::Endianness;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::simple_packet::SimplePacketBlock;
use pcap_file::pcapng::{PcapNgBlock as _, PcapNgWriter};
use rstest::rstest;

use super::*;

/// A pcap file by hand: independent of the library that reads it.
struct Bytes {
    big: bool,
    bytes: Vec<u8>,
}

impl Bytes {
    fn header(big: bool, magic: u32, link: u32) -> Self {
        let mut file = Self { big, bytes: Vec::new() };
        file.long(magic);
        file.bytes.extend(if big { [0, 2, 0, 4] } else { [2, 0, 4, 0] });
        for word in [0, 0, 65_535, link] {
            file.long(word);
        }
        file
    }
    fn long(&mut self, word: u32) {
        self.bytes.extend(if self.big { word.to_be_bytes() } else { word.to_le_bytes() });
    }
    fn packet(mut self, seconds: u32, fraction: u32, original: u32, data: &[u8]) -> Self {
        for word in [seconds, fraction, data.len() as u32, original] {
            self.long(word);
        }
        self.bytes.extend(data);
        self
    }
    fn file(&self) -> tempfile::NamedTempFile {
        file_of(&self.bytes)
    }
}

fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn frames(path: &Path) -> Vec<Frame> {
    let mut capture = Capture::open(path).unwrap();
    std::iter::from_fn(|| capture.next_frame().unwrap()).collect()
}

fn refusal(bytes: &[u8]) -> String {
    Capture::check(file_of(bytes).path()).expect_err("it is refused").to_string()
}

const MICRO: u32 = 0xa1b2_c3d4;
const NANO: u32 = 0xa1b2_3c4d;

#[rstest]
fn both_byte_orders_and_resolutions_are_read(
    #[values(false, true)] big: bool,
    #[values((MICRO, Resolution::MicroSecond), (NANO, Resolution::NanoSecond))] kind: (u32, Resolution),
) {
    let file = Bytes::header(big, kind.0, 1).packet(7, 999_999, 60, &[1; 60]).packet(8, 5, 1514, &[2; 96]).file();
    assert_eq!(Capture::open(file.path()).unwrap().resolution(), kind.1);
    assert_eq!(
        frames(file.path()),
        [
            Frame { number: 1, timestamp: (7, 999_999), data: vec![1; 60], original_length: 60 },
            Frame { number: 2, timestamp: (8, 5), data: vec![2; 96], original_length: 1514 },
        ]
    );
    assert_eq!(Capture::check(file.path()).unwrap(), 2);
}

#[test]
fn a_frame_longer_than_the_header_foretold_is_read_all_the_same() {
    let mut file = Bytes::header(false, MICRO, 1);
    file.bytes[16..20].copy_from_slice(&96u32.to_le_bytes()); // snap length
    let file = file.packet(0, 0, 1514, &[2; 96]).packet(0, 0, 128, &[3; 128]).file();
    assert_eq!(frames(file.path()).len(), 2);
}

#[test]
fn the_length_of_frame_check_sequences_is_no_other_link_type() {
    let file = Bytes::header(false, MICRO, 0x4400_0001 & 0xf000_ffff).packet(0, 0, 64, &[0; 64]).file();
    assert_eq!(frames(file.path()).len(), 1);
}

#[test]
fn next_generation_files_are_read_with_their_times() {
    for (resolution, ticks, expected) in [
        (None, 3_000_005, (3, 5000)),
        (Some(9), 3_000_000_005, (3, 5)),
        (Some(0x80 | 10), 1024 + 512, (1, 500_000_000)),
    ] {
        let mut interface = InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0);
        interface.options.extend(resolution.map(InterfaceDescriptionOption::IfTsResol));
        let mut writer = PcapNgWriter::with_endianness(Vec::new(), Endianness::Big).unwrap();
        writer.write_block(&interface.into_block()).unwrap();
        let packet = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::from_nanos(ticks),
            original_len: 70,
            data: vec![5; 61].into(),
            options: vec![],
        };
        writer.write_block(&packet.into_block()).unwrap();
        let simple = SimplePacketBlock { original_len: 15, data: vec![6; 15].into() };
        writer.write_block(&simple.into_block()).unwrap();
        let file = file_of(&writer.into_inner());
        assert_eq!(
            frames(file.path()),
            [
                Frame { number: 1, timestamp: expected, data: vec![5; 61], original_length: 70 },
                Frame { number: 2, timestamp: (0, 0), data: vec![6; 15], original_length: 15 },
            ]
        );
    }
}

#[test]
fn what_is_written_is_read_back_with_times_and_lengths() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = Writer::create(file.path(), Resolution::NanoSecond).unwrap();
    writer.write((9, 123_456_789), &[7; 100], 0).unwrap();
    writer.write((10, 0), &[8; 60], 40).unwrap();
    writer.finish().unwrap();
    assert_eq!(Capture::open(file.path()).unwrap().resolution(), Resolution::NanoSecond);
    assert_eq!(
        frames(file.path()),
        [
            Frame { number: 1, timestamp: (9, 123_456_789), data: vec![7; 100], original_length: 100 },
            Frame { number: 2, timestamp: (10, 0), data: vec![8; 60], original_length: 100 },
        ]
    );
}

#[rstest]
#[case::another_link_type(Bytes::header(true, MICRO, 101).bytes, "link type 101 (RAW)")]
#[case::linux_cooked(Bytes::header(false, NANO, 113).bytes, "link type 113 (LINUX_SLL)")]
#[case::empty(vec![], "it is empty")]
#[case::text(b"apiVersion: v1".to_vec(), "it begins with the bytes 61706956")]
#[case::compressed(vec![0x1f, 0x8b, 8, 0], "gzip (unpack it first)")]
#[case::header_cut(vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0], "it ends within the file header")]
#[case::next_generation_header_cut(vec![0x0a, 0x0d, 0x0d, 0x0a, 0, 0], "it ends within the file header")]
fn what_is_no_capture_of_ethernet_frames_is_refused(#[case] bytes: Vec<u8>, #[case] expected: &str) {
    let refusal = refusal(&bytes);
    assert!(refusal.contains(expected), "{refusal}");
}

#[test]
fn a_file_that_is_cut_off_is_refused_and_the_packet_is_named() {
    let whole = Bytes::header(false, MICRO, 1).packet(0, 0, 60, &[1; 60]).packet(0, 0, 60, &[2; 60]).bytes;
    for cut in [24 + 76 + 1, 24 + 76 + 15, 24 + 76 + 16, whole.len() - 1] {
        let refusal = refusal(&whole[..cut]);
        assert!(refusal.contains("cut off: it ends within packet 2;"), "cut at {cut}: {refusal}");
    }
    assert!(Capture::check(file_of(&whole[..24 + 76]).path()).is_ok(), "a whole packet less is a whole file");
    assert!(Capture::check(file_of(&whole[..24]).path()).is_ok(), "no packet at all is a whole file");
}

#[test]
fn a_packet_of_impossible_length_is_named() {
    let damaged = Bytes::header(false, MICRO, 1).packet(0, 0, 300_000, &vec![1; 300_000]).bytes;
    assert!(refusal(&damaged).contains("damaged at packet 1: it claims to have 300000 bytes"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Capture::open(Path::new("/nowhere/in.pcap")).err().unwrap();
    assert_eq!(error.to_string(), "cannot open /nowhere/in.pcap");
}
