//! Grace periods of the kernel, waited for on a thread of their own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::sys::{self, Shape};
use super::tables::Grace;

/// Updating an element of an array of maps returns after every program run that began before has ended.
#[derive(Debug)]
struct Barrier {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl Barrier {
    fn new() -> io::Result<Self> {
        let inner = Shape { kind: sys::ARRAY, key_size: 4, value_size: 8, max_entries: 1, flags: 0 };
        let inner = sys::create_map(&inner, None)?;
        let outer = Shape { kind: sys::ARRAY_OF_MAPS, key_size: 4, value_size: 4, max_entries: 1, flags: 0 };
        let outer = sys::create_map(&outer, Some(inner.as_fd()))?;
        Ok(Self { outer, inner })
    }

    fn pass(&self) -> io::Result<()> {
        sys::update_inner_map(self.outer.as_fd(), self.inner.as_fd())
    }
}

#[derive(Debug, Default)]
struct Numbers {
    requested: u64,
    passed: u64,
    ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    numbers: Mutex<Numbers>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kernel's grace periods.
#[derive(Debug)]
pub(super) struct KernelGrace(Arc<Shared>);

impl KernelGrace {
    /// Starts the thread that waits.
    pub(super) fn start() -> io::Result<Self> {
        let barrier = Barrier::new()?;
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("grace".to_owned()).spawn(move || run(&barrier, &theirs))?;
        Ok(Self(shared))
    }
}

fn run(barrier: &Barrier, shared: &Shared) {
    loop {
        let mut numbers = shared.lock();
        while numbers.requested == numbers.passed && !numbers.ended {
            numbers = shared.changed.wait(numbers).unwrap_or_else(PoisonError::into_inner);
        }
        if numbers.ended {
            return;
        }
        let number = numbers.requested;
        drop(numbers);
        if let Err(error) = barrier.pass() {
            // Memory is not given free without it; try again rather than guess.
            tracing::error!(%error, "cannot wait for a grace period (bpf map update); trying again");
            thread::sleep(std::time::Duration::from_secs(1));
            continue;
        }
        shared.lock().passed = number;
        shared.changed.notify_all();
    }
}

impl Grace for KernelGrace {
    fn request(&mut self) -> u64 {
        let mut numbers = self.0.lock();
        numbers.requested += 1;
        self.0.changed.notify_all();
        numbers.requested
    }

    fn passed(&mut self) -> u64 {
        self.0.lock().passed
    }

    fn wait(&mut self, number: u64) {
        let mut numbers = self.0.lock();
        while numbers.passed < number {
            numbers = self.0.changed.wait(numbers).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for KernelGrace {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

/// Waits for one grace period, here and now.
pub(super) fn wait_once() -> io::Result<()> {
    Barrier::new()?.pass()
}
