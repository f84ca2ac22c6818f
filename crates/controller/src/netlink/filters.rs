//! The clsact qdisc and the filters of its egress hook.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};

use super::connection::{Connection, NetlinkError};

/// Kind of the qdisc that has an egress hook.
const CLSACT: &str = "clsact";
/// The one handle under our preference.
const HANDLE: TcHandle = TcHandle { major: 0, minor: 1 };
/// `htons(ETH_P_ALL)`: the low half of a filter's `info`.
const ALL_PROTOCOLS: u32 = (0x0003_u16).to_be() as u32;

/// A filter of the egress hook, in the order in which the kernel asks them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its preference: the lowest is asked first.
    pub preference: u16,
    /// `bpf`, `flower`, `u32`, ...
    pub kind: String,
    /// Name of a `bpf` filter.
    pub name: Option<String>,
    /// Id of a `bpf` filter's program.
    pub program: Option<u32>,
}

/// Whether an interface has the clsact qdisc.
///
/// # Errors
///
/// [`NetlinkError`].
pub fn has_clsact(connection: &mut Connection, ifindex: u32) -> Result<bool, NetlinkError> {
    let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::with_index(index(ifindex)));
    connection.dump("list qdiscs", request, |found: &mut bool, answer| {
        if let RouteNetlinkMessage::NewQueueDiscipline(qdisc) = answer {
            // Kernels that do not know the filter tell of every interface.
            *found |= qdisc.header.index == index(ifindex)
                && qdisc
                    .attributes
                    .iter()
                    .any(|attribute| matches!(attribute, TcAttribute::Kind(kind) if kind == CLSACT));
        }
    })
}

/// Adds the clsact qdisc.
///
/// # Errors
///
/// [`NetlinkError`]; EEXIST where an ingress qdisc is in its place.
pub fn add_clsact(connection: &mut Connection, ifindex: u32) -> Result<(), NetlinkError> {
    let message = RouteNetlinkMessage::NewQueueDiscipline(clsact(ifindex));
    connection.change("add a clsact qdisc", message, NLM_F_CREATE | NLM_F_EXCL)
}

/// Removes the clsact qdisc with all filters that it has.
///
/// # Errors
///
/// [`NetlinkError`].
pub fn remove_clsact(connection: &mut Connection, ifindex: u32) -> Result<(), NetlinkError> {
    connection.change("remove a clsact qdisc", RouteNetlinkMessage::DelQueueDiscipline(clsact(ifindex)), 0)
}

/// Whether the clsact qdisc has no filter, at ingress and egress.
///
/// # Errors
///
/// [`NetlinkError`].
pub fn clsact_is_empty(connection: &mut Connection, ifindex: u32) -> Result<bool, NetlinkError> {
    Ok(hook(connection, ifindex, TcHandle::MIN_INGRESS)?.is_empty()
        && hook(connection, ifindex, TcHandle::MIN_EGRESS)?.is_empty())
}

/// The filters of the egress hook, in order; none where there is no clsact qdisc.
///
/// # Errors
///
/// [`NetlinkError`].
pub fn egress_filters(connection: &mut Connection, ifindex: u32) -> Result<Vec<Filter>, NetlinkError> {
    hook(connection, ifindex, TcHandle::MIN_EGRESS)
}

/// Puts a program with direct action at the egress hook, in one step in place of the one that is there under this
/// preference.
///
/// # Errors
///
/// [`NetlinkError`].
pub fn put_egress_filter(
    connection: &mut Connection,
    ifindex: u32,
    preference: u16,
    name: &str,
    program: BorrowedFd<'_>,
) -> Result<(), NetlinkError> {
    let mut message = filter(ifindex, preference);
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned())),
        TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]));
    connection.change("put a filter at an egress hook", RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE)
}

/// Removes the filter that [`put_egress_filter`] put there.
///
/// # Errors
///
/// [`NetlinkError`].
pub fn remove_egress_filter(connection: &mut Connection, ifindex: u32, preference: u16) -> Result<(), NetlinkError> {
    let message = RouteNetlinkMessage::DelTrafficFilter(filter(ifindex, preference));
    connection.change("remove a filter from an egress hook", message, 0)
}

fn clsact(ifindex: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index(ifindex));
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    message.attributes.push(TcAttribute::Kind(CLSACT.to_owned()));
    message
}

fn filter(ifindex: u32, preference: u16) -> TcMessage {
    let mut message = TcMessage::with_index(index(ifindex));
    message.header.parent = TcHandle { major: u16::MAX, minor: TcHandle::MIN_EGRESS };
    message.header.handle = HANDLE;
    message.header.info = u32::from(preference) << 16 | ALL_PROTOCOLS;
    message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    message
}

fn hook(connection: &mut Connection, ifindex: u32, minor: u16) -> Result<Vec<Filter>, NetlinkError> {
    let mut message = TcMessage::with_index(index(ifindex));
    message.header.parent = TcHandle { major: u16::MAX, minor };
    let request = RouteNetlinkMessage::GetTrafficFilter(message);
    let answer = connection.dump("list filters", request, |filters: &mut Vec<Filter>, answer| {
        let RouteNetlinkMessage::NewTrafficFilter(filter) = answer else { return };
        filters.extend(parse(&filter).filter(|_| filter.header.index == index(ifindex)));
    });
    match answer {
        // No such qdisc, or no such interface any more.
        Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::ENOENT | libc::ENODEV)) => Ok(Vec::new()),
        answer => answer,
    }
}

/// A filter of the first chain, where packets begin. The kernel tells of each preference too, with handle 0.
fn parse(message: &TcMessage) -> Option<Filter> {
    if message.header.handle == TcHandle::UNSPEC {
        return None;
    }
    let preference = (message.header.info >> 16) as u16;
    let mut filter = Filter { preference, kind: String::new(), name: None, program: None };
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => filter.kind.clone_from(kind),
            TcAttribute::Chain(chain) if *chain != 0 => return None,
            TcAttribute::Options(options) => {
                for option in options {
                    match option {
                        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => filter.name = Some(name.clone()),
                        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => filter.program = Some(*id),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(filter)
}

fn index(ifindex: u32) -> i32 {
    ifindex.cast_signed()
}
