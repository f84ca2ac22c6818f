//! Which XDP program an interface has, as netlink tells.

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};

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

fn attributes(ifindex: u32) -> Result<Vec<LinkXdp>, DataPathError> {
    let mut request = LinkMessage::default();
    request.header.index = ifindex;
    let answers = Connection::open()?.ask("tell an interface's XDP program", RouteNetlinkMessage::GetLink(request))?;
    let xdp = answers.into_iter().find_map(|answer| {
        let RouteNetlinkMessage::NewLink(link) = answer else { return None };
        link.attributes.into_iter().find_map(
            |attribute| {
                if let LinkAttribute::Xdp(xdp) = attribute { Some(xdp) } else { None }
            },
        )
    });
    Ok(xdp.unwrap_or_default())
}

/// An error that names the program in the way.
pub(super) fn foreign(interface: &str, id: u32) -> DataPathError {
    use std::os::fd::AsFd;
    // Names may be read with CAP_SYS_ADMIN alone.
    let name = sys::program_by_id(id).and_then(|program| sys::program_info(program.as_fd()));
    let name = name.ok().map(|(_, name)| name).filter(|name| !name.is_empty());
    let name = name.map_or_else(String::new, |name| format!(", name \"{name}\""));
    DataPathError::Foreign { interface: interface.to_owned(), id, name }
}
