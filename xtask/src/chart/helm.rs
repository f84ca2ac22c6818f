//! The program `helm`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{DIRECTORY, NAMESPACE, RELEASE};
use crate::paths;
use crate::shell::{Cmd, cmd};

/// The oldest Kubernetes that is supported: what templates are rendered for where no server is asked.
const KUBERNETES: &str = "1.33.0";

/// Where it is.
pub(super) struct Helm {
    program: PathBuf,
    /// Its own caches and settings, so that the user's say nothing here.
    home: PathBuf,
}

impl Helm {
    /// In `$KUBEBUILDER_ASSETS`, on PATH or in the cache.
    pub(super) fn find() -> Result<Self> {
        let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(|dir| Path::new(&dir).join("helm"));
        let cached = paths::cache()?.join("go/helm-4.2.3/bin/helm");
        let found = assets.into_iter().filter(|file| file.is_file()).chain(paths::which("helm")).next();
        let Some(program) = found.or_else(|| cached.is_file().then_some(cached)) else {
            bail!("helm is neither in $KUBEBUILDER_ASSETS nor on PATH: install it (https://helm.sh)")
        };
        Ok(Self { program, home: paths::cache()?.join("helm-home") })
    }

    /// `helm ...` in the root of the clone.
    pub(super) fn cmd(&self, args: &[&str]) -> Cmd {
        ["CACHE", "CONFIG", "DATA"].iter().fold(cmd(&self.program).args(args).dir(paths::root()), |command, kind| {
            command.env(&format!("HELM_{kind}_HOME"), self.home.join(kind.to_lowercase()))
        })
    }

    /// `helm template`, of these values.
    pub(super) fn template(&self, values: &[&str]) -> Cmd {
        self.cmd(&["template", RELEASE, DIRECTORY, "--namespace", NAMESPACE, "--kube-version", KUBERNETES]).args(values)
    }

    pub(super) fn lint(&self) -> Result<()> {
        self.cmd(&["lint", "--strict", DIRECTORY]).run().context("see the message; `helm lint` explains it")
    }
}
