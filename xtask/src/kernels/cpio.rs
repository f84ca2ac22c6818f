//! Writes a cpio archive in the "newc" format, which the kernel unpacks as its first root file system
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const SYMLINK: u32 = 0o120_777;

/// An archive in the making. Parent directories are added by themselves.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    files: BTreeSet<String>,
}

impl Archive {
    /// An empty directory.
    pub(super) fn directory(&mut self, path: &str) {
        let mut at = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if !at.is_empty() {
                at.push('/');
            }
            at.push_str(part);
            if self.directories.insert(at.clone()) {
                self.entry(&at.clone(), DIRECTORY, &[]);
            }
        }
    }

    /// A file, readable and executable by all; the first one with a path wins.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.leaf(path, EXECUTABLE, content);
    }

    /// A copy of a file of this machine.
    pub(super) fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let content = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(path, &content);
        Ok(())
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.leaf(path, SYMLINK, target.as_bytes());
    }

    /// The archive's bytes.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn leaf(&mut self, path: &str, mode: u32, content: &[u8]) {
        let path = path.trim_start_matches('/');
        if !self.files.insert(path.to_owned()) {
            return;
        }
        if let Some((directory, _)) = path.rsplit_once('/') {
            self.directory(directory);
        }
        self.entry(path, mode, content);
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        let inode = self.bytes.len() + 1; // any number that no other entry has
        let fields: [usize; 13] = [inode, mode as usize, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{:08x}", field as u32).as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::cmd;

    #[test]
    fn an_independent_reader_lists_what_was_put_in() {
        let mut archive = Archive::default();
        archive.file("/sbin/ip", b"abc");
        archive.link("bin/sh", "busybox");
        archive.directory("proc");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let file = std::env::temp_dir().join(format!("guenon-cpio-{}", std::process::id()));
        std::fs::write(&file, bytes).expect("a file in the temporary directory");
        // python's standard library has no cpio; busybox may be missing where kernels are not tested.
        let Some(reader) = crate::paths::which("busybox") else { return };
        let listed = cmd(reader).args(["cpio", "-t", "-F"]).arg(&file).read().expect("busybox reads it");
        std::fs::remove_file(&file).expect("it was there");
        assert_eq!(listed.lines().collect::<Vec<_>>(), ["sbin", "sbin/ip", "bin", "bin/sh", "proc"]);
    }
}
