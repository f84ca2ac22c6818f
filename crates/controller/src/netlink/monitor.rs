//! Keeps the kernel's tables and the view made of them current, on a thread of its own.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NLM_F_CREATE, NetlinkPayload};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};
use tokio::sync::watch;

use super::ask::{Ask, Asker};
use super::compose::{Composition, ViewOptions, compose};
use super::connection::{Connection, Messages, NetlinkError};
use super::read::{read, read_addresses, read_routes, read_rules};
use super::tables::Tables;
use super::{NeighbourKey, parse};
use crate::model::NodeView;

const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];
/// Room for events that come faster than they are read, bytes.
const EVENT_BUFFER: usize = 4 << 20;
/// The kernel sends at most 32 KiB at once.
const DATAGRAM: usize = 64 * 1024;
/// Least time between two views: what comes first is told at once, what follows within this, together.
const VIEW_PAUSE: Duration = Duration::from_millis(2);
/// Pauses are at least this many times what the work took, so that a node in a storm is not kept busy.
const SHARE: u32 = 8;
/// And never longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Wait before trying again when the kernel cannot be asked.
const RETRY: Duration = Duration::from_secs(1);

/// What the monitor has done, for metrics. Read at any time.
#[derive(Debug, Default)]
pub struct MonitorCounters {
    /// Events read.
    pub events: AtomicU64,
    /// Times that the kernel lost events because they were not read fast enough.
    pub overruns: AtomicU64,
    /// Times that all tables were read anew.
    pub resyncs: AtomicU64,
    /// Views told.
    pub views: AtomicU64,
    /// Neighbours asked for.
    pub asked: AtomicU64,
    /// Asks that the kernel refused, and tables that could not be read.
    pub errors: AtomicU64,
}

/// Keeps the view of one network namespace current. Ends when dropped.
#[derive(Debug)]
pub struct Monitor {
    shared: Arc<Shared>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    options: Mutex<ViewOptions>,
    stop: AtomicBool,
    counters: MonitorCounters,
}

impl Monitor {
    /// Starts in the calling thread's network namespace. The first view is there when it returns; each
    /// further one differs from the one before.
    ///
    /// # Errors
    ///
    /// [`NetlinkError`].
    pub fn start(options: ViewOptions) -> Result<(Self, watch::Receiver<Arc<NodeView>>), NetlinkError> {
        let mut kernel = Kernel::open()?;
        let Composition { view, needed } = compose(&kernel.tables, &options);
        let (views, receiver) = watch::channel(Arc::new(view));
        let (wake, woken) = UnixStream::pair().map_err(NetlinkError::Open)?;
        for end in [&wake, &woken] {
            end.set_nonblocking(true).map_err(NetlinkError::Open)?;
        }
        let shared = Arc::new(Shared {
            options: Mutex::new(options),
            stop: AtomicBool::new(false),
            counters: MonitorCounters::default(),
        });
        kernel.needed = needed;
        let worker = Worker { kernel, views, woken, shared: Arc::clone(&shared) };
        let thread = thread::Builder::new()
            .name("netlink".to_owned())
            .spawn(move || worker.run())
            .map_err(NetlinkError::Open)?;
        Ok((Self { shared, wake, thread: Some(thread) }, receiver))
    }

    /// Changes what the view is of. If that changes the view, a new one is told.
    pub fn update(&self, change: impl FnOnce(&mut ViewOptions)) {
        {
            let mut options = self.shared.options.lock().unwrap_or_else(PoisonError::into_inner);
            let before = options.clone();
            change(&mut options);
            if *options == before {
                return;
            }
        }
        self.wake();
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> &MonitorCounters {
        &self.shared.counters
    }

    fn wake(&self) {
        // A full pipe wakes as well.
        if let Err(error) = (&self.wake).write(&[0])
            && error.kind() != io::ErrorKind::WouldBlock
        {
            tracing::warn!(%error, "cannot wake the netlink thread");
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the netlink thread had panicked");
        }
    }
}

/// What has changed since the last view.
#[derive(Clone, Copy, Debug, Default)]
struct Changed {
    /// Events were lost: nothing is sure.
    all: bool,
    addresses: bool,
    routes: bool,
    view: bool,
}

/// Sockets, and what was read from them.
#[derive(Debug)]
struct Kernel {
    events: Socket,
    connection: Connection,
    tables: Tables,
    needed: BTreeSet<NeighbourKey>,
}

impl Kernel {
    fn open() -> Result<Self, NetlinkError> {
        // Events first, then the tables: nothing is missed in between.
        let mut events = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Open)?;
        events.bind_auto().map_err(NetlinkError::Open)?;
        if setsockopt(&events, sockopt::RcvBufForce, &EVENT_BUFFER).is_err() {
            // Without CAP_NET_ADMIN the limit is net.core.rmem_max.
            events.set_rx_buf_sz(EVENT_BUFFER as libc::c_int).map_err(NetlinkError::Open)?;
        }
        for group in GROUPS {
            events.add_membership(group as u32).map_err(NetlinkError::Open)?;
        }
        let mut connection = Connection::open()?;
        let tables = read(&mut connection)?;
        Ok(Self { events, connection, tables, needed: BTreeSet::new() })
    }

