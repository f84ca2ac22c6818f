//! Keeps the kernel's tables and the view made of them current, on a thread of its own.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::mem;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::watch;

use super::ask::Asker;
use super::compose::{Composition, Interest, NeighbourKey, ViewOptions, compose, covers, put_macs};
use super::connection::NetlinkError;
use super::hairpins::{Hairpins, hairpins};
use super::kernel::{Changed, DATAGRAM, Kernel, Shown};
use crate::model::NodeView;

/// Least time between two views: what comes first is told at once, what follows within this, together.
const VIEW_PAUSE: Duration = Duration::from_millis(2);
/// Pauses are at least this many times what the work took, so that a node in a storm is not kept busy.
const SHARE: u32 = 8;
/// And never longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a view may tell ways that nobody asks for any more: to leave them out costs time and changes nothing.
const LINGER: Duration = Duration::from_secs(1);
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
    wanted: Mutex<Wanted>,
    /// Times that more was wanted.
    asked: AtomicU64,
    /// How many of these the view takes into account.
    served: Mutex<u64>,
    settled: Condvar,
    hairpins: Mutex<Arc<Hairpins>>,
    stop: AtomicBool,
    counters: MonitorCounters,
}

/// What the view is to be of.
#[derive(Debug)]
struct Wanted {
    options: ViewOptions,
    /// Addresses of interest that are new since the last view.
    added: Vec<IpAddr>,
    /// Whether some are of no interest any more since the last view.
    fewer: bool,
    /// Whether anything else has changed since.
    other: bool,
}

