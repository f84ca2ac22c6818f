//! Which XDP program an interface has, as netlink tells.

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage, LinkXdp, XdpAttached};

use super::error::DataPathError;
use super::sys;
use super::tables::attachments::Mode;
use crate::netlink::Connection;

/// The kernel's index of an interface, in this thread's network namespace.
pub(super) fn index_of(interface: &str) -> Result<u32, DataPathError> {
    nix::net::if_::if_nametoindex(interface).map_err(|_| DataPathError::NoInterface(interface.to_owned()))
}

/// Id of the XDP program on an interface; 0 = none.
pub(super) fn program_on(ifindex: u32) -> Result<u32, DataPathError> {
    let mut ids = attributes(ifindex)?.into_iter().filter_map(|attribute| {
        if let LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) = attribute
        {
            Some(id)
        } else {
            None
        }
    });
    Ok(ids.find(|id| *id != 0).unwrap_or(0))
}

/// The mode in which an interface has its program.
pub(super) fn mode_on(ifindex: u32) -> Result<Mode, DataPathError> {
    let attached = attributes(ifindex)?
        .into_iter()
        .find_map(|attribute| if let LinkXdp::Attached(attached) = attribute { Some(attached) } else { None });
    Ok(match attached {
        Some(XdpAttached::Driver | XdpAttached::Hardware) => Mode::Native,
        Some(XdpAttached::SocketBuffer) => Mode::Generic,
        Some(_) | None => Mode::None,
    })
}

/// Whether XDP may see frames there whose checksums are unfinished: devices that hand on what a sender on this machine
/// (or a guest of it) left to its NIC. A physical NIC never does.
pub(super) fn may_be_partial(ifindex: u32) -> Result<bool, DataPathError> {
    let kinds = link(ifindex)?
        .into_iter()
        .filter_map(|attribute| if let LinkAttribute::LinkInfo(info) = attribute { Some(info) } else { None });
    Ok(kinds.flatten().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Veth | InfoKind::Tun))))
}

fn attributes(ifindex: u32) -> Result<Vec<LinkXdp>, DataPathError> {
    let xdp = link(ifindex)?
        .into_iter()
        .find_map(|attribute| if let LinkAttribute::Xdp(xdp) = attribute { Some(xdp) } else { None });
    Ok(xdp.unwrap_or_default())
}

fn link(ifindex: u32) -> Result<Vec<LinkAttribute>, DataPathError> {
    let mut request = LinkMessage::default();
    request.header.index = ifindex;
    let answers = Connection::open()?.ask("tell an interface's XDP program", RouteNetlinkMessage::GetLink(request))?;
    let link = answers
        .into_iter()
        .find_map(|answer| if let RouteNetlinkMessage::NewLink(link) = answer { Some(link) } else { None });
    Ok(link.map(|link| link.attributes).unwrap_or_default())
}

/// An error that names the program in the way.
pub(super) fn foreign(interface: &str, id: u32) -> DataPathError {
    DataPathError::Foreign { interface: interface.to_owned(), id, name: name_of(id) }
}

/// A program's name, where it may be read: `, name "x"`.
pub(super) fn name_of(id: u32) -> String {
    use std::os::fd::AsFd;
    // Names may be read with CAP_SYS_ADMIN alone.
    let name = sys::program_by_id(id).and_then(|program| sys::program_info(program.as_fd()));
    let name = name.ok().map(|(_, name)| name).filter(|name| !name.is_empty());
    name.map_or_else(String::new, |name| format!(", name \"{name}\""))
}
