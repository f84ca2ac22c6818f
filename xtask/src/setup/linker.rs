//! bpf-linker, which makes one BPF object of the crates' bitcode. Built once, against the LLVM inside rustc.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::toolchain;
use crate::shell::cmd;
use crate::{paths, progress};

const VERSION: &str = "0.13.0";
/// Feature of bpf-linker for the LLVM of the pinned rustc.
const LLVM_FEATURE: &str = "llvm-22";

/// Makes sure that crates/controller/build.rs finds one: at `$GUENON_BPF_LINKER`, on PATH, or in the cache.
pub(super) fn ensure() -> Result<()> {
    if let Some(named) = std::env::var_os("GUENON_BPF_LINKER") {
        if works(Path::new(&named)) {
            return Ok(());
        }
        bail!("GUENON_BPF_LINKER={} does not run; unset it, or name a bpf-linker {VERSION}", named.display());
    }
    if paths::which("bpf-linker").is_some_and(|found| works(&found)) {
        return Ok(());
    }
    let tools = paths::cache()?.join("tools");
    let own = tools.join("bin/bpf-linker");
    if works(&own) {
        return Ok(());
    }
    let prefix = llvm_prefix(&tools)?;
    if works(&own) {
        return Ok(()); // only rustc had moved
    }
    build(&tools, &prefix)?;
    if !works(&own) {
        bail!("{} was built but does not run: `ldd` tells which library it misses", own.display());
    }
    Ok(())
}

fn works(linker: &Path) -> bool {
    linker.is_file() && cmd(linker).arg("--version").try_read().is_ok_and(|said| said.status.success())
}

/// A directory that looks like an LLVM installation and holds rustc's own libLLVM. It stays: the linker's
/// RUNPATH leads here.
fn llvm_prefix(tools: &Path) -> Result<PathBuf> {
    let lib = toolchain::sysroot()?.join("lib");
    let entries = std::fs::read_dir(&lib).with_context(|| format!("cannot read {}", lib.display()))?;
    let file = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| name.starts_with("libLLVM.so."))
        .with_context(|| {
            format!("no libLLVM.so.* in {}: this rustc has no shared LLVM; use rustup's Rust", lib.display())
        })?;
    let prefix = tools.join("llvm");
    let links = prefix.join("lib");
    std::fs::create_dir_all(&links).with_context(|| format!("cannot create {}", links.display()))?;
    for name in ["libLLVM.so", &file] {
        let link = links.join(name);
        if link.symlink_metadata().is_ok() {
            std::fs::remove_file(&link).with_context(|| format!("cannot replace {}", link.display()))?;
        }
        std::os::unix::fs::symlink(lib.join(&file), &link)
            .with_context(|| format!("cannot link {}", link.display()))?;
    }
    Ok(prefix)
}

fn build(tools: &Path, prefix: &Path) -> Result<()> {
    progress::step(format_args!(
        "building bpf-linker {VERSION} into {} (once; a few minutes)",
        tools.join("bin").display()
    ));
    let scratch = tools.join("build");
    cmd(paths::cargo())
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", LLVM_FEATURE])
        .arg("--root")
        .arg(tools)
        .env("LLVM_PREFIX", prefix)
        .env("CARGO_TARGET_DIR", &scratch)
        .without_env("RUSTFLAGS")
        .without_env("CARGO_ENCODED_RUSTFLAGS")
        .dir(paths::root()) // here rust-toolchain.toml says which rustc
        .limit(Duration::from_secs(45 * 60))
        .show()
        .context("cannot build bpf-linker; it needs a C compiler and the crates.io registry")?;
    // Objects of a program that is done: not worth a gigabyte, and no harm if they stay.
    let _ = std::fs::remove_dir_all(scratch);
    Ok(())
}
