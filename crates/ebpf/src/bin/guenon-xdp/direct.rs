//! UDP that clients send to an endpoint itself: it takes the ports back from a VIP's flow. (TCP tells by its SYN-ACK.)

use aya_ebpf::bindings::xdp_md;
use guenon_ebpf::abi::{Transport, locate_target_port};
use guenon_ebpf::flow;
use guenon_ebpf::headers::{Fragment, protocol};
use guenon_ebpf::parse::{self, Ip};

use crate::flows::Set;
use crate::frame::{self, Frame};
use crate::{maps, settings};

/// Looks at a packet to an address of this node's own or of one of its endpoints, whose IP header begins at `at`.
#[inline(always)]
pub(crate) fn look<const FRAGS: bool>(ctx: *mut xdp_md, at: usize, v6: bool) {
    take_back::<FRAGS>(ctx, at as u32, v6.into());
}

once! {
    fn take_back, guenon_direct, guenon_direct_linear(ctx, at: u32, v6: u32) {
        let frame = Frame::<FRAGS>::new(ctx);
        if let Some(ip) = parse::ip(&frame, frame::link_len(at), v6 != 0) {
            forget(&frame, &ip);
        }
        0
    }
}

#[inline(always)]
fn forget<const FRAGS: bool>(frame: &Frame<FRAGS>, ip: &Ip) -> Option<()> {
    if ip.protocol != protocol::UDP || ip.fragment == Fragment::Later {
        return None;
    }
    let ports = parse::ports(frame, ip).ok()?;
    if !is_target(Transport::Udp, ports.destination_number()) {
        return None;
    }
    let key = flow::key(&settings::schedule(), ip.source, ip.destination, ports, protocol::UDP);
    let mut set = Set::of(key)?;
    let (way, _) = flow::find(&set, key)?;
    flow::remove(&mut set, way);
    Some(())
}

/// Whether some endpoint of delivery `Nat` listens on this port.
#[inline(always)]
pub(crate) fn is_target(transport: Transport, port: u16) -> bool {
    let (word, bit) = locate_target_port(transport as u8, port);
    // SAFETY: an element of the map, which the agent changes by one store.
    maps::TARGET_PORTS.get_ptr(word).is_some_and(|word| unsafe { word.read_volatile() } >> bit & 1 != 0)
}