    /// Reads all events that are there.
    fn drain(&mut self, buffer: &mut Vec<u8>, counters: &MonitorCounters) -> io::Result<Changed> {
        let mut changed = Changed::default();
        loop {
            buffer.clear();
            match self.events.recv(buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changed),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    counters.overruns.fetch_add(1, Ordering::Relaxed);
                    changed.all = true;
                    continue;
                }
                Err(error) => return Err(error),
            }
            for message in Messages(buffer) {
                counters.events.fetch_add(1, Ordering::Relaxed);
                match message.payload {
                    NetlinkPayload::InnerMessage(message) => self.take(message, &mut changed),
                    NetlinkPayload::Overrun(_) => changed.all = true,
                    _ => {}
                }
            }
        }
    }

    /// Applies one event. Addresses and routes are read anew instead: the kernel's order of addresses counts,
    /// and it removes routes of a link that goes down without a word.
    fn take(&mut self, message: RouteNetlinkMessage, changed: &mut Changed) {
        match message {
            RouteNetlinkMessage::NewLink(message) if message.header.interface_family == AddressFamily::Unspec => {
                let link = parse::link(message);
                let old = self.tables.links.get(&link.index);
                if old == Some(&link) {
                    return;
                }
                changed.view = true;
                changed.routes |= old.is_none_or(|old| (old.up, old.running) != (link.up, link.running));
                self.tables.links.insert(link.index, link);
            }
            RouteNetlinkMessage::DelLink(message) if message.header.interface_family == AddressFamily::Unspec => {
                let index = message.header.index;
                if self.tables.links.remove(&index).is_some() {
                    self.tables.neighbours.retain(|(link, _), _| *link != index);
                    (changed.view, changed.addresses) = (true, true);
                }
            }
            RouteNetlinkMessage::NewNeighbour(message) => {
                let Some((key, neighbour)) = parse::neighbour(message) else { return };
                let old = self.tables.neighbours.insert(key, neighbour);
                let same = old.and_then(|old| old.usable()) == neighbour.usable();
                changed.view |= !same && self.is_shown(key);
            }
            RouteNetlinkMessage::DelNeighbour(message) => {
                let Some((key, _)) = parse::neighbour(message) else { return };
                let old = self.tables.neighbours.remove(&key);
                changed.view |= old.is_some() && self.is_shown(key);
            }
            RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => changed.addresses = true,
            RouteNetlinkMessage::NewRoute(_)
            | RouteNetlinkMessage::DelRoute(_)
            | RouteNetlinkMessage::NewRule(_)
            | RouteNetlinkMessage::DelRule(_) => changed.routes = true,
            _ => {}
        }
    }

    fn is_shown(&self, key: NeighbourKey) -> bool {
        self.needed.contains(&key)
    }

    /// Reads anew what events alone don't tell.
    fn refresh(&mut self, changed: Changed, counters: &MonitorCounters) -> Result<(), NetlinkError> {
        let Changed { all, addresses, routes, view: _ } = changed;
        if all {
            counters.resyncs.fetch_add(1, Ordering::Relaxed);
            self.tables = read(&mut self.connection)?;
            return Ok(());
        }
        if addresses {
            self.tables.addresses = read_addresses(&mut self.connection)?;
        }
        // Removing an address removes routes without a word.
        if routes || addresses {
            self.tables.rules = read_rules(&mut self.connection)?;
            self.tables.routes = read_routes(&mut self.connection, &self.tables.rules)?;
        }
        Ok(())
    }

    fn ask(&mut self, ask: Ask) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = if ask.to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.ifindex = ask.link;
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(ask.to)));
        let what = format!("ask for neighbour {} on link {}", ask.to, ask.link);
        self.connection.change(&what, RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE)
    }
}

/// The thread.
struct Worker {
    kernel: Kernel,
    views: watch::Sender<Arc<NodeView>>,
    woken: UnixStream,
    shared: Arc<Shared>,
}

