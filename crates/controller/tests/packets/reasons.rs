//! Every drop reason and every event can be met, and is met here: a new one breaks this file.

use guenon_controller::simulate::sandbox::Verdict;
use guenon_ebpf::abi::Event;
use guenon_ebpf::reason::DropReason;

use crate::decap::from_director;
use crate::encapsulation::{Kind, packet};
use crate::icmp::{Said, error};
use crate::support::bed::{DIRECTOR4, ON_NODE4, POD4, REMOTE4, STRANGER4, TUNNEL4, VIP4, VIP6, Way, caller, client};
use crate::support::frame::{frame, padded};
use crate::support::lab::lab;
use crate::support::packet::{Packet, Upper};
use crate::support::tunnel::Tunnel;

/// A frame that is dropped for this reason, or why there is none in a test run.
fn provoke(reason: DropReason) -> Result<Vec<u8>, &'static str> {
    let direct = |way: Way| packet(way, true, Kind::Tcp);
    let tunnel = |way: Way| from_director(true, direct(way).ip());
    let spoilt = |spoil: fn(&mut Tunnel)| Ok(frame(&tunnel(Way::HereVeth).naming(POD4).with(spoil).ip()));
    match reason {
        DropReason::Truncated => Ok(frame(&direct(Way::Own4).ip()[..60])),
        DropReason::BadHeader => {
            let mut ip = direct(Way::Own4).ip();
            ip[0] = 0x44;
            Ok(frame(&ip))
        }
        DropReason::NoFrontend => Ok(frame(&Packet::tcp(caller(true), (VIP4, 9).into()).ip())),
        DropReason::NoBackend => Ok(frame(&direct(Way::NoBackend).ip())),
        DropReason::NoRoute => Ok(frame(&direct(Way::Unreachable).ip())),
        DropReason::NoNeighbour => Ok(frame(&direct(Way::NoNeighbour).ip())),
        DropReason::NoHeadroom => Err("a test run always leaves 256 bytes: see `headroom`"),
        DropReason::TooBig => {
            let quoted =
                Packet::new(VIP4, client(true), Upper::Tcp { source: Way::Small4.port(), destination: 1, syn: false })
                    .payload(vec![0; 1400]);
            Ok(frame(&error(Said::TimeExceeded, &quoted, 1350).ip()))
        }
        DropReason::TooBigNoDf => Ok(frame(&direct(Way::Small4).df(false).total_length(1400).ip())),
        DropReason::FragmentLost => Ok(frame(&direct(Way::Own4).id(0xfade).fragments(8)[1])),
        DropReason::FragmentBad => {
            let datagram = direct(Way::Own4);
            Ok(padded(frame(&datagram.part(&datagram.upper()[..3], Some((0, true)))), 60))
        }
        DropReason::IcmpQuote => Ok(frame(&Packet::icmp(client(true), VIP4, 3, 1, [0; 4]).ip())),
        DropReason::UnknownDirector => spoilt(|tunnel| tunnel.source = STRANGER4),
        DropReason::GueVersion => spoilt(|tunnel| tunnel.first_byte = 0x40),
        DropReason::GueControl => spoilt(|tunnel| tunnel.first_byte = 0x20),
        DropReason::GueFlags => spoilt(|tunnel| tunnel.flags = 1),
        DropReason::GueLength => spoilt(|tunnel| tunnel.header_words = Some(31)),
        DropReason::GueProtocol => spoilt(|tunnel| tunnel.protocol = Some(47)),
        DropReason::PrivateType => spoilt(|tunnel| tunnel.private[0] = 9),
        DropReason::PrivateCount => spoilt(|tunnel| tunnel.private[2] = 1),
        DropReason::NotOurEndpoint => Ok(frame(&tunnel(Way::Own4).ip())),
        DropReason::InnerNotVip => {
            let inner = Packet::tcp(caller(true), (REMOTE4, 80).into()).ip();
            Ok(frame(&from_director(true, inner).ip()))
        }
        DropReason::InnerMalformed => Ok(frame(&from_director(true, direct(Way::HereVeth).ip()[..22].to_vec()).ip())),
        DropReason::CongestionLost => spoilt(|tunnel| tunnel.ecn = 3),
        DropReason::OuterFragment => spoilt(|tunnel| tunnel.more_fragments = true),
        DropReason::NoDelivery => Ok(frame(&direct(Way::HereNone).ip())),
        DropReason::TooBigForEndpoint => Ok(frame(&direct(Way::HereVeth).total_length(1501).ip())),
        DropReason::OptionsTooLong => Ok(frame(&Packet::new(client(false), VIP6, Upper::Other(50)).ip())),
        DropReason::Redirect => Err("the helper refuses nothing in a test run: the kernel looks for the device later"),
        DropReason::Hairpin | DropReason::NoPort | DropReason::FragReply => {
            Err("needs an endpoint of delivery Nat: see `nat_flows` and `nat_out`")
        }
        DropReason::Aborted => Err("needs a broken table: see `what_cannot_be_is_counted_as_aborted`"),
    }
}

