//! Debian's cloud kernels, by apt-get with lists and cache of its own: nothing is installed, the system's sources
//! and lists stay as they are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::shell::{Cmd, cmd};
use crate::{paths, progress};

/// The series that are tested unless others are named.
pub(super) const SERIES: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "newest"];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const MAIN: &str = "http://deb.debian.org/debian";
const SECURITY: &str = "http://deb.debian.org/debian-security";

/// A kernel in the cache.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) series: String,
    /// As `uname -r` says it.
    pub(super) release: String,
    /// Where its packages are unpacked.
    pub(super) dir: PathBuf,
}

impl Kernel {
    /// The image to boot.
    pub(super) fn image(&self) -> Result<PathBuf> {
        let name = format!("vmlinuz-{}", self.release);
        [
            self.dir.join("boot").join(&name),
            self.dir.join("usr/lib/modules").join(&self.release).join("vmlinuz"),
            self.dir.join("usr/lib/linux").join(&self.release).join("vmlinuz"),
            self.dir.join("lib/modules").join(&self.release).join("vmlinuz"),
        ]
        .into_iter()
        .find(|file| file.is_file())
        .with_context(|| format!("no kernel image in {}", self.dir.display()))
    }

    /// `lib/modules/RELEASE`.
    pub(super) fn modules(&self) -> Result<PathBuf> {
        ["usr/lib/modules", "lib/modules"]
            .iter()
            .map(|dir| self.dir.join(dir).join(&self.release))
            .find(|dir| dir.join("kernel").is_dir())
            .with_context(|| format!("no modules in {}", self.dir.display()))
    }
}

/// The kernels of some series, from the cache if they are there and no update is asked for.
pub(super) fn fetch(series: &[String], update: bool) -> Result<Vec<Kernel>> {
    let cache = paths::cache()?.join("kernels");
    std::fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let mut apt = None;
    series
        .iter()
        .map(|series| {
            // Which release a series stands for is a symbolic link: SERIES -> RELEASE.
            let link = cache.join(format!("series-{series}"));
            if !update && let Ok(release) = std::fs::read_link(&link) {
                let release = release.to_string_lossy().into_owned();
                let dir = cache.join(&release);
                if dir.is_dir() {
                    return Ok(Kernel { series: series.clone(), release, dir });
                }
            }
            if apt.is_none() {
                apt = Some(Apt::update(&cache)?);
            }
            let apt = apt.as_ref().context("apt was just made")?;
            let kernel = apt.kernel(series, &cache)?;
            if link.symlink_metadata().is_ok() {
                std::fs::remove_file(&link).with_context(|| format!("cannot replace {}", link.display()))?;
            }
            std::os::unix::fs::symlink(&kernel.release, &link)
                .with_context(|| format!("cannot link {}", link.display()))?;
            Ok(kernel)
        })
        .collect()
}

/// apt-get with a state directory of its own.
struct Apt {
    options: Vec<String>,
    /// Every cloud kernel there is, in order of version.
    images: Vec<String>,
}

