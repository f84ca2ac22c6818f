//! Builds the XDP programs (`guenon-xdp` of crates/ebpf) and hands the object to `datapath::object`.

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const PACKAGE: &str = "guenon-ebpf";
/// What runs on nodes, and what times it (embedded by the benchmark alone).
const BINARIES: [&str; 2] = ["guenon-xdp", "guenon-bench"];
const TARGET: &str = "bpfel-unknown-none";
/// Names the linker; else it is looked for on PATH, then where `cargo xtask setup` puts it.
const LINKER_VARIABLE: &str = "GUENON_BPF_LINKER";
/// BPF instruction set 3 (kernel 5.1): 32-bit arithmetic and jumps.
const CPU: &str = "v3";

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let ebpf = manifest.parent().ok_or("crates/controller has no parent directory")?.join("ebpf");
    for path in ["src", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", ebpf.join(path).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={LINKER_VARIABLE}");

    if env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() != Ok("little") {
        return Err("guenon's map layouts are little-endian: big-endian machines are not supported".into());
    }
    let out = PathBuf::from(variable("OUT_DIR")?);
    let objects = build(&ebpf, &linker()?, &out.join("bpf"))?;
    for binary in BINARIES {
        let object = objects.join(binary);
        fs::copy(&object, out.join(binary)).map_err(|error| format!("cannot copy {}: {error}", object.display()))?;
    }
    Ok(())
}

/// Runs cargo for the BPF target and returns the directory of the objects.
fn build(ebpf: &Path, linker: &Path, target_dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let flags = [
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
        format!("-Ctarget-cpu={CPU}"),
        // Packets are not aligned, and every CPU that runs this in a kernel loads words at any address.
        "-Ctarget-feature=+allows-misaligned-mem-access".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        // Short loops over header words are unrolled, searches of tables are not.
        "-Cllvm-args=-unroll-full-max-count=16".to_owned(),
        "-Clink-arg=--llvm-args=-unroll-full-max-count=16".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", linker.display()),
    ];
    let mut command = Command::new(variable("CARGO")?);
    command
        .current_dir(ebpf)
        .args(["build", "--release", "--features", "bpf", "-Zbuild-std=core"])
        .args(["--package", PACKAGE, "--bins", "--target", TARGET, "--target-dir"])
        .arg(target_dir)
        // `-Zbuild-std` on a stable compiler, for this one command.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    // What cargo tells this script about the host's build is not meant for the one inside.
    for name in ["RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET", "CARGO_BUILD_RUSTFLAGS"] {
        command.env_remove(name);
    }
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "building the XDP programs failed ({}); if a tool or rust-src is missing, run `cargo xtask setup`\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    Ok(target_dir.join(TARGET).join("release"))
}

/// Where bpf-linker is.
fn linker() -> Result<PathBuf, Box<dyn Error>> {
    if let Some(path) = env::var_os(LINKER_VARIABLE) {
        let path = PathBuf::from(path);
        if path.is_file() {
            return Ok(path);
        }
        return Err(format!("{LINKER_VARIABLE} names {}, which is no file", path.display()).into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|dir| dir.join("bpf-linker"));
    let cache = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/guenon/tools/bin/bpf-linker"));
    on_path.chain(cache).find(|path| path.is_file()).ok_or_else(|| {
        format!(
            "bpf-linker, which links the XDP programs, is neither at ${LINKER_VARIABLE}, nor on PATH, nor in \
             ~/.cache/guenon/tools/bin; run `cargo xtask setup`"
        )
        .into()
    })
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set: this script is run by cargo"))
}
