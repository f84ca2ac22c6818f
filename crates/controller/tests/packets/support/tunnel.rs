//! Tunnel packets: what a director must send, byte for byte, and what a decap node is sent. Written with etherparse's
//! headers from the drafts and the ABI's words, not with the code under test.

use std::net::IpAddr;

use etherparse::{IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, UdpHeader};

/// A GUE packet around an inner IP packet; ordinary until a test says otherwise.
#[derive(Clone, Debug)]
pub struct Tunnel {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
    pub inner: Vec<u8>,
    /// GUE private data.
    pub private: Vec<u8>,
    /// Version, control bit and flags of the GUE header, or'ed into it.
    pub first_byte: u8,
    pub flags: u16,
    /// `hlen` in place of the private data's length.
    pub header_words: Option<u8>,
    /// GUE protocol in place of the inner packet's.
    pub protocol: Option<u8>,
    pub dscp: u8,
    pub ecn: u8,
    pub hop_limit: u8,
    pub flow_label: u32,
    pub checksum: bool,
    /// IPv4 fragment: more follow.
    pub more_fragments: bool,
    pub fragment_offset: u16,
    /// In place of the true UDP length.
    pub udp_length: Option<u16>,
    pub options: Vec<u8>,
}

impl Tunnel {
    pub fn new(source: IpAddr, destination: IpAddr, inner: Vec<u8>) -> Self {
        Self {
            source,
            destination,
            source_port: 0xc123,
            destination_port: 6080,
            inner,
            private: Vec::new(),
            first_byte: 0,
            flags: 0,
            header_words: None,
            protocol: None,
            dscp: 0,
            ecn: 0,
            hop_limit: 64,
            flow_label: 0,
            checksum: false,
            more_fragments: false,
            fragment_offset: 0,
            udp_length: None,
            options: Vec::new(),
        }
    }

    /// Names this endpoint in the private data.
    pub fn naming(mut self, endpoint: IpAddr) -> Self {
        let tunnel_is_6 = self.destination.is_ipv6();
        self.private = private_data(endpoint, tunnel_is_6);
        self
    }

    /// Changes it by hand.
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The IP packet.
    pub fn ip(&self) -> Vec<u8> {
        let words = self.header_words.unwrap_or((self.private.len() / 4) as u8);
        let inner_protocol = match self.inner.first().map(|byte| byte >> 4) {
            Some(6) => IpNumber::IPV6.0,
            _ => IpNumber::IPV4.0,
        };
        let mut gue = vec![self.first_byte | words, self.protocol.unwrap_or(inner_protocol)];
        gue.extend_from_slice(&self.flags.to_be_bytes());
        gue.extend_from_slice(&self.private);
        gue.extend_from_slice(&self.inner);

        let mut udp =
            UdpHeader::without_ipv4_checksum(self.source_port, self.destination_port, gue.len()).expect("fits");
        udp.length = self.udp_length.unwrap_or(udp.length);
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                if self.checksum {
                    udp.checksum =
                        udp.calc_checksum_ipv4_raw(source.octets(), destination.octets(), &gue).expect("fits");
                }
                let mut ip = Ipv4Header::new(0, self.hop_limit, IpNumber::UDP, source.octets(), destination.octets())
                    .expect("an empty payload fits");
                ip.options = self.options[..].try_into().expect("options of a valid length");
                ip.set_payload_len(8 + gue.len()).expect("fits");
                ip.identification = 0;
                ip.dont_fragment = !self.more_fragments && self.fragment_offset == 0;
                ip.more_fragments = self.more_fragments;
                ip.fragment_offset = IpFragOffset::try_new(self.fragment_offset).expect("13 bits");
                ip.dscp = IpDscp::try_new(self.dscp).expect("six bits");
                ip.ecn = IpEcn::try_new(self.ecn).expect("two bits");
                ip.header_checksum = ip.calc_header_checksum();
                [&ip.to_bytes()[..], &udp.to_bytes(), &gue].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                if self.checksum {
                    udp.checksum =
                        udp.calc_checksum_ipv6_raw(source.octets(), destination.octets(), &gue).expect("fits");
                }
                let ip = Ipv6Header {
                    traffic_class: self.dscp << 2 | self.ecn,
                    flow_label: Ipv6FlowLabel::try_new(self.flow_label).expect("20 bits"),
                    payload_length: u16::try_from(8 + gue.len()).expect("fits"),
                    next_header: IpNumber::UDP,
                    hop_limit: self.hop_limit,
                    source: source.octets(),
                    destination: destination.octets(),
                };
                [&ip.to_bytes()[..], &udp.to_bytes(), &gue].concat()
            }
            _ => panic!("source and destination of one family"),
        }
    }
}

/// The private data that names one endpoint (the design's section 5): type 1, no alternatives tried, none named,
/// flags, address.
pub fn private_data(endpoint: IpAddr, tunnel_is_6: bool) -> Vec<u8> {
    let flags = u8::from(endpoint.is_ipv6()) | u8::from(tunnel_is_6) << 1;
    let mut bytes = vec![1, 0, 0, flags];
    match endpoint {
        IpAddr::V4(address) => bytes.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes.extend_from_slice(&address.octets()),
    }
    bytes
}
