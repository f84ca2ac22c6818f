//! `cargo xtask image`: the image of the Dockerfile's last stage, without a container engine or a registry: one static
//! binary in an OCI archive (image-spec 1.1), as `ctr image import`, `skopeo` and `podman load` read it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::setup::{self, packages};
use crate::shell::cmd;
use crate::{build, paths, progress};

/// The target of static binaries.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-musl";
/// No image is larger, bytes.
const MOST: u64 = 25 << 20;

/// The file system of images: one static binary. Compressing takes a while, so images may share one.
pub(crate) struct Layer {
    compressed: Blob,
    /// Digest of what it unpacks to.
    diff: String,
}

impl Layer {
    /// One with this binary under this name in `/`.
    pub(crate) fn new(name: &str, binary: &Path) -> Result<Self> {
        let content = std::fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
        Self::of(name, &content).with_context(|| format!("cannot make an image of {}", binary.display()))
    }

    fn of(name: &str, content: &[u8]) -> Result<Self> {
        let tree = tar(&[(name, 0o755, content)])?;
        let mut compressed = GzEncoder::new(Vec::new(), Compression::best());
        compressed.write_all(&tree)?;
        Ok(Self { compressed: Blob::new(compressed.finish()?), diff: digest(&tree) })
    }
}

/// An image of one static binary.
pub(crate) struct Image<'a> {
    /// What it is called: `REGISTRY/NAME:TAG`.
    pub(crate) name: &'a str,
    pub(crate) title: &'a str,
    pub(crate) description: &'a str,
    pub(crate) layer: &'a Layer,
    /// What is run, before what the pod says.
    pub(crate) entrypoint: &'a [&'a str],
}

impl<'a> Image<'a> {
    /// Guenon's own; the layer has its binary as `guenon`.
    pub(crate) fn guenon(name: &'a str, layer: &'a Layer) -> Self {
        Self {
            name,
            title: "guenon",
            description: "L4 load balancer that can say where your packet went",
            layer,
            entrypoint: &["/guenon"],
        }
    }

    /// Writes the archive; gives its size in bytes.
    pub(crate) fn write(&self, out: &Path) -> Result<u64> {
        let archive = archive(self).context("cannot make the image")?;
        std::fs::write(out, &archive).with_context(|| format!("cannot write {}", out.display()))?;
        Ok(archive.len() as u64)
    }
}

fn tag(name: &str) -> Result<&str> {
    name.rsplit_once(':')
        .filter(|(repository, tag)| repository.contains('/') && !tag.contains('/'))
        .map(|(_, tag)| tag)
        .with_context(|| format!("{name:?} is no name of an image; write REGISTRY/NAME:TAG"))
}

/// Builds the binary and writes the archive; `name` is what the image is called (`REGISTRY/NAME:TAG`).
pub(crate) fn run(name: &str, out: Option<&Path>) -> Result<()> {
    tag(name)?;
    let layer = Layer::new("guenon", &binary()?)?;
    let default = build::target().join("guenon-image.tar");
    let out = out.unwrap_or(&default);
    let size = Image::guenon(name, &layer).write(out)?;
    progress::step(format_args!("{name}: {} ({:.1} MB)", out.display(), size as f64 / 1e6));
    ensure!(size <= MOST, "the image is larger than {} MB; what was linked in?", MOST >> 20);
    Ok(())
}

/// `guenon`, static.
pub(crate) fn binary() -> Result<PathBuf> {
    setup::building()?;
    target()?;
    progress::step("building guenon in release, static (the first time takes some minutes)");
    build::cargo(&["build", "--release", "--package", "guenon-controller", "--bin", "guenon", "--target", TARGET])
        .env("CC_x86_64_unknown_linux_musl", "musl-gcc")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .show()?;
    Ok(built())
}

/// Where it is once it was built.
pub(crate) fn built() -> PathBuf {
    build::target().join(TARGET).join("release/guenon")
}

/// Makes sure that static binaries can be built.
pub(crate) fn target() -> Result<()> {
    setup::programs(&[packages::MUSL])?;
    cmd("rustup")
        .args(["target", "add", TARGET])
        .dir(paths::root())
        .limit(Duration::from_secs(600))
        .run()
        .with_context(|| format!("the Rust target {TARGET} is missing; install it, or use rustup's Rust"))
}

/// A blob and its digest.
struct Blob {
    digest: String,
    content: Vec<u8>,
}

impl Blob {
    fn new(content: Vec<u8>) -> Self {
        Self { digest: digest(&content), content }
    }

    fn json(value: &Value) -> Result<Self> {
        Ok(Self::new(serde_json::to_vec(value)?))
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.content.len()})
    }
}

fn digest(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The whole archive: the same bytes for the same binary.
fn archive(image: &Image<'_>) -> Result<Vec<u8>> {
    let Layer { compressed: layer, diff } = image.layer;
    let config = Blob::json(&json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": image.entrypoint,
            "Labels": {
                "org.opencontainers.image.title": image.title,
                "org.opencontainers.image.description": image.description,
                "org.opencontainers.image.licenses": "Apache-2.0",
                "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [diff]},
        "history": [{"created_by": "cargo xtask image"}],
    }))?;
    let manifest = Blob::json(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
    }))?;
    let mut described = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
    described["platform"] = json!({"architecture": "amd64", "os": "linux"});
    described["annotations"] = json!({
        "io.containerd.image.name": image.name,
        "org.opencontainers.image.ref.name": tag(image.name)?,
    });
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [described],
    }))?;
    let path = |blob: &Blob| format!("blobs/sha256/{}", blob.digest.trim_start_matches("sha256:"));
    tar(&[
        ("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", 0o644, &index),
        (&path(layer), 0o644, &layer.content),
        (&path(&config), 0o644, &config.content),
        (&path(&manifest), 0o644, &manifest.content),
    ])
}

/// Files with these modes, of root, at the dawn of time.
fn tar(files: &[(&str, u32, &[u8])]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, mode, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        builder.append_data(&mut header, name, *content)?;
    }
    Ok(builder.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_named_by_what_they_hold_and_the_config_names_what_the_layer_unpacks_to() {
        let layer = Layer::of("guenon", b"a binary").expect("a layer");
        let archive = archive(&Image::guenon("localhost/guenon:1", &layer)).expect("an image");
        let mut blobs = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(archive.as_slice()).entries().expect("a tar") {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a name").to_string_lossy().into_owned();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).expect("its content");
            if let Some(hex) = name.strip_prefix("blobs/sha256/") {
                assert_eq!(digest(&content), format!("sha256:{hex}"));
            }
            blobs.insert(name, content);
        }
        let read = |content: &[u8]| serde_json::from_slice::<Value>(content).expect("JSON");
        let of = |digest: &Value| &blobs[&digest.as_str().expect("a digest").replace("sha256:", "blobs/sha256/")];
        let index = read(&blobs["index.json"]);
        let manifest = read(of(&index["manifests"][0]["digest"]));
        let config = read(of(&manifest["config"]["digest"]));
        let layer = of(&manifest["layers"][0]["digest"]);
        let mut tree = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(layer.as_slice()), &mut tree).expect("gzip");
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&tree).as_str());
        assert_eq!(config["config"]["Entrypoint"], json!(["/guenon"]));
    }
}
