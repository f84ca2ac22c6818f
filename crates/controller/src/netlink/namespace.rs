//! Other network namespaces: entering them, and finding the one that holds a veth's far end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};

use super::connection::{Connection, NetlinkError};
use super::tables::Link;

/// Why a namespace could not be found or entered.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The link has no far end.
    #[error("`{0}` is no veth: it has no far end")]
    NoVeth(String),
    /// No file in the directory stands for the namespace.
    #[error(
        "no file in {directory} stands for the namespace that holds the far end of `{link}`; \
         name the directory of namespaces with --netns-dir, and mount it into the agent's container"
    )]
    NotFound {
        /// The near end.
        link: String,
        /// The directory searched.
        directory: PathBuf,
    },
    /// The directory or a file in it cannot be read.
    #[error("cannot read {path}: {error}; name the directory of namespaces with --netns-dir")]
    Unreadable {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It may not be entered.
    #[error("cannot enter the network namespace: {0}; the agent needs CAP_SYS_ADMIN for that")]
    Enter(#[source] io::Error),
    /// No thread.
    #[error("cannot start a thread to enter a network namespace with: {0}")]
    Thread(#[source] io::Error),
    /// The kernel was asked and refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Runs `work` in a network namespace, on a thread of its own: the caller stays where it is. Mounts are the
/// caller's, so that pins go where the caller's go; /proc/sys/net is that namespace's.
///
/// # Errors
///
/// [`NamespaceError::Enter`], [`NamespaceError::Thread`].
///
/// # Panics
///
/// If `work` does.
pub fn inside<T: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
    thread::scope(|scope| {
        let inner = move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|error| NamespaceError::Enter(error.into()))?;
            Ok(work())
        };
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, inner)
            .map_err(NamespaceError::Thread)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The far end of a veth.
#[derive(Debug)]
pub struct Peer {
    /// The namespace's file; for the connection's own namespace the one in /proc.
    pub path: PathBuf,
    /// The namespace.
    pub namespace: File,
    /// The far end's index there.
    pub index: u32,
}

/// The namespaces that a directory (`/run/netns`) holds files of, by the ids that the connection's namespace
/// knows them by.
#[derive(Debug)]
pub struct Namespaces {
    directory: PathBuf,
    paths: BTreeMap<i32, PathBuf>,
}

impl Namespaces {
    /// Looks at each file of the directory.
    ///
    /// # Errors
    ///
    /// The directory cannot be read, or the kernel not asked.
    pub fn scan(connection: &mut Connection, directory: &Path) -> Result<Self, NamespaceError> {
        let unreadable = |error| NamespaceError::Unreadable { path: directory.to_owned(), error };
        let mut files = Vec::new();
        for entry in fs::read_dir(directory).map_err(unreadable)? {
            files.push(entry.map_err(unreadable)?.path());
        }
        files.sort();
        let mut paths = BTreeMap::new();
        for path in files {
            // A namespace may end while we look.
            let Ok(namespace) = open(&path) else { continue };
            if let Some(id) = namespace_id(connection, namespace.as_fd())? {
                paths.entry(id).or_insert(path);
            }
        }
        Ok(Self { directory: directory.to_owned(), paths })
    }

    /// Finds the far end of a veth.
    ///
    /// # Errors
    ///
    /// [`NamespaceError`].
    pub fn find_peer(&self, link: &Link) -> Result<Peer, NamespaceError> {
        let (true, Some(index)) = (link.is_veth(), link.lower) else {
            return Err(NamespaceError::NoVeth(link.name.clone()));
        };
        let own = PathBuf::from("/proc/thread-self/ns/net");
        let path = match link.peer_namespace {
            None => own,
            Some(id) => self.paths.get(&id).cloned().ok_or_else(|| NamespaceError::NotFound {
                link: link.name.clone(),
                directory: self.directory.clone(),
            })?,
        };
        Ok(Peer { namespace: open(&path)?, path, index })
    }
}

fn open(path: &Path) -> Result<File, NamespaceError> {
    File::open(path).map_err(|error| NamespaceError::Unreadable { path: path.to_owned(), error })
}

/// The id that the connection's namespace knows another one by; `None` = it has none, or `file` is no namespace.
fn namespace_id(connection: &mut Connection, file: BorrowedFd<'_>) -> Result<Option<i32>, NamespaceError> {
    let mut request = NsidMessage::default();
    request.attributes.push(NsidAttribute::Fd(file.as_raw_fd().cast_unsigned()));
    let answers = match connection.ask("tell a namespace's id", RouteNetlinkMessage::GetNsId(request)) {
        Ok(answers) => answers,
        Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EBADF)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(answers.into_iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewNsId(message) => message.attributes.iter().find_map(|attribute| match attribute {
            NsidAttribute::Id(id) if *id >= 0 => Some(*id),
            _ => None,
        }),
        _ => None,
    }))
}