impl Apt {
    fn update(cache: &Path) -> Result<Self> {
        progress::step("fetching Debian's lists of cloud kernels");
        let dir = cache.join("apt");
        for sub in ["lists/partial", "cache/archives/partial", "sources.list.d"] {
            std::fs::create_dir_all(dir.join(sub)).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let source = |name: &str, uri: &str, suites: &str| {
            let file = dir.join("sources.list.d").join(name);
            let text = format!("Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {KEYRING}\n");
            std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
        };
        let (main, security) = mirrors();
        source("backports.sources", &main, "trixie-backports")?;
        source("security.sources", &security, "bullseye-security bookworm-security")?;
        let option = |name: &str, value: &Path| ["-o".to_owned(), format!("{name}={}", value.display())];
        let options = [
            option("Dir::Etc::sourcelist", Path::new("/dev/null")),
            option("Dir::Etc::sourceparts", &dir.join("sources.list.d")),
            option("Dir::Etc::preferencesparts", Path::new("/dev/null")),
            option("Dir::State::lists", &dir.join("lists")),
            option("Dir::Cache", &dir.join("cache")),
            option("APT::Sandbox::User", Path::new("root")),
        ]
        .concat();
        let mut apt = Self { options, images: Vec::new() };
        apt.get("apt-get").args(["-qq", "update"]).limit(Duration::from_secs(300)).run()?;
        let found = apt
            .get("apt-cache")
            .args(["search", "--names-only", "^linux-image-[0-9].*-cloud-amd64$"])
            .limit(Duration::from_secs(60))
            .read()?;
        apt.images = found.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect();
        apt.images.sort_by_key(|name| version(name));
        Ok(apt)
    }

    fn get(&self, program: &str) -> Cmd {
        cmd(program).args(&self.options)
    }

    /// The newest complete kernel of a series.
    fn kernel(&self, series: &str, cache: &Path) -> Result<Kernel> {
        let prefix = format!("linux-image-{series}.");
        let candidates = self.images.iter().rev().filter(|name| series == "newest" || name.starts_with(&prefix));
        for package in candidates {
            let release = package.trim_start_matches("linux-image-");
            let dir = cache.join(release);
            if !dir.is_dir() && !self.unpack(package, release, &dir)? {
                progress::note(format_args!(
                    "{release}: its modules are not in the archive any more; trying an older one"
                ));
                continue;
            }
            return Ok(Kernel { series: series.to_owned(), release: release.to_owned(), dir });
        }
        bail!(
            "Debian has no cloud kernel of series {series}; there are:\n  {}",
            self.images.iter().map(|name| name.trim_start_matches("linux-image-")).collect::<Vec<_>>().join("\n  ")
        )
    }

    /// Whether the packages hold a kernel with modules.
    fn unpack(&self, package: &str, release: &str, dir: &Path) -> Result<bool> {
        progress::step(format_args!("downloading kernel {release}"));
        // From 6.19 on the image package is empty and depends on others of the same release.
        let depends = self.get("apt-cache").args(["depends", package]).limit(Duration::from_secs(60)).read()?;
        let parts = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).filter(|name| {
            ["linux-binary-", "linux-modules-", "linux-base-"]
                .iter()
                .any(|prefix| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(char::is_numeric)))
        });
        let packages: Vec<&str> = std::iter::once(package).chain(parts).collect();
        let scratch = dir.with_extension("new");
        let _ = std::fs::remove_dir_all(&scratch); // of an interrupted run
        std::fs::create_dir_all(scratch.join("debs"))
            .with_context(|| format!("cannot create {}", scratch.display()))?;
        self.get("apt-get")
            .args(["-qq", "download"])
            .args(&packages)
            .dir(scratch.join("debs"))
            .limit(Duration::from_secs(900))
            .run()?;
        for file in std::fs::read_dir(scratch.join("debs")).context("cannot read what was downloaded")? {
            let file = file.context("cannot read what was downloaded")?.path();
            cmd("dpkg").arg("-x").arg(file).arg(&scratch).limit(Duration::from_secs(300)).run()?;
        }
        std::fs::remove_dir_all(scratch.join("debs")).context("cannot remove what was unpacked")?;
        let kernel = Kernel { series: String::new(), release: release.to_owned(), dir: scratch.clone() };
        if kernel.modules().is_err() || kernel.image().is_err() {
            let _ = std::fs::remove_dir_all(&scratch);
            return Ok(false);
        }
        std::fs::rename(&scratch, dir).with_context(|| format!("cannot move {}", scratch.display()))?;
        Ok(true)
    }
}

/// The mirrors that this machine uses, else Debian's own.
fn mirrors() -> (String, String) {
    let (mut main, mut security) = (None, None);
    let entries = std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    for file in entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "sources")) {
        for line in std::fs::read_to_string(file).unwrap_or_default().lines() {
            let Some(uri) = line.strip_prefix("URIs:").map(str::trim) else { continue };
            if uri.trim_end_matches('/').ends_with("debian-security") {
                security.get_or_insert(uri.to_owned());
            } else if uri.trim_end_matches('/').ends_with("/debian") {
                main.get_or_insert(uri.to_owned());
            }
        }
    }
    (main.unwrap_or_else(|| MAIN.to_owned()), security.unwrap_or_else(|| SECURITY.to_owned()))
}

/// The numbers in a package's name, for sorting as `sort -V` does; `~rc` comes before its release.
fn version(name: &str) -> Vec<i64> {
    let mut numbers = Vec::new();
    let mut rest = name;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit() || c == '~') {
        rest = &rest[start..];
        if let Some(after) = rest.strip_prefix('~') {
            numbers.push(-1);
            rest = after;
            continue;
        }
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        numbers.push(rest[..end].parse().unwrap_or(i64::MAX));
        rest = &rest[end..];
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_sort_by_number() {
        let mut names = vec![
            "linux-image-6.12.9+bpo-cloud-amd64",
            "linux-image-6.12.73+deb13-cloud-amd64",
            "linux-image-6.1.0-40-cloud-amd64",
            "linux-image-7.0~rc2-cloud-amd64",
            "linux-image-7.0.1-cloud-amd64",
        ];
        names.sort_by_key(|name| version(name));
        assert_eq!(
            names,
            [
                "linux-image-6.1.0-40-cloud-amd64",
                "linux-image-6.12.9+bpo-cloud-amd64",
                "linux-image-6.12.73+deb13-cloud-amd64",
                "linux-image-7.0~rc2-cloud-amd64",
                "linux-image-7.0.1-cloud-amd64",
            ]
        );
    }
}
