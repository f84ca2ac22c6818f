//! `guenon agent`: composes source, core, data path and node, and runs until it is told to end.

mod config;

pub use config::{Capacities, Config, XdpMode, hash_key};

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
///
/// Something that it needs is missing: told before anything is changed.
pub fn run(config: Config) -> anyhow::Result<()> {
    let _ = config;
    anyhow::bail!("the agent is not composed yet")
}
