//! The programs of a cluster: where the machine has them, else built from their Go modules, once.

mod list;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::shell::cmd;
use crate::{paths, progress};
pub(crate) use list::{
    APISERVER, CONTAINERD, CONTROLLER_MANAGER, CTR, ETCD, HELM, KUBECTL, KUBELET, PROXY, SCHEDULER, SHIM,
};

/// Something that is built from a Go module.
#[derive(Debug)]
struct Module {
    /// A directory for it in the cache.
    name: &'static str,
    version: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
    /// Parts that are left out, or wanted.
    tags: &'static str,
    /// What the linker sets: a program says its version to others, who act by it.
    set: &'static [(&'static str, &'static str)],
}

/// A program of a module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    name: &'static str,
    module: &'static Module,
    package: &'static str,
    /// Whether one that is on PATH will do, of whatever version.
    any: bool,
}

/// Finds each in `$KUBEBUILDER_ASSETS`, on PATH or in the cache; builds what is nowhere.
pub(crate) fn find<const N: usize>(programs: [&Program; N]) -> Result<[PathBuf; N]> {
    let mut missing: BTreeMap<&str, Vec<&Program>> = BTreeMap::new();
    for program in programs {
        if program.place()?.1 == State::Missing {
            missing.entry(program.module.name).or_default().push(program);
        }
    }
    for programs in missing.values() {
        build(programs)?;
    }
    let mut places = programs.map(|_| PathBuf::new());
    for (place, program) in places.iter_mut().zip(programs) {
        *place = program.place()?.0;
    }
    Ok(places)
}

#[derive(PartialEq, Eq)]
enum State {
    There,
    Missing,
}

impl Program {
    /// Where it is, or will be once it is built.
    fn place(&self) -> Result<(PathBuf, State)> {
        let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(|dir| Path::new(&dir).join(self.name));
        let found = assets.filter(|file| file.is_file());
        if let Some(found) = found.or_else(|| self.any.then(|| paths::which(self.name)).flatten()) {
            return Ok((found, State::There));
        }
        let own = self.module.home()?.join("bin").join(self.name);
        let state = if own.is_file() { State::There } else { State::Missing };
        Ok((own, state))
    }
}

impl Module {
    fn home(&self) -> Result<PathBuf> {
        Ok(paths::cache()?.join("go").join(format!("{}-{}", self.name, self.version)))
    }
}

/// Builds programs of one module at once, which takes little longer than one of them.
fn build(programs: &[&Program]) -> Result<()> {
    let Some(module) = programs.first().map(|program| program.module) else { return Ok(()) };
    let names = programs.iter().map(|program| program.name).collect::<Vec<_>>().join(", ");
    if paths::which("go").is_none() {
        bail!(
            "{names}: not in $KUBEBUILDER_ASSETS, and there is no Go to build with: install Go (https://go.dev/dl), \
             or name a directory that has them in KUBEBUILDER_ASSETS"
        );
    }
    let home = module.home()?;
    progress::step(format_args!("building {names} {} into {} (once; some minutes)", module.version, home.display()));
    // Under another name until they are whole.
    let (bin, half) = (home.join("bin"), home.join("half"));
    for dir in [&bin, &half] {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    let write = |file: &str, text: &str| {
        let file = home.join(file);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    write("go.mod", module.go_mod)?;
    write("go.sum", module.go_sum)?;
    let set: String = module.set.iter().map(|(name, value)| format!(" -X {name}={value}")).collect();
    for program in programs {
        // One by one, since a program may be named otherwise than its package; what they share is compiled once.
        cmd("go")
            .args(["build", "-trimpath", "-tags", module.tags, "-ldflags", &format!("-s -w{set}"), "-o"])
            .arg(half.join(program.name))
            .arg(program.package)
            // What the programs need beyond go.sum is looked up and noted there.
            .env("GOFLAGS", "-buildvcs=false -mod=mod")
            .env("CGO_ENABLED", "0")
            .dir(&home)
            .limit(Duration::from_secs(45 * 60))
            .show()
            .with_context(|| format!("cannot build {}; it needs the Go module proxy", program.name))?;
        std::fs::rename(half.join(program.name), bin.join(program.name))
            .with_context(|| format!("cannot put {} into {}", program.name, bin.display()))?;
    }
    Ok(())
}
