//! `guenon status`: what is in force now, read from the maps.

mod drops;
mod endpoints;
mod findings;
pub(in crate::cli) mod format;
mod interfaces;
mod overview;
mod rows;
mod services;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;

use self::format::Style;
use super::options::{Pins, StateDir};
use crate::agent_report::AgentReport;
use crate::datapath::{Extent, Reader, lock_holder};
use crate::kernel_drops::{self, KernelDrops};
use crate::model::State;
use crate::reading::Reading;

const EXAMPLES: &str = "\
Examples:
  guenon status                       is it working, and if not, why and what to do
  guenon status drops --watch         drops with cause and cure, and how many a second
  guenon status endpoints -o json | jq '.[] | select(.path == \"unreachable\")'
  guenon status rows                  how the rows of each service are shared out, and what was counted

JSON is one document on one line (with --watch one line each time). No argument: an object with `node`, `revision`,
`revision_at`, `agent` (what the agent says of itself, `null` where none has run), `findings`, `interfaces`, `services`,
`tunnels`, `directors`, `drops`; else an array of what the table shows, a field a column. Times are seconds since the Unix epoch.

Exit code 1: there is no data path, or it cannot be read.";

/// What is in force now, read from the maps
///
/// What is in force now, read from the maps alone (with what a running agent says of its problems). Needs root, no agent.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// What to show; by default an overview that says whether it works, and if not, why and what to do
    #[arg(value_enum)]
    subject: Option<Subject>,

    /// Output for people or for scripts
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Output,

    /// Show it again every two seconds (or as many as given), with what changed a second
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", require_equals = true,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,

    #[command(flatten)]
    pins: Pins,

    #[command(flatten)]
    state: StateDir,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// Services and their frontends
    Services,
    /// Endpoints, the way to each, and what went there
    Endpoints,
    /// How rows are shared out among endpoints
    Rows,
    /// Interfaces, how the program is attached, and what it did with packets
    Interfaces,
    /// Drops by reason, with cause and cure
    Drops,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Output {
    /// A table
    Table,
    /// JSON
    Json,
}

/// All that is shown, at one moment.
struct InForce {
    /// Seconds since the Unix epoch.
    now: u64,
    /// What the maps count.
    reading: Reading,
    /// What the maps hold.
    state: State,
    /// What an agent says, if one has left a report.
    agent: Option<AgentReport>,
    /// Whether an agent runs now.
    agent_runs: bool,
    /// What the kernel itself dropped.
    kernel_drops: KernelDrops,
    /// The reading before this one and how long ago it was.
    before: Option<(Duration, Reading)>,
}

pub(in crate::cli) fn run(args: Args) -> anyhow::Result<()> {
    let style = Style::of_stdout(args.output == Output::Json);
    let mut before = None;
    loop {
        let read_at = Instant::now();
        let in_force = read(&args, before.map(|(at, reading): (Instant, Reading)| (at.elapsed(), reading)))?;
        let text = match args.output {
            Output::Table => table(args.subject, &in_force, style),
            Output::Json => json(args.subject, &in_force)?,
        };
        let mut out = std::io::stdout().lock();
        if args.watch.is_some() && args.output == Output::Table && std::io::stdout().is_terminal() {
            out.write_all(b"\x1b[2J\x1b[H")?; // clear, home
        }
        writeln!(out, "{}", text.trim_end())?;
        out.flush()?;
        let Some(seconds) = args.watch else { return Ok(()) };
        before = Some((read_at, in_force.reading));
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

fn table(subject: Option<Subject>, in_force: &InForce, style: Style) -> String {
    match subject {
        None => overview::text(in_force, style),
        Some(Subject::Services) => services::table(&services::list(in_force), style),
        Some(Subject::Endpoints) => endpoints::table(&endpoints::list(in_force), style),
        Some(Subject::Rows) => rows::table(&rows::list(in_force), style),
        Some(Subject::Interfaces) => interfaces::table(&interfaces::list(in_force), style),
        Some(Subject::Drops) => drops::table(&drops::list(in_force), style),
    }
}

fn json(subject: Option<Subject>, in_force: &InForce) -> serde_json::Result<String> {
    match subject {
        None => serde_json::to_string(&overview::Overview::of(in_force)),
        Some(Subject::Services) => serde_json::to_string(&services::list(in_force)),
        Some(Subject::Endpoints) => serde_json::to_string(&endpoints::list(in_force)),
        Some(Subject::Rows) => serde_json::to_string(&rows::list(in_force)),
        Some(Subject::Interfaces) => serde_json::to_string(&interfaces::list(in_force)),
        Some(Subject::Drops) => serde_json::to_string(&drops::list(in_force)),
    }
}

fn read(args: &Args, before: Option<(Duration, Reading)>) -> anyhow::Result<InForce> {
    let (Pins { pin_dir }, StateDir { state_dir }) = (&args.pins, &args.state);
    let mut reader = Reader::open(pin_dir, state_dir)?;
    let wants = |subject| args.subject == Some(subject);
    let extent = Extent { frontends: wants(Subject::Services), endpoints: wants(Subject::Endpoints) };
    Ok(InForce {
        now: now(),
        reading: reader.reading(extent)?,
        state: reader.state()?,
        agent: AgentReport::read(state_dir),
        agent_runs: lock_holder(pin_dir).is_some(),
        kernel_drops: kernel_drops::read(),
        before,
    })
}

/// Seconds since the Unix epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
