//! The log: on standard error, for people or as one JSON object a line.

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; coloured where standard error is a terminal and `NO_COLOR` is not set.
    Text,
    /// One JSON object a line.
    Json,
}

/// What others log beside us, and is said better.
const QUIET: &str = "kube_client::client::builder=off";

/// Starts logging at this level (`info`), or by this filter (`info,guenon_controller=debug`).
///
/// # Errors
///
/// The filter cannot be read.
pub fn start(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    // Every request that fails is told by whoever made it, once, with its cure.
    let filter = format!("{filter},{QUIET}");
    let filter = EnvFilter::try_new(&filter).with_context(|| {
        format!("--log-level `{filter}` cannot be read; use error, warn, info, debug, trace, or `info,TARGET=debug`")
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => log.with_ansi(colour_on_stderr()).init(),
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
    }
    Ok(())
}

fn colour_on_stderr() -> bool {
    use std::io::IsTerminal as _;
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::io::stderr().is_terminal()
}
