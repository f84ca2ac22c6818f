//! `guenon check`: whether Guenon works in a cluster, as its objects tell.

mod judge;
mod pulses;
#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use self::judge::{Finding, Verdict, holds, judge, of_services};
use self::pulses::Pulses;
use super::options::Server;
use super::status::Output;
use super::status::format::{Style, Tone, count, plain, table, text};
use crate::kube::{self, Surveyor};

/// How often is looked.
const LOOK: Duration = Duration::from_secs(2);
/// Things that are named at once while they are waited for.
const TOLD: usize = 10;

const EXAMPLES: &str = "\
Examples:
  guenon check --namespace guenon-system
      Is it working? With the kubeconfig that kubectl uses.
  guenon check --namespace guenon-system --strict --timeout 300 && echo deployed
      Wait until every VirtualService is Ready, too.
  guenon check --namespace guenon-system -o json | jq -r '.findings[] | select(.result != \"ok\") | .about'
  helm test guenon --namespace guenon-system
      The same from inside of the cluster.

An agent or controller is believed to live once it is seen to renew its Lease. No clocks of two machines are compared, so a \
check takes up to 10 s where all is well, and a --timeout of less than that fails. A node without a GuenonNode is not \
noticed: `kubectl get ds` shows whether every node has its pod.

JSON is one document on one line: `ok`, `seconds` that it took, `findings` with `about`, `result` (ok, warning, failed), \
`message` and, where there is something to do, `cure`.

It needs the verb list of guenonnodes and virtualservices (guenon.dev), and of leases in the namespace.

Exit code 0: it works. 1: something is wrong, and it says what.";

/// Is Guenon working in this cluster, and if not, why and what to do
///
/// Waits until a controller leads, every GuenonNode is Ready with its agent heard, and all directors hash flows by the same
/// key; says what it waits for. VirtualServices that are not Ready are told of.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    server: Server,

    /// How long is waited for it to be true, seconds
    #[arg(long, env = "GUENON_TIMEOUT", value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,

    /// A VirtualService that is not Ready is a failure, too
    #[arg(long, env = "GUENON_STRICT", value_parser = clap::builder::FalseyValueParser::new())]
    strict: bool,

    /// Output for people or for scripts
    #[arg(short, long, env = "GUENON_OUTPUT", value_enum, value_name = "FORMAT", default_value = "table")]
    output: Output,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let Args { server: Server { kubeconfig, namespace }, timeout, strict, output } = args;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let begin = Instant::now();
    let findings = runtime.block_on(async {
        let client = kube::connect(kubeconfig.as_deref()).await?;
        let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
        let surveyor = Surveyor::new(&client, &namespace);
        anyhow::Ok(wait(&surveyor, &namespace, Duration::from_secs(timeout), strict).await)
    })?;
    show(&findings, output, begin.elapsed())?;
    let failed = findings.iter().filter(|finding| finding.result == Verdict::Failed).count();
    if failed > 0 {
        bail!("{} after {} s; see above", count(failed, "failure"), begin.elapsed().as_secs());
    }
    Ok(())
}

/// Looks until nothing is wrong or the time is up.
async fn wait(surveyor: &Surveyor, namespace: &str, limit: Duration, strict: bool) -> Vec<Finding> {
    let begin = Instant::now();
    let mut pulses = Pulses::default();
    let mut told = Vec::new();
    loop {
        let survey = surveyor.survey().await;
        let over = begin.elapsed() >= limit;
        let mut findings = match &survey {
            Ok(survey) => {
                let now = Instant::now();
                pulses.saw(&survey.leases, now);
                judge(survey, &pulses, namespace, now)
            }
            Err(why) => vec![Finding::unanswered(why.clone())],
        };
        // There may be thousands: they are read when the rest is known.
        if survey.is_ok() && (over || holds(&findings)) {
            match surveyor.services().await {
                Ok(services) => findings.extend(of_services(&services, strict)),
                Err(why) => findings.push(Finding::unanswered(why)),
            }
        }
        if over || holds(&findings) {
            return findings;
        }
        let waits: Vec<String> = findings.iter().filter(|one| one.result == Verdict::Failed).map(line).collect();
        let new: Vec<&String> = waits.iter().filter(|wait| !told.contains(*wait)).collect();
        new.iter().take(TOLD).for_each(|wait| eprintln!("waiting: {wait}"));
        if let more @ 1.. = new.len().saturating_sub(TOLD) {
            eprintln!("waiting: and for {more} more");
        }
        told = waits;
        tokio::time::sleep(LOOK.min(limit.saturating_sub(begin.elapsed()))).await;
    }
}

fn line(finding: &Finding) -> String {
    format!("{}: {}", finding.about, finding.message)
}

fn show(findings: &[Finding], output: Output, took: Duration) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match output {
        Output::Json => {
            let document = serde_json::json!({"ok": holds(findings), "seconds": took.as_secs(), "findings": findings});
            writeln!(out, "{document}")
        }
        Output::Table => {
            let style = Style::of_stdout(false);
            let row = |Finding { about, result, message, cure }: &Finding| {
                let (word, tone) = match result {
                    Verdict::Ok => ("ok", Tone::Good),
                    Verdict::Warning => ("warning", Tone::Warning),
                    Verdict::Failed => ("FAILED", Tone::Bad),
                };
                let message = cure.iter().fold(message.clone(), |message, cure| format!("{message}; {cure}"));
                vec![plain(about), text(word, tone, style), plain(message)]
            };
            writeln!(out, "{}", table(&["CHECK", "RESULT", "WHAT"], findings.iter().map(row), style))
        }
    }
}