impl Shared {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hairpins(&self) -> MutexGuard<'_, Arc<Hairpins>> {
        self.hairpins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Monitor {
    /// Starts in the calling thread's network namespace. The first view is there when it returns; each
    /// further one differs from the one before.
    ///
    /// # Errors
    ///
    /// [`NetlinkError`].
    pub fn start(options: ViewOptions) -> Result<(Self, watch::Receiver<Arc<NodeView>>), NetlinkError> {
        let kernel = Kernel::open()?;
        let Composition { view, needed } = compose(&kernel.tables, &options);
        let first = Arc::new(hairpins(&kernel.tables, &options.answering));
        let all = options.interest == Interest::All;
        let (views, receiver) = watch::channel(Arc::new(view));
        let (wake, woken) = UnixStream::pair().map_err(NetlinkError::Open)?;
        for end in [&wake, &woken] {
            end.set_nonblocking(true).map_err(NetlinkError::Open)?;
        }
        let shared = Arc::new(Shared {
            wanted: Mutex::new(Wanted { options, added: Vec::new(), fewer: false, other: false }),
            asked: AtomicU64::new(0),
            served: Mutex::new(0),
            settled: Condvar::new(),
            hairpins: Mutex::new(first),
            stop: AtomicBool::new(false),
            counters: MonitorCounters::default(),
        });
        let mut worker = Worker { kernel, views, woken, needed: BTreeSet::new(), shared: Arc::clone(&shared) };
        worker.show(needed, all);
        let thread = thread::Builder::new()
            .name("netlink".to_owned())
            .spawn(move || worker.run())
            .map_err(NetlinkError::Open)?;
        Ok((Self { shared, wake, thread: Some(thread) }, receiver))
    }

    /// Changes what the view is of. If that changes the view, a new one is told.
    pub fn update(&self, change: impl FnOnce(&mut ViewOptions)) {
        {
            let mut wanted = self.shared.wanted();
            let before = wanted.options.clone();
            change(&mut wanted.options);
            if wanted.options == before {
                return;
            }
            wanted.other = true;
            self.shared.asked.fetch_add(1, Ordering::AcqRel);
        }
        self.wake();
    }

    /// Only replies by these interfaces are translated from now on; the hairpins say so when it returns. `false`: they do not
    /// within `timeout`, and a view is told when they do.
    #[must_use]
    pub fn answers_by(&self, interfaces: BTreeSet<String>, timeout: Duration) -> bool {
        if self.shared.wanted().options.answering == interfaces {
            return true;
        }
        self.update(|options| options.answering = interfaces);
        self.settle(timeout)
    }

    /// Adds addresses to those of interest, and takes some away; the cost is that of these few. Whether some were new:
    /// then the view may tell more, see [`Self::settle`]. Where all ways are told there is nothing to do.
    pub fn follow(&self, added: &BTreeSet<IpAddr>, removed: &BTreeSet<IpAddr>) -> bool {
        let more = {
            let mut wanted = self.shared.wanted();
            let Wanted { options, added: waiting, fewer, other: _ } = &mut *wanted;
            let Interest::Only(addresses) = &mut options.interest else { return false };
            for address in removed {
                *fewer |= addresses.remove(address);
            }
            let new = added.iter().filter(|address| addresses.insert(**address));
            let before = waiting.len();
            waiting.extend(new);
            let more = waiting.len() > before;
            if more {
                self.shared.asked.fetch_add(1, Ordering::AcqRel);
            }
            more
        };
        self.wake();
        more
    }

    /// Waits until the view is one that was made after every earlier [`Self::update`] and [`Self::follow`]. `false`: it was not within
    /// `timeout`.
    #[must_use]
    pub fn settle(&self, timeout: Duration) -> bool {
        let asked = self.shared.asked.load(Ordering::Acquire);
        let served = self.shared.served.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.shared.settled.wait_timeout_while(served, timeout, |served| *served < asked);
        !outcome.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Which clients' replies do not leave by an uplink that answers, as of the last view. A view is told when they change, too.
    #[must_use]
    pub fn hairpins(&self) -> Arc<Hairpins> {
        Arc::clone(&self.shared.hairpins())
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

/// The thread.
struct Worker {
    kernel: Kernel,
    views: watch::Sender<Arc<NodeView>>,
    woken: UnixStream,
    /// Neighbours to ask for.
    needed: BTreeSet<NeighbourKey>,
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
        let mut next_macs = next_read;
        let mut prune = None;
        self.ask(&mut asker);
        while !shared.stop.load(Ordering::Relaxed) {
            let reads = changed.wants_reading().then_some(next_read);
            let views = changed.view.then_some(next_view);
            let macs = (!changed.macs.is_empty()).then_some(next_macs);
            self.wait([reads, views, macs, prune, asker.next()].into_iter().flatten().min());

            let woken = self.drain_wakes();
            match self.kernel.drain(&mut buffer, counters) {
                Ok(more) => changed.add(more),
                Err(error) => {
                    tracing::error!(%error, "lost the netlink events; opening them anew");
                    self.reopen();
                    changed = Changed { view: true, ..Changed::default() };
                }
            }

            let now = Instant::now();
            if !changed.macs.is_empty() && now >= next_macs {
                self.tell_macs(&mem::take(&mut changed.macs));
                self.ask(&mut asker);
                next_macs = now + pause(now.elapsed());
            }
            let now = Instant::now();
            if changed.wants_reading() && now >= next_read {
                match self.kernel.refresh(&changed, counters) {
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
            let is_due = (changed.view && now >= next_view) || prune.is_some_and(|prune| now >= prune);
            // Somebody who wakes waits for it.
            if is_due || woken {
                let lingers = self.tell(mem::take(&mut changed.view) || is_due);
                prune = lingers.then(|| prune.unwrap_or(now + LINGER));
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

    /// Brings the view up to date with what is wanted: made anew, unless it covers that already. Whether it tells ways
    /// that nobody asks for any more.
    fn tell(&mut self, anew: bool) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut wanted = shared.wanted();
        let asked = shared.asked.load(Ordering::Acquire);
        let added = mem::take(&mut wanted.added);
        let anew = mem::take(&mut wanted.other) || anew;
        if anew || !covers(&self.views.borrow(), &self.kernel.tables, &added) {
            wanted.fewer = false;
            let Composition { view, needed } = compose(&self.kernel.tables, &wanted.options);
            self.show(needed, wanted.options.interest == Interest::All);
            let hairpins = hairpins(&self.kernel.tables, &wanted.options.answering);
            let differs = **shared.hairpins() != hairpins;
            if differs {
                *shared.hairpins() = Arc::new(hairpins);
            }
            self.send(view, differs);
        }
        let lingers = wanted.fewer;
        drop(wanted);
        *shared.served.lock().unwrap_or_else(PoisonError::into_inner) = asked;
        shared.settled.notify_all();
        lingers
    }

    /// Tells of new MACs alone, which is quick: packets are lost meanwhile.
    fn tell_macs(&mut self, neighbours: &BTreeSet<NeighbourKey>) {
        let mut view = NodeView::clone(&self.views.borrow());
        put_macs(&mut view, &self.kernel.tables, neighbours);
        self.send(view, false);
    }

    /// Tells a view that differs from the last, or that something else has changed with it.
    fn send(&self, view: NodeView, more: bool) {
        let told = self.views.send_if_modified(|current| {
            let differs = **current != view;
            if differs {
                *current = Arc::new(view);
            }
            differs || more
        });
        if told {
            self.shared.counters.views.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// From now on these are the neighbours that matter, if not all do.
    fn show(&mut self, needed: BTreeSet<NeighbourKey>, all: bool) {
        self.kernel.shown = if all { Shown::All } else { Shown::Only(needed.clone()) };
        self.needed = needed;
    }

    fn ask(&mut self, asker: &mut Asker) {
        let kernel = &mut self.kernel;
        // Those behind a link that is down are forgotten, so that they are asked for at once when it is up.
        let links = &kernel.tables.links;
        let is_up = |(link, _): &&NeighbourKey| links.get(link).is_some_and(|link| link.running);
        let askable: BTreeSet<NeighbourKey> = self.needed.iter().filter(is_up).copied().collect();
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