impl Worker {
    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let counters = &shared.counters;
        let mut buffer = Vec::with_capacity(DATAGRAM);
        let mut asker = Asker::default();
        let mut changed = Changed::default();
        let mut next_read = Instant::now();
        let mut next_view = next_read;
        self.ask(&mut asker);
        while !shared.stop.load(Ordering::Relaxed) {
            let reads = changed.all || changed.addresses || changed.routes;
            let due = [reads.then_some(next_read), changed.view.then_some(next_view), asker.next()];
            self.wait(due.into_iter().flatten().min());

            changed.view |= self.drain_wakes();
            match self.kernel.drain(&mut buffer, counters) {
                Ok(more) => {
                    changed.all |= more.all;
                    changed.addresses |= more.addresses;
                    changed.routes |= more.routes;
                    changed.view |= more.view;
                }
                Err(error) => {
                    tracing::error!(%error, "lost the netlink events; opening them anew");
                    self.reopen();
                    changed = Changed { view: true, ..Changed::default() };
                }
            }

            let now = Instant::now();
            if (changed.all || changed.addresses || changed.routes) && now >= next_read {
                match self.kernel.refresh(changed, counters) {
                    Ok(()) => {
                        changed = Changed { view: true, ..Changed::default() };
                        next_read = now + pause(now.elapsed());
                    }
                    Err(error) => {
                        tracing::error!(%error, "cannot read the kernel's tables; trying again");
                        counters.errors.fetch_add(1, Ordering::Relaxed);
                        next_read = now + RETRY;
                    }
                }
            }
            let now = Instant::now();
            if changed.view && now >= next_view {
                changed.view = false;
                self.tell();
                self.ask(&mut asker);
                next_view = now + pause(now.elapsed());
            }
            if asker.next().is_some_and(|next| now >= next) {
                self.ask(&mut asker);
            }
        }
    }

    fn wait(&self, until: Option<Instant>) {
        let timeout = match until {
            None => PollTimeout::NONE,
            // Rounded up: a wait that ends early would only spin.
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut fds = [
            PollFd::new(self.kernel.events.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.woken.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => {
                tracing::error!(%error, "cannot wait for netlink events");
                thread::sleep(RETRY);
            }
        }
    }

    fn drain_wakes(&mut self) -> bool {
        let mut bytes = [0; 64];
        let mut any = false;
        while matches!(self.woken.read(&mut bytes), Ok(length) if length > 0) {
            any = true;
        }
        any
    }

    /// Tries until it works or the monitor ends.
    fn reopen(&mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.shared.counters.resyncs.fetch_add(1, Ordering::Relaxed);
            match Kernel::open() {
                Ok(kernel) => {
                    self.kernel = kernel;
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "cannot open netlink; trying again");
                    self.shared.counters.errors.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(RETRY);
                }
            }
        }
    }

    fn tell(&mut self) {
        let composition = {
            let options = self.shared.options.lock().unwrap_or_else(PoisonError::into_inner).clone();
            compose(&self.kernel.tables, &options)
        };
        let Composition { view, needed } = composition;
        self.kernel.needed = needed;
        let told = self.views.send_if_modified(|current| {
            let differs = **current != view;
            if differs {
                *current = Arc::new(view);
            }
            differs
        });
        if told {
            self.shared.counters.views.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn ask(&mut self, asker: &mut Asker) {
        let kernel = &mut self.kernel;
        // Those behind a link that is down are forgotten, so that they are asked for at once when it is up.
        let links = &kernel.tables.links;
        let is_up = |(link, _): &&NeighbourKey| links.get(link).is_some_and(|link| link.running);
        let askable: BTreeSet<NeighbourKey> = kernel.needed.iter().filter(is_up).copied().collect();
        for ask in asker.due(Instant::now(), &askable, &kernel.tables.neighbours) {
            self.shared.counters.asked.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = kernel.ask(ask) {
                tracing::debug!(%error, "cannot ask for a neighbour");
                self.shared.counters.errors.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// How long to rest after work that took this long.
fn pause(work: Duration) -> Duration {
    (work * SHARE).clamp(VIEW_PAUSE, LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::tests::net::Net;

    #[test]
    fn lost_events_are_made_up_for_by_reading_everything_anew() {
        let net = Net::new();
        net.ip("link add eth0 type veth peer name far");
        net.address("172.17.2.2/24", "eth0");
        net.ip("link set eth0 up");
        let mut kernel = net.inside(|| Kernel::open().unwrap());
        kernel.events.set_rx_buf_sz(1 as libc::c_int).unwrap();

        for last in 3..100 {
            net.ip(&format!("route add 172.17.3.{last}/32 via 172.17.2.1 dev eth0 onlink"));
        }
        net.ip("neighbour replace 172.17.2.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent");
        net.ip("link set eth0 mtu 1400");

        let counters = MonitorCounters::default();
        let changed = kernel.drain(&mut Vec::with_capacity(DATAGRAM), &counters).unwrap();
        assert!(changed.all, "the kernel says that it lost some");
        assert!(counters.overruns.load(Ordering::Relaxed) >= 1);
        kernel.refresh(changed, &counters).unwrap();
        assert_eq!(counters.resyncs.load(Ordering::Relaxed), 1);
        let fresh = net.inside(|| read(&mut Connection::open().unwrap()).unwrap());
        assert_eq!(kernel.tables, fresh);
        assert_eq!(kernel.tables.link_named("eth0").unwrap().mtu, 1400);
        assert_eq!(kernel.tables.routes.iter().filter(|route| route.via.is_some()).count(), 97);
    }
}
