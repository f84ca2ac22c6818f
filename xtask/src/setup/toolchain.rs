//! The Rust components that rust-toolchain.toml names. rustup brings them by itself; a toolchain that was
//! installed otherwise may lack them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::shell::{cmd, words};
use crate::{paths, progress};

/// rustc's own directory.
pub(super) fn sysroot() -> Result<std::path::PathBuf> {
    let said = words("rustc --print sysroot").dir(paths::root()).limit(Duration::from_secs(600)).read()?;
    Ok(Path::new(said.trim()).to_owned())
}

pub(super) fn ensure() -> Result<()> {
    let sysroot = sysroot()?;
    let wanted = [
        ("rust-src", "lib/rustlib/src/rust/library/core/Cargo.toml"),
        ("rustfmt", "bin/rustfmt"),
        ("clippy", "bin/cargo-clippy"),
    ];
    let missing: Vec<&str> = wanted.iter().filter(|(_, file)| !sysroot.join(file).exists()).map(|(c, _)| *c).collect();
    if missing.is_empty() {
        return Ok(());
    }
    progress::step(format_args!("adding Rust components: {}", missing.join(" ")));
    cmd("rustup")
        .args(["component", "add"])
        .args(&missing)
        .dir(paths::root())
        .limit(Duration::from_secs(600))
        .show()
        .with_context(|| {
            format!("{} lacks {}; install them by hand, or use rustup's Rust", sysroot.display(), missing.join(", "))
        })
}
