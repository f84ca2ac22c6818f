//! Why packets are dropped. One enum shared by both sides; metrics, `guenon status` and the docs are made of it.
//!
//! A number is never reused: it is API.

/// The role in which a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// On its way to an endpoint's node.
    Director,
    /// On its way out of the tunnel.
    Decap,
    /// In either.
    Both,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $stage:ident,
        cause: $cause:literal, cure: $cure:literal;)+) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $cause] $variant = $number,)+
        }

        impl DropReason {
            /// Every reason, in order of number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in metrics, `simulate` and docs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
            /// What has happened, in a sentence.
            #[must_use]
            pub const fn cause(self) -> &'static str {
                match self { $(Self::$variant => $cause,)+ }
            }
            /// What to do about it, in a sentence.
            #[must_use]
            pub const fn cure(self) -> &'static str {
                match self { $(Self::$variant => $cure,)+ }
            }
            /// The role in which it occurs.
            #[must_use]
            pub const fn stage(self) -> Stage {
                match self { $(Self::$variant => Stage::$stage,)+ }
            }
            /// The reason with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

reasons! {
    Truncated = 1, "truncated", Both,
        cause: "An IP packet for a VIP says that it is longer than the frame that carries it, or its headers do not fit.",
        cure: "Look for a broken sender or a device that cuts frames: compare `ethtool -S` on both ends of the link, and capture there.";
    BadHeader = 2, "bad_header", Both,
        cause: "A header of a packet for a VIP contradicts itself (version, header length, total length, TCP offset or UDP length).",
        cure: "Capture at the client's side; if it is right there, a device on the way spoils it.";
    NoFrontend = 3, "no_frontend", Both,
        cause: "The packet is for a VIP, but no frontend has its protocol and port (or ICMP type).",
        cure: "Add the port to the VirtualService, or stop what dials it; scans of a public VIP show up here too.";
    NoBackend = 4, "no_backend", Director,
        cause: "The frontend's service has no endpoint that takes new flows.",
        cure: "Look at the service's endpoints (`guenon status endpoints`): none is ready, all have weight 0, or its reference does not resolve.";
    NoRoute = 5, "no_route", Both,
        cause: "This node has no route to the tunnel address of the endpoint that the row names, or a packet that was translated for a pod of this node (delivery Nat) would have left by an uplink: that pod is gone.",
        cure: "Add a route to that address (`guenon status endpoints` names it; `ip route get ADDRESS`); for a pod that is gone this ends when Kubernetes tells of it.";
    NoNeighbour = 6, "no_neighbour", Both,
        cause: "The MAC of the next hop, or of the endpoint behind a veth, is not known: nobody answers for it.",
        cure: "See `ip neigh`: is the gateway, node or endpoint up, and does it answer ARP or neighbour discovery?";
    NoHeadroom = 7, "no_headroom", Director,
        cause: "The driver left no room in front of the frame for the outer header.",
        cure: "Use native XDP with a driver that leaves 256 bytes, or raise the headroom; say so in a bug report with the driver's name.";
    TooBig = 8, "too_big", Director,
        cause: "The packet does not fit the path MTU after encapsulation, and the answer that says so was not sent: more such packets came than may be answered.",
        cure: "Raise the MTU between director and decap nodes by 52 bytes or more, or clamp the MSS; see docs/troubleshooting.md.";
    TooBigNoDf = 9, "too_big_no_df", Director,
        cause: "An IPv4 packet without DF does not fit the path MTU after encapsulation; directors do not fragment.",
        cure: "Raise the MTU between director and decap nodes, or make clients set DF (path MTU discovery).";
    FragmentLost = 10, "fragment_lost", Director,
        cause: "A fragment after the first came before its first one, or long after it, so its flow is not known.",
        cure: "Make the sender use smaller datagrams; fragments that overtake each other on the way cannot be followed.";
    FragmentBad = 11, "fragment_bad", Both,
        cause: "The first fragment of a datagram for a VIP is too short to hold its ports.",
        cure: "Nothing honest sends this; find the sender by its source address.";
    IcmpQuote = 12, "icmp_quote", Director,
        cause: "An ICMP error came for a VIP, but the packet it quotes is not one that the VIP sent, or is cut too short.",
        cure: "Usually forged or from a broken router; capture it and look at the quoted header.";
    UnknownDirector = 13, "unknown_director", Decap,
        cause: "A GUE packet came from an address that is no director's.",
        cure: "If it is one of yours, add its Node, or `--director ADDR` here; if not, somebody tries to inject packets.";
    GueVersion = 14, "gue_version", Decap,
        cause: "The GUE header has a variant other than 0.",
        cure: "The sender speaks another dialect: only variant 0 is understood.";
    GueControl = 15, "gue_control", Decap,
        cause: "The GUE header has its control bit set.",
        cure: "Control messages are not understood; find the sender.";
    GueFlags = 16, "gue_flags", Decap,
        cause: "The GUE header has flags set that are not understood.",
        cure: "Switch off GUE options (security, checksum, remote checksum) on the sender.";
    GueLength = 17, "gue_length", Decap,
        cause: "The GUE header's length does not fit its UDP datagram, or that datagram its IP packet.",
        cure: "Capture on both ends: the sender, or something between, spoils tunnel packets.";
    GueProtocol = 18, "gue_protocol", Decap,
        cause: "The GUE payload is neither IPv4 nor IPv6, or not what the header says.",
        cure: "The sender puts something else into the tunnel; find it by the outer source.";
    PrivateType = 19, "private_type", Decap,
        cause: "The GUE private data has a type that is not known.",
        cure: "The director runs a newer Guenon than this node, or is none: upgrade this node first.";
    PrivateCount = 20, "private_count", Decap,
        cause: "The GUE private data does not hold as many addresses as it says.",
        cure: "As for gue_length: something spoils tunnel packets.";
    NotOurEndpoint = 21, "not_our_endpoint", Decap,
        cause: "The endpoint that the packet names is not on this node.",
        cure: "The director's view is stale, or this node's: compare revisions (`guenon status`) and the endpoint's node.";
    InnerNotVip = 22, "inner_not_vip", Decap,
        cause: "The inner packet is for an address that is no VIP here.",
        cure: "The director knows a VirtualService that this node does not: compare revisions, see this node's problems.";
    InnerMalformed = 23, "inner_malformed", Decap,
        cause: "The inner packet's headers contradict themselves or do not fit the tunnel packet.",
        cure: "Capture on the director's side of the tunnel and compare.";
    CongestionLost = 24, "ecn", Decap,
        cause: "A router marked congestion on the tunnel packet, and the inner packet cannot carry the mark (RFC 6040).",
        cure: "The path is congested; relieve it, or let endpoints and clients negotiate ECN.";
    OuterFragment = 25, "outer_fragment", Decap,
        cause: "A tunnel packet came in fragments.",
        cure: "Directors always set DF; something on the way fragments all the same, or the sender is another tunnel's end.";
    NoDelivery = 26, "no_delivery", Both,
        cause: "The endpoint is on this node, but there is no way to hand packets to it.",
        cure: "See `guenon status endpoints`: its veth is gone, or its delivery is one that this version does not have.";
    TooBigForEndpoint = 27, "too_big_for_endpoint", Both,
        cause: "The inner packet is larger than the MTU of the endpoint's device.",
        cure: "Give the endpoint's veth the MTU that clients use.";
    OptionsTooLong = 28, "options_too_long", Both,
        cause: "An IPv6 packet for a VIP has more extension headers than are looked at, or one that hides the ports (such as ESP).",
        cure: "Nothing ordinary sends this; find the sender.";
    Redirect = 29, "redirect", Both,
        cause: "The kernel refused to take the frame for another interface.",
        cure: "Is that interface there and up (`guenon status interfaces`)? The tracepoint xdp:xdp_redirect_err says more.";
    Aborted = 30, "aborted", Both,
        cause: "The program met something that cannot be: an index outside a table.",
        cure: "A defect in Guenon: send `guenon status -o json` and `guenon view` with a bug report.";
    Hairpin = 31, "hairpin", Decap,
        cause: "The client is this node itself, one of its pods, or behind a device that replies cannot be translated on, so that the pod's reply (delivery Nat) would reach it with the pod's address.",
        cure: "Inside the cluster use the Service's ClusterIP; for clients behind an overlay's device, name that device with --interface too.";
    FragReply = 32, "frag_reply", Decap,
        cause: "A fragment of a pod's reply left before the first one of its datagram, or long after it, so it cannot be translated.",
        cure: "Let the endpoint send smaller datagrams, or give pods and uplinks the same MTU.";
    NoPort = 33, "no_port", Decap,
        cause: "The client uses this port to the same endpoint otherwise, and no other source port is free for the flow.",
        cure: "Let clients use more source ports; of the upper half of all ports eight are tried for a flow.";
}
