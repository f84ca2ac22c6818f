//! What was taken out of force waits here until no packet can still be reading it.

use std::collections::VecDeque;

/// Grace periods: after one, every program run that began before it has ended.
pub trait Grace: Send {
    /// Asks for a grace period that begins after everything done so far; returns its number. Does not wait.
    fn request(&mut self) -> u64;

    /// Number of the last grace period that has ended.
    fn passed(&mut self) -> u64;

    /// Waits for the end of a grace period that was asked for.
    fn wait(&mut self, number: u64);
}

/// For memory that nobody else reads.
#[derive(Debug, Default)]
pub struct NoReaders {
    asked: u64,
}

impl Grace for NoReaders {
    fn request(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    fn passed(&mut self) -> u64 {
        self.asked
    }

    fn wait(&mut self, _number: u64) {}
}

/// Something that may be used again after a grace period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retired {
    /// Pages of rows: first, number.
    Pages(u32, u32),
    /// Elements of `ENDPOINTS`: first, number.
    Block(u32, u32),
    /// The id of a service whose frontends are gone; its descriptor is cleared then.
    Service(u32),
    /// A VIP's id.
    Vip(u32),
    /// A slot of `ADDRESSES`.
    Address(u32),
    /// A slot of `DIRECTORS`.
    Director(u32),
    /// A slot of `FRONTENDS`.
    Frontend(u32),
    /// A slot of `LOCALS`.
    Local(u32),
    /// An index of `ENDPOINT_STATS`.
    Counter(u32),
    /// An index of `NEXT_HOPS`.
    NextHop(u32),
    /// A slot of `INTERFACES`.
    Egress(u32),
}

/// Batches of retired things, each with the grace period that it waits for.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    open: Vec<Retired>,
    sealed: VecDeque<(u64, Vec<Retired>)>,
}

impl Quarantine {
    pub(super) fn push(&mut self, retired: Retired) {
        self.open.push(retired);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.sealed.is_empty()
    }

    /// Forgets the slots of open-addressed tables: they were dealt with otherwise.
    pub(super) fn forget_slots(&mut self) {
        let stays = |retired: &Retired| match retired {
            Retired::Address(_) | Retired::Director(_) | Retired::Frontend(_) | Retired::Local(_) => false,
            Retired::Pages(..)
            | Retired::Block(..)
            | Retired::Service(_)
            | Retired::Vip(_)
            | Retired::Counter(_)
            | Retired::NextHop(_)
            | Retired::Egress(_) => true,
        };
        self.open.retain(stays);
        self.sealed.iter_mut().for_each(|(_, batch)| batch.retain(stays));
    }

    /// Ends a batch: asks for its grace period.
    pub(super) fn seal(&mut self, grace: &mut dyn Grace) {
        if !self.open.is_empty() {
            self.sealed.push_back((grace.request(), std::mem::take(&mut self.open)));
        }
    }

    /// Takes out what may be used again.
    pub(super) fn ripe(&mut self, grace: &mut dyn Grace) -> Vec<Retired> {
        let Some(&(first, _)) = self.sealed.front() else { return Vec::new() };
        let passed = grace.passed();
        let mut ripe = Vec::new();
        if first <= passed {
            let count = self.sealed.iter().take_while(|(number, _)| *number <= passed).count();
            ripe.extend(self.sealed.drain(..count).flat_map(|(_, batch)| batch));
        }
        ripe
    }

    /// Waits until everything is ripe.
    pub(super) fn wait(&mut self, grace: &mut dyn Grace) {
        self.seal(grace);
        if let Some(&(last, _)) = self.sealed.back() {
            grace.wait(last);
        }
    }
}
