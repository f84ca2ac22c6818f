//! IP packets to send: every field has an ordinary value until a test says otherwise. All headers and checksums are
//! etherparse's.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header,
    Ipv6FlowLabel, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, TcpHeader, UdpHeader,
};

/// What follows the IP header.
#[derive(Clone, Debug, PartialEq)]
pub enum Upper {
    /// TCP with these ports; SYN, or ACK with options.
    Tcp { source: u16, destination: u16, syn: bool },
    /// UDP with these ports.
    Udp { source: u16, destination: u16 },
    /// ICMP of the packet's family.
    Icmp { kind: u8, code: u8, rest: [u8; 4] },
    /// Any other protocol: the payload alone.
    Other(u8),
}

/// An IPv6 extension header: its number and the bytes after the first two (6 + 8n).
#[derive(Clone, Debug, PartialEq)]
pub struct Extension(pub u8, pub Vec<u8>);

pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const DESTINATION_OPTIONS: u8 = 60;

/// Which part of a datagram a packet is: offset in bytes, and whether more follow.
pub type Fragment = (u16, bool);

/// An IP packet to build.
#[derive(Clone, Debug)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub upper: Upper,
    pub payload: Vec<u8>,
    pub dscp: u8,
    pub ecn: u8,
    pub df: bool,
    pub id: u32,
    pub hop_limit: u8,
    pub options: Vec<u8>,
    pub extensions: Vec<Extension>,
}

impl Packet {
    pub fn new(source: IpAddr, destination: IpAddr, upper: Upper) -> Self {
        Self {
            source,
            destination,
            upper,
            payload: b"the quick brown fox jumps over the lazy dog".to_vec(),
            dscp: 0,
            ecn: 0,
            df: true,
            id: 0x1234,
            hop_limit: 57,
            options: Vec::new(),
            extensions: Vec::new(),
        }
    }

    pub fn tcp(source: SocketAddr, destination: SocketAddr) -> Self {
        let upper = Upper::Tcp { source: source.port(), destination: destination.port(), syn: false };
        Self::new(source.ip(), destination.ip(), upper)
    }

    pub fn udp(source: SocketAddr, destination: SocketAddr) -> Self {
        let upper = Upper::Udp { source: source.port(), destination: destination.port() };
        Self::new(source.ip(), destination.ip(), upper)
    }

