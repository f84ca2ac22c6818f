//! `cargo xtask test`: every test there is, and a table of how each step went.

mod documents;
mod libtest;
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
    conclude(results)
}

/// One test of a step: runs it, and says how it went.
pub(crate) fn count(name: &str, test: impl FnOnce() -> Result<()>) -> Count {
    told(name, || test().map(|()| String::new()))
}

/// The same of a test that says what it saw.
pub(crate) fn told(name: &str, test: impl FnOnce() -> Result<String>) -> Count {
    let begin = Instant::now();
    let result = test();
    let took = begin.elapsed().as_secs_f64();
    match result {
        Ok(said) if said.is_empty() => println!("test {name} ... ok ({took:.0} s)"),
        Ok(said) => println!("test {name} ... ok ({took:.0} s): {said}"),
        Err(error) => {
            let why = format!("{error:#}");
            println!("test {name} ... FAILED ({took:.0} s)\n{why}\n");
            return Count::failure(name, why);
        }
    }
    Count::PASSED
}

/// `--list`
pub(crate) fn list() {
    let rows: Vec<Vec<String>> = STEPS.iter().map(|step| vec![step.name.to_owned(), step.about.to_owned()]).collect();
    println!("{}", progress::table(&["step", "does"], &rows));
}

/// What failed, once more and last: of a long run often only the end is kept.
fn conclude(results: Vec<(&Step, Duration, Result<Count>)>) -> Result<()> {
    let mut total = Count::default();
    let mut rows = Vec::new();
    for (step, time, result) in results {
        // With an error it ended before it could count.
        let count = result.unwrap_or_else(|error| Count::failure(step.name, format!("{error:#}")));
        let remark = if count.failed.is_empty() { "" } else { "FAILED" };
        let seconds = format!("{:.0} s", time.as_secs_f64());
        let (passed, failed) = (count.passed.to_string(), count.failed.len().to_string());
        rows.push(vec![step.name.to_owned(), passed, failed, seconds, remark.to_owned()]);
        for failure in &count.failed {
            println!("\n==> FAILED in {}: {}\n{}", step.name, failure.test, tail(&failure.why));
        }
        total = total + count;
    }
    println!("\n{}\n", progress::table(&["step", "passed", "failed", "time", ""], &rows));
    println!("{} passed, {} failed", total.passed, total.failed.len());
    if !total.failed.is_empty() {
        bail!("some tests failed; `cargo xtask test --only STEP` repeats one step");
    }
    Ok(())
}

/// The last lines of a text.
fn tail(text: &str) -> String {
    const LINES: usize = 40;
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
