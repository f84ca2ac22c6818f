//! `cargo xtask test`: every test there is, and a table of how each step went.

mod documents;
mod licences;
mod purity;
mod steps;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{interrupt, progress, setup};
pub(crate) use steps::Count;
use steps::{STEPS, Step};

/// Runs the named steps, or all; a failure does not stop the others. Of live scenarios, those that `scenario` names.
pub(crate) fn run(only: &[String], scenario: Option<&str>) -> Result<()> {
    let known = |name: &String| STEPS.iter().any(|step| step.name == name);
    if let Some(unknown) = only.iter().find(|name| !known(name)) {
        bail!("no step {unknown:?}; `cargo xtask test --list` shows them");
    }
    setup::root("test")?;
    setup::building()?;
    let chosen = STEPS.iter().filter(|step| only.is_empty() || only.iter().any(|name| name == step.name));
    let mut results = Vec::new();
    for step in chosen {
        progress::step(format_args!("{}: {}", step.name, step.about));
        let begin = Instant::now();
        let result = (step.run)(scenario);
        interrupt::check()?;
        if let Err(error) = &result {
            eprintln!("FAILED {}: {error:#}", step.name);
        }
        results.push((step, begin.elapsed(), result));
    }
    conclude(&results)
}

/// One test of a step: runs it, and says how it went.
pub(crate) fn count(name: &str, test: impl FnOnce() -> Result<()>) -> Count {
    match test() {
        Ok(()) => {
            println!("test {name} ... ok");
            Count { passed: 1, failed: 0 }
        }
        Err(error) => {
            println!("test {name} ... FAILED\n{error:#}\n");
            Count { passed: 0, failed: 1 }
        }
    }
}

/// `--list`
pub(crate) fn list() {
    let rows: Vec<Vec<String>> = STEPS.iter().map(|step| vec![step.name.to_owned(), step.about.to_owned()]).collect();
    println!("{}", progress::table(&["step", "does"], &rows));
}

fn conclude(results: &[(&Step, Duration, Result<Count>)]) -> Result<()> {
    let mut total = Count::default();
    let mut rows = Vec::new();
    for (step, time, result) in results {
        let (count, remark) = match result {
            Ok(count) if count.failed == 0 => (*count, String::new()),
            Ok(count) => (*count, "FAILED".to_owned()),
            // It ended before it could count.
            Err(error) => (Count { passed: 0, failed: 1 }, format!("FAILED: {}", first_line(&format!("{error:#}")))),
        };
        total = total + count;
        let seconds = format!("{:.0} s", time.as_secs_f64());
        rows.push(vec![step.name.to_owned(), count.passed.to_string(), count.failed.to_string(), seconds, remark]);
    }
    println!("\n{}\n", progress::table(&["step", "passed", "failed", "time", ""], &rows));
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 {
        bail!("some tests failed; `cargo xtask test --only STEP` repeats one step");
    }
    Ok(())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
