//! The programs of a control plane: where the machine has them, else built from their Go modules, once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::shell::cmd;
use crate::{paths, progress};

/// Version of Kubernetes that is built.
const KUBERNETES: &str = "1.36.3";
const ETCD: &str = "3.6.16";

/// Something that is built from a Go module.
struct Module {
    /// A directory for it in the cache.
    name: &'static str,
    version: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
}

const OF_KUBERNETES: Module = Module {
    name: "kubernetes",
    version: KUBERNETES,
    go_mod: include_str!("go/kubernetes/go.mod"),
    go_sum: include_str!("go/kubernetes/go.sum"),
};
const OF_ETCD: Module = Module {
    name: "etcd",
    version: ETCD,
    go_mod: include_str!("go/etcd/go.mod"),
    go_sum: include_str!("go/etcd/go.sum"),
};

/// Where the programs are.
pub(super) struct Binaries {
    pub(super) etcd: PathBuf,
    pub(super) apiserver: PathBuf,
    pub(super) kubectl: PathBuf,
}

/// Finds each in `$KUBEBUILDER_ASSETS`, on PATH or in the cache; builds what is nowhere.
pub(super) fn find() -> Result<Binaries> {
    Ok(Binaries {
        etcd: program("etcd", &OF_ETCD, "go.etcd.io/etcd/server/v3")?,
        apiserver: program("kube-apiserver", &OF_KUBERNETES, "k8s.io/kubernetes/cmd/kube-apiserver")?,
        kubectl: program("kubectl", &OF_KUBERNETES, "k8s.io/kubernetes/cmd/kubectl")?,
    })
}

fn program(name: &str, module: &Module, package: &str) -> Result<PathBuf> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(|dir| Path::new(&dir).join(name));
    if let Some(found) = assets.filter(|file| file.is_file()).or_else(|| paths::which(name)) {
        return Ok(found);
    }
    let home = paths::cache()?.join("go").join(format!("{}-{}", module.name, module.version));
    let own = home.join("bin").join(name);
    if !own.is_file() {
        build(&home, module, package, name)?;
    }
    Ok(own)
}

fn build(home: &Path, module: &Module, package: &str, name: &str) -> Result<()> {
    if paths::which("go").is_none() {
        bail!(
            "{name} is neither in $KUBEBUILDER_ASSETS nor on PATH, and there is no Go to build it with: install Go \
             (https://go.dev/dl), or name a directory with {name} in KUBEBUILDER_ASSETS"
        );
    }
    progress::step(format_args!("building {name} {} into {} (once; some minutes)", module.version, home.display()));
    let write = |file: &str, text: &str| {
        let file = home.join(file);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    let bin = home.join("bin");
    std::fs::create_dir_all(&bin).with_context(|| format!("cannot create {}", bin.display()))?;
    write("go.mod", module.go_mod)?;
    write("go.sum", module.go_sum)?;
    let version = "k8s.io/component-base/version";
    let (major, minor) = KUBERNETES.split_once('.').unwrap_or((KUBERNETES, "0"));
    let minor = minor.split('.').next().unwrap_or(minor);
    let flags = format!(
        "-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    );
    // Under another name until it is whole.
    let half = bin.join(format!("{name}.part"));
    cmd("go")
        .args(["build", "-trimpath", "-ldflags", &flags, "-o"])
        .arg(&half)
        .arg(package)
        // What the tools need beyond go.sum is looked up and noted there.
        .env("GOFLAGS", "-buildvcs=false -mod=mod")
        .env("CGO_ENABLED", "0")
        .dir(home)
        .limit(Duration::from_secs(45 * 60))
        .show()
        .with_context(|| format!("cannot build {name}; it needs the Go module proxy"))?;
    std::fs::rename(&half, bin.join(name)).with_context(|| format!("cannot put {name} into {}", bin.display()))
}
