//! The images that nodes import: nothing is pulled from anywhere.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::image::{Image, Layer, TARGET, binary, target};
use crate::{build, progress};

/// What keeps a pod's namespaces.
pub(super) const PAUSE: &str = "localhost/guenon-pause:1";
/// An echo server; examples/cluster names it.
const ECHO: &str = "localhost/guenon-echo:1";
/// Where images of Guenon are, without a tag.
pub(super) const GUENON: &str = "localhost/guenon";
/// Two versions, of the same binary: the one that is installed, and the one that it is upgraded to.
pub(super) const TAGS: [&str; 2] = [env!("CARGO_PKG_VERSION"), concat!(env!("CARGO_PKG_VERSION"), "-next")];

/// Builds what they consist of and writes the archives.
pub(super) fn make(dir: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let (guenon, xtask) = (Layer::new("guenon", &binary()?)?, Layer::new("xtask", &static_xtask()?)?);
    let names = TAGS.map(|tag| format!("{GUENON}:{tag}"));
    let images = [
        Image { name: PAUSE, title: "pause", description: "waits", layer: &xtask, entrypoint: &["/xtask", "pause"] },
        Image {
            name: ECHO,
            title: "echo",
            description: "HTTP and UDP servers that answer with their name",
            layer: &xtask,
            entrypoint: &["/xtask", "serve"],
        },
        Image::guenon(&names[0], &guenon),
        Image::guenon(&names[1], &guenon),
    ];
    let mut files = Vec::new();
    for (number, image) in images.iter().enumerate() {
        let file = dir.join(format!("{number}.tar"));
        image.write(&file)?;
        files.push(file);
    }
    Ok(files)
}

/// Ourselves, without any dynamic library: servers and `pause` are parts of it.
fn static_xtask() -> Result<PathBuf> {
    target()?;
    progress::step("building xtask, static, for the images of pods");
    build::cargo(&["build", "--package", "xtask", "--target", TARGET])
        .env("CC_x86_64_unknown_linux_musl", "musl-gcc")
        .env("CARGO_PROFILE_DEV_STRIP", "symbols")
        .show()?;
    Ok(build::target().join(TARGET).join("debug/xtask"))
}
