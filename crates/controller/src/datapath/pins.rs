//! The pin directory: where it is, who may write to it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::error::DataPathError;
use super::sys;

/// Paths below the pin directory.
#[derive(Clone, Debug)]
pub(super) struct Pins(PathBuf);

impl Pins {
    pub(super) fn new(root: &Path) -> Self {
        Self(root.to_owned())
    }
    pub(super) fn root(&self) -> &Path {
        &self.0
    }
    pub(super) fn maps(&self) -> PathBuf {
        self.0.join("maps")
    }
    /// Maps that are made and not yet in force.
    pub(super) fn new_maps(&self) -> PathBuf {
        self.0.join("maps-new")
    }
    /// Maps that are no longer in force.
    pub(super) fn old_maps(&self) -> PathBuf {
        self.0.join("maps-old")
    }
    pub(super) fn links(&self) -> PathBuf {
        self.0.join("links")
    }
    pub(super) fn programs(&self) -> PathBuf {
        self.0.join("programs")
    }
    pub(super) fn link(&self, interface: &str) -> PathBuf {
        self.links().join(escape(interface))
    }
    pub(super) fn program(&self, interface: &str) -> PathBuf {
        self.programs().join(escape(interface))
    }
    pub(super) fn egress_links(&self) -> PathBuf {
        self.0.join("egress-links")
    }
    pub(super) fn egress_programs(&self) -> PathBuf {
        self.0.join("egress-programs")
    }
    pub(super) fn egress_link(&self, interface: &str) -> PathBuf {
        self.egress_links().join(escape(interface))
    }
    /// A link that is about to take the place of the other.
    pub(super) fn new_egress_link(&self, interface: &str) -> PathBuf {
        // An interface's name has 15 characters at most, and never a slash: no other pin can have this name.
        self.egress_links().join(format!("{}-takes-the-place", escape(interface)))
    }
    pub(super) fn egress_program(&self, interface: &str) -> PathBuf {
        self.egress_programs().join(escape(interface))
    }
    /// Name of the pins of the pass program at the far end of a veth.
    pub(super) fn far_end(near: &str) -> String {
        format!("far-{near}")
    }
}

/// The BPF file system takes no dot in a name, and interfaces may have one: `eth0.5`.
pub(super) fn escape(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

/// The interface that a pin's name stands for.
pub(super) fn unescape(name: &str) -> String {
    name.replace("%2e", ".").replace("%25", "%")
}

/// Names in a directory; none where it is not there.
pub(super) fn names_in(directory: &Path) -> Result<Vec<String>, DataPathError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(DataPathError::file("read", directory)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(DataPathError::file("read", directory))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

pub(super) fn create_dir(path: &Path) -> Result<(), DataPathError> {
    fs::create_dir_all(path).map_err(DataPathError::file("make directory", path))
}

/// Takes a pin away; one that is not there is no error.
pub(super) fn remove_pin(path: &Path) -> Result<(), DataPathError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DataPathError::file("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Takes a directory of pins away with what is in it.
pub(super) fn remove_dir(path: &Path) -> Result<(), DataPathError> {
    for name in names_in(path)? {
        remove_pin(&path.join(name))?;
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DataPathError::file("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Sees to it that the pin directory's file system is a BPF one: mounted on /sys/fs/bpf where it is not.
pub(super) fn ensure_bpffs(root: &Path) -> Result<(), DataPathError> {
    let standard = Path::new("/sys/fs/bpf");
    let refused = |error: String| DataPathError::NoBpfFs { path: root.to_owned(), error };
    let existing = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if sys::is_bpffs(existing).map_err(|error| refused(error.to_string()))? {
        return Ok(());
    }
    if !root.starts_with(standard) || !standard.exists() {
        return Err(refused("it is another kind of file system".to_owned()));
    }
    let flags = nix::mount::MsFlags::MS_NOSUID | nix::mount::MsFlags::MS_NODEV | nix::mount::MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("bpf"), standard, Some("bpf"), flags, Some("mode=0700"))
        .map_err(|error| refused(format!("none is mounted on /sys/fs/bpf, and mounting one failed ({error})")))?;
    tracing::info!("mounted a BPF file system on /sys/fs/bpf");
    Ok(())
}

/// The right to write to a pin directory. Gone with the process.
#[derive(Debug)]
pub(super) struct Lock {
    _directory: Flock<File>,
}

/// Takes the lock, or says who has it.
pub(super) fn lock(root: &Path) -> Result<Lock, DataPathError> {
    let directory = File::open(root).map_err(DataPathError::file("open", root))?;
    match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
        Ok(directory) => Ok(Lock { _directory: directory }),
        Err((directory, nix::errno::Errno::EWOULDBLOCK)) => {
            Err(DataPathError::Locked { path: root.to_owned(), holder: holder(&directory) })
        }
        Err((_, error)) => Err(DataPathError::file("lock", root)(error.into())),
    }
}

/// Who holds the lock on a pin directory: an agent that runs. Takes no lock itself.
#[must_use]
pub fn lock_holder(root: &Path) -> Option<String> {
    let pid = locking_pid(&File::open(root).ok()?)?;
    Some(name_of(&pid))
}

/// Who holds the lock on a file that could not be locked.
fn holder(file: &File) -> String {
    locking_pid(file).map_or_else(|| "another process (see /proc/locks)".to_owned(), |pid| name_of(&pid))
}

/// The process that has locked a file, as /proc/locks tells; `0` = one that is not seen from here.
fn locking_pid(file: &File) -> Option<String> {
    let (metadata, locks) = (file.metadata().ok()?, fs::read_to_string("/proc/locks").ok()?);
    let device = metadata.dev();
    let identity =
        format!("{:02x}:{:02x}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device), metadata.ino());
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (kind, _, _) = (fields.next()?, fields.next()?, fields.next()?);
        let (pid, inode) = (fields.next()?, fields.next()?);
        (kind == "FLOCK" && inode == identity).then(|| pid.to_owned())
    })
}

fn name_of(pid: &str) -> String {
    if pid == "0" || pid.starts_with('-') {
        return "a process of another pid namespace".to_owned();
    }
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    format!("process {pid} ({})", command.trim())
}
