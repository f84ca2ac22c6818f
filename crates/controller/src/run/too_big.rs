//! The program's messages, awaited.

use std::os::fd::AsFd as _;
use std::thread;

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;

use crate::datapath::{Events, TunnelTooBig};

/// Messages that may wait; what comes beyond is said again by the router's next one.
const WAITING: usize = 256;

/// Hands the program's messages on, from a thread that lives as long as the process.
///
/// # Errors
///
/// No thread can be started.
pub(super) fn receive(mut events: Events) -> anyhow::Result<mpsc::Receiver<TunnelTooBig>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let wait_and_send = move || {
        while !sender.is_closed() {
            while let Some(event) = events.next_event() {
                // Full: dropped, see above.
                let _ = sender.try_send(event);
            }
            match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => {
                    tracing::error!(
                        "cannot wait for messages of the program: {error}; MTUs that routers tell are not heard"
                    );
                    // The agent goes on without.
                    thread::park();
                }
            }
        }
    };
    thread::Builder::new().name("too-big".to_owned()).spawn(wait_and_send).context("cannot start a thread")?;
    Ok(receiver)
}
