//! `cargo xtask kernels`: other kernels, in QEMU.

mod cpio;
mod fetch;
pub(crate) mod guest;
mod initramfs;
mod peers;
mod qemu;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::setup::packages;
use crate::{build, paths, progress, setup};
use fetch::Kernel;
use initramfs::Payload;

/// Test binaries of crates/controller that run in every kernel: tests/NAME.rs.
const TEST_BINARIES: &[&str] = &["packets"];

/// Lines of a guest's console that are shown when it fails.
const SHOWN: usize = 60;

/// Boots every series (all that are supported, if none is named) and runs the tests there.
pub(crate) fn run(series: &[String], update: bool) -> Result<()> {
    setup::root("kernels")?;
    setup::building()?;
    setup::programs(&[packages::KERNELS])?;
    let series = if series.is_empty() { fetch::SERIES.map(str::to_owned).to_vec() } else { series.to_vec() };
    let kernels = fetch::fetch(&series, update)?;
    let payload = payload()?;
    let out = build::target().join("kernels");
    std::fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;

    // The emulator takes one core a guest.
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(kernels.len());
    let queue = Mutex::new(kernels.iter());
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let next = || queue.lock().ok()?.next();
                while let Some(kernel) = next() {
                    let result = test(kernel, &payload, &out);
                    progress::note(format_args!(
                        "{} {}",
                        kernel.release,
                        if result.is_ok() { "passed" } else { "FAILED" }
                    ));
                    if let Ok(mut results) = results.lock() {
                        results.push((kernel, result));
                    }
                }
            });
        }
    });
    let mut results = results.into_inner().map_err(|_| anyhow::anyhow!("a worker panicked"))?;
    results.sort_by_key(|(kernel, _)| series.iter().position(|s| *s == kernel.series));
    println!("{}", summary(&results));
    let failed = results.iter().filter(|(_, result)| result.is_err()).count();
    if failed > 0 || results.len() != kernels.len() {
        bail!("{failed} of {} kernels failed; consoles are in {}", kernels.len(), out.display());
    }
    Ok(())
}

/// What every guest runs: this program, guenon and the packet tests, linked statically.
fn payload() -> Result<Vec<Payload>> {
    progress::step("building guenon and its tests for the guests (static)");
    let built = build::statically(TEST_BINARIES)?;
    let mut files = vec![
        Payload { path: "test/xtask".to_owned(), content: built.xtask },
        Payload { path: "test/guenon".to_owned(), content: built.guenon },
    ];
    for (name, content) in built.tests {
        files.push(Payload { path: format!("test/tests/{name}"), content });
    }
    let demo = paths::root().join("examples/demo");
    for entry in std::fs::read_dir(&demo).with_context(|| format!("cannot read {}", demo.display()))? {
        let content = entry.context("cannot read examples/demo")?.path();
        let name = content.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push(Payload { path: format!("test/manifests/{name}"), content });
    }
    Ok(files)
}

/// One kernel. The value is what its guest reported, a line each.
fn test(kernel: &Kernel, payload: &[Payload], out: &Path) -> Result<Vec<String>> {
    progress::step(format_args!("booting {} ({})", kernel.release, kernel.series));
    let image = initramfs::build(kernel, payload, "exec /test/xtask guest\n")?;
    let file = out.join(format!("{}.initramfs", kernel.release));
    std::fs::write(&file, image).with_context(|| format!("cannot write {}", file.display()))?;
    let console = out.join(format!("{}.console", kernel.release));
    let outcome = qemu::boot_twice(kernel, &file, &console);
    let _ = std::fs::remove_file(&file); // large, and made anew each time
    let outcome = outcome?;
    match outcome.status {
        Some(0) => Ok(guest::reported(&outcome.console)),
        status => {
            let lines: Vec<&str> = outcome.console.lines().collect();
            let tail = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
            let how = status.map_or("the guest never came to an end".to_owned(), |s| format!("exit status {s}"));
            bail!("{how}; the end of {}:\n{tail}", console.display())
        }
    }
}

/// A table of what was reported; below it, how kernels failed.
fn summary(results: &[(&Kernel, Result<Vec<String>>)]) -> String {
    let mut rows = Vec::new();
    let mut failures = String::new();
    for (kernel, result) in results {
        let said = match result {
            Ok(lines) => lines.clone(),
            Err(error) => {
                failures.push_str(&format!("\n{} failed: {error:#}\n", kernel.release));
                vec!["FAILED".to_owned()]
            }
        };
        for (number, line) in said.into_iter().enumerate() {
            let first = |text: &str| if number == 0 { text.to_owned() } else { String::new() };
            rows.push(vec![first(&kernel.series), first(&kernel.release), line]);
        }
    }
    format!("{}\n{failures}", progress::table(&["series", "release", ""], &rows))
}

/// What was built for the guests.
pub(crate) struct Static {
    pub(crate) xtask: PathBuf,
    pub(crate) guenon: PathBuf,
    /// Name and file of each test binary.
    pub(crate) tests: Vec<(String, PathBuf)>,
}

/// How long the packet tests may take in a guest.
const TESTS_LIMIT: Duration = Duration::from_secs(1800);
