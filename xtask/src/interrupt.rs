//! Ctrl-C: whatever runs ends with an error, and what was made is removed on the way out.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

static PRESSED: AtomicBool = AtomicBool::new(false);

/// Takes SIGINT and SIGTERM from now on, by handlers: a blocked signal would stay blocked in every child.
pub(crate) fn install() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot take SIGINT")?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if PRESSED.swap(true, Ordering::SeqCst) {
                eprintln!("still cleaning up; `cargo xtask demo --clean` removes what may be left");
            } else {
                eprintln!("\ninterrupted: cleaning up");
            }
        }
    });
    Ok(())
}

/// Whether somebody wants us to stop.
pub(crate) fn pressed() -> bool {
    PRESSED.load(Ordering::SeqCst)
}

/// An error if somebody wants us to stop.
pub(crate) fn check() -> Result<()> {
    if pressed() {
        bail!("interrupted");
    }
    Ok(())
}

/// From now on nobody has pressed anything: cleaning up must run to its end.
pub(crate) fn forgive() {
    PRESSED.store(false, Ordering::SeqCst);
}