    /// An ICMP message whose payload is everything after its first eight bytes.
    pub fn icmp(source: IpAddr, destination: IpAddr, kind: u8, code: u8, rest: [u8; 4]) -> Self {
        Self::new(source, destination, Upper::Icmp { kind, code, rest })
    }

    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }

    pub fn syn(mut self) -> Self {
        if let Upper::Tcp { syn, .. } = &mut self.upper {
            *syn = true;
        }
        self.payload.clear();
        self
    }

    pub fn traffic_class(mut self, dscp: u8, ecn: u8) -> Self {
        (self.dscp, self.ecn) = (dscp, ecn);
        self
    }

    pub fn df(mut self, df: bool) -> Self {
        self.df = df;
        self
    }

    pub fn id(mut self, id: u32) -> Self {
        self.id = id;
        self
    }

    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    pub fn extension(mut self, number: u8, bytes_after_length: &[u8]) -> Self {
        self.extensions.push(Extension(number, bytes_after_length.to_vec()));
        self
    }

    /// A payload that makes the whole IP packet this long.
    pub fn total_length(mut self, length: usize) -> Self {
        self.payload.clear();
        let bare = self.ip().len();
        self.payload = (0..length.checked_sub(bare).expect("longer than the headers")).map(|i| i as u8).collect();
        self
    }

    /// The IP packet.
    pub fn ip(&self) -> Vec<u8> {
        self.part(&self.upper(), None)
    }

    /// The datagram in two fragments, the first with `first` bytes after the IP header (a multiple of eight).
    pub fn fragments(&self, first: usize) -> [Vec<u8>; 2] {
        let upper = self.upper();
        assert!(first.is_multiple_of(8) && first < upper.len(), "a fragment boundary of {first} in {}", upper.len());
        let [head, tail] = [&upper[..first], &upper[first..]];
        [self.part(head, Some((0, true))), self.part(tail, Some((first as u16, false)))]
    }

    /// An IP packet with these bytes after the IP headers, as this part of its datagram.
    pub fn part(&self, upper: &[u8], fragment: Option<Fragment>) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header =
                    Ipv4Header::new(0, self.hop_limit, self.protocol(), source.octets(), destination.octets())
                        .expect("an empty payload fits");
                header.options = self.options[..].try_into().expect("options of a valid length");
                header.set_payload_len(upper.len()).expect("fits in 16 bits");
                header.dscp = IpDscp::try_new(self.dscp).expect("six bits");
                header.ecn = IpEcn::try_new(self.ecn).expect("two bits");
                header.identification = self.id as u16;
                header.dont_fragment = self.df && fragment.is_none();
                if let Some((offset, more)) = fragment {
                    header.more_fragments = more;
                    header.fragment_offset = offset_units(offset);
                }
                header.header_checksum = header.calc_header_checksum();
                [&header.to_bytes(), upper].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let body = [self.extension_headers(fragment), upper.to_vec()].concat();
                let mut header = Ipv6Header {
                    traffic_class: self.dscp << 2 | self.ecn,
                    flow_label: Ipv6FlowLabel::try_new(0x0_beef).expect("20 bits"),
                    payload_length: u16::try_from(body.len()).expect("fits in 16 bits"),
                    next_header: self.protocol(),
                    hop_limit: self.hop_limit,
                    source: source.octets(),
                    destination: destination.octets(),
                };
                if fragment.is_some() {
                    header.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
                }
                if let Some(Extension(number, _)) = self.extensions.first() {
                    header.next_header = IpNumber(*number);
                }
                [&header.to_bytes()[..], &body].concat()
            }
            _ => panic!("source and destination of one family"),
        }
    }

    /// The L4 header with its checksum, and the payload.
    pub fn upper(&self) -> Vec<u8> {
        let header = match self.upper {
            Upper::Tcp { source, destination, syn } => self.tcp_header(source, destination, syn),
            Upper::Udp { source, destination } => self.udp_header(source, destination),
            Upper::Icmp { kind, code, rest } => self.icmp_header(kind, code, rest),
            Upper::Other(_) => Vec::new(),
        };
        [header, self.payload.clone()].concat()
    }

    fn tcp_header(&self, source: u16, destination: u16, syn: bool) -> Vec<u8> {
        let mut header = TcpHeader::new(source, destination, 0x0102_0304, 4096);
        header.syn = syn;
        header.ack = !syn;
        // MSS and SACK in a SYN, timestamps in others.
        let options: &[u8] = if syn { &[2, 4, 5, 0xb4, 1, 1, 4, 2] } else { &[1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 7] };
        header.set_options_raw(options).expect("options fit");
        header.checksum = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), &self.payload)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                header.calc_checksum_ipv6_raw(source.octets(), destination.octets(), &self.payload)
            }
            _ => panic!("source and destination of one family"),
        }
        .expect("fits");
        header.to_bytes().to_vec()
    }

    fn udp_header(&self, source: u16, destination: u16) -> Vec<u8> {
        let mut header =
            UdpHeader::without_ipv4_checksum(source, destination, self.payload.len()).expect("fits in 16 bits");
        header.checksum = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), &self.payload)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                header.calc_checksum_ipv6_raw(source.octets(), destination.octets(), &self.payload)
            }
            _ => panic!("source and destination of one family"),
        }
        .expect("fits");
        header.to_bytes().to_vec()
    }

    fn icmp_header(&self, kind: u8, code: u8, rest: [u8; 4]) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) => {
                let kind = Icmpv4Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
                Icmpv4Header::with_checksum(kind, &self.payload).to_bytes().to_vec()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let kind = Icmpv6Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
                Icmpv6Header::with_checksum(kind, source.octets(), destination.octets(), &self.payload)
                    .expect("fits")
                    .to_bytes()
                    .to_vec()
            }
            _ => panic!("source and destination of one family"),
        }
    }

    fn extension_headers(&self, fragment: Option<Fragment>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (index, Extension(_, body)) in self.extensions.iter().enumerate() {
            let next = match self.extensions.get(index + 1) {
                Some(Extension(number, _)) => IpNumber(*number),
                None if fragment.is_some() => IpNumber::IPV6_FRAGMENTATION_HEADER,
                None => self.protocol(),
            };
            let header = Ipv6RawExtHeader::new_raw(next, body).expect("6 + 8n bytes");
            bytes.extend_from_slice(&header.to_bytes());
        }
        if let Some((offset, more)) = fragment {
            let header = Ipv6FragmentHeader {
                next_header: self.protocol(),
                fragment_offset: offset_units(offset),
                more_fragments: more,
                identification: self.id,
            };
            bytes.extend_from_slice(&header.to_bytes());
        }
        bytes
    }

    fn protocol(&self) -> IpNumber {
        match self.upper {
            Upper::Tcp { .. } => IpNumber::TCP,
            Upper::Udp { .. } => IpNumber::UDP,
            Upper::Icmp { .. } if self.source.is_ipv4() => IpNumber::ICMP,
            Upper::Icmp { .. } => IpNumber::IPV6_ICMP,
            Upper::Other(number) => IpNumber(number),
        }
    }
}

fn offset_units(bytes: u16) -> IpFragOffset {
    assert!(bytes.is_multiple_of(8), "offsets count eight bytes");
    IpFragOffset::try_new(bytes / 8).expect("13 bits")
}
