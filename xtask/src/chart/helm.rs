//! The program `helm`.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{DIRECTORY, NAMESPACE, RELEASE};
use crate::shell::{Cmd, cmd};
use crate::{paths, programs};

/// The oldest Kubernetes that is supported: what templates are rendered for where no server is asked.
const KUBERNETES: &str = "1.33.0";

/// Where it is.
pub(super) struct Helm {
    program: PathBuf,
    /// Its own caches and settings, so that the user's say nothing here.
    home: PathBuf,
}

impl Helm {
    /// In `$KUBEBUILDER_ASSETS`, on PATH or in the cache, else built.
    pub(super) fn find() -> Result<Self> {
        let [program] = programs::find([&programs::HELM])?;
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