#[test]
fn every_reason_is_met() {
    let mut lab = lab();
    for reason in DropReason::ALL {
        match provoke(*reason) {
            Ok(frame) => lab.send_dropped(&frame, *reason),
            Err(why) => println!("{}: {why}", reason.name()),
        }
    }
}

/// A frame under which this event is counted, or why there is none here.
fn cause(event: Event) -> Result<Vec<u8>, &'static str> {
    let direct = |way: Way| packet(way, true, Kind::Tcp);
    Ok(match event {
        Event::Encapsulated => frame(&direct(Way::Own4).ip()),
        Event::Decapsulated => frame(&from_director(true, direct(Way::HereLocal).ip()).ip()),
        Event::DeliveredHere => frame(&direct(Way::HereVeth).ip()),
        Event::EchoAnswered => frame(&Packet::icmp(client(true), VIP4, 8, 0, [0; 4]).ip()),
        Event::TooBigAnswered => frame(&direct(Way::Own4).total_length(1500).ip()),
        Event::IcmpErrorForwarded => {
            let upper = Upper::Tcp { source: Way::Own4.port(), destination: 1, syn: false };
            frame(&error(Said::TooBig, &Packet::new(VIP4, client(true), upper), 8).ip())
        }
        Event::TunnelTooBig => {
            let ours = Tunnel::new(TUNNEL4, REMOTE4, direct(Way::Own4).ip()).ip();
            frame(&Packet::icmp(DIRECTOR4, TUNNEL4, 3, 4, [0, 0, 5, 0]).payload(ours).ip())
        }
        Event::CongestionMarked => {
            let inner = direct(Way::HereLocal).traffic_class(0, 2).ip();
            frame(&from_director(true, inner).with(|tunnel| tunnel.ecn = 3).ip())
        }
        Event::PassedOnNode => frame(&Packet::tcp(caller(true), (ON_NODE4, 22).into()).ip()),
        Event::FragmentFollowed => frame(&direct(Way::Own4).df(false).id(0xf00d).fragments(8)[1]),
        Event::Translated | Event::ReplyTranslated | Event::FlowClash | Event::FlowEvicted => {
            return Err("needs an endpoint of delivery Nat: see `nat_in`, `nat_out` and `nat_flows`");
        }
    })
}

#[test]
fn every_event_is_met() {
    let mut lab = lab();
    lab.send(&frame(&packet(Way::Own4, true, Kind::Tcp).df(false).id(0xf00d).fragments(8)[0]));
    for (event, name) in Event::ALL {
        match cause(event) {
            Ok(frame) => {
                let outcome = lab.send(&frame);
                assert!(outcome.events().contains(&event), "{name}: {:?} {:?}", outcome.verdict, outcome.events());
            }
            Err(why) => println!("{name}: {why}"),
        }
    }
}

/// A table that names what is not there: the packet is dropped and counted, never sent anywhere.
#[test]
fn what_cannot_be_is_counted_as_aborted() {
    use guenon_controller::datapath::tables::{Store, Table};
    let mut lab = lab();
    let maps = lab.sandbox.maps();
    // Every endpoint's next hop (the upper half of its first word), beyond the table.
    let words = 0..maps.elements(Table::Endpoints) as usize;
    let words = words.map(|endpoint| endpoint * Table::Endpoints.element_words());
    let whole: Vec<(usize, u64)> = words.map(|word| (word, maps.load(Table::Endpoints, word))).collect();
    for (word, value) in &whole {
        maps.publish(Table::Endpoints, *word, value | 0xffff_ffff << 32);
    }
    let outcome = lab.send(&frame(&packet(Way::Own4, true, Kind::Tcp).ip()));
    for (word, value) in whole {
        lab.sandbox.maps().publish(Table::Endpoints, word, value);
    }
    assert!(matches!(outcome.verdict, Verdict::Aborted | Verdict::Drop));
    assert_eq!(outcome.reason, Some(DropReason::Aborted));
}
