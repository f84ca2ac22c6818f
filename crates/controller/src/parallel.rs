//! Many independent pieces of pure work on all CPUs, results in order.

use std::num::NonZero;

/// Fewer pieces of work than this are done in the caller's thread.
const WORTH_IT: usize = 64;

/// Maps every item, in order, on as many threads as there are CPUs.
pub(crate) fn parallel<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    parallel_with(items, || (), |(), item| work(item))
}

/// The same, with scratch space that each thread makes once.
pub(crate) fn parallel_with<T: Send, S, R: Send>(
    items: Vec<T>,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, T) -> R + Sync,
) -> Vec<R> {
    let run = |items: Vec<T>| {
        let mut scratch = scratch();
        items.into_iter().map(|item| work(&mut scratch, item)).collect::<Vec<R>>()
    };
    if items.len() < WORTH_IT {
        return run(items);
    }
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let share = items.len().div_ceil(threads);
    let mut items = items.into_iter();
    let shares: Vec<Vec<T>> = (0..threads).map(|_| items.by_ref().take(share).collect()).collect();
    let run = &run;
    std::thread::scope(|scope| {
        let spawn = |share: Vec<T>| scope.spawn(move || run(share));
        let threads: Vec<_> = shares.into_iter().map(spawn).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Vec<R>>| match thread.join() {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads.into_iter().flat_map(join).collect()
    })
}
