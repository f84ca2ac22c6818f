//! The far ends of veths (lesson 1): frames that XDP redirects to a veth arrive only where the far end has an
//! XDP program too.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::model::FarEnd;
use crate::netlink::{Connection, Link, NamespaceError, Namespaces, NetlinkError, Peer, inside, read_links};

/// Puts programs at far ends, and remembers which have one.
#[derive(Debug)]
pub struct FarEnds {
    directory: PathBuf,
    /// By index of the near end.
    known: BTreeMap<u32, Known>,
}

#[derive(Debug)]
struct Known {
    /// Where the far end was: index, and id of the namespace.
    at: (Option<u32>, Option<i32>),
    state: FarEnd,
}

impl FarEnds {
    /// Far ends are looked for among the namespaces of this directory (`--netns-dir`).
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, known: BTreeMap::new() }
    }

    /// Sees to it that each of these near ends has a program at its far end, and tells which have, by index of the
    /// near end. Links that are no veths, or not there, are left out. Those refused before are tried again;
    /// those that are ready cost nothing.
    ///
    /// `attach` puts a program on the peer's index in the peer's namespace (entering it), pinned under the name
    /// of the near end.
    ///
    /// # Errors
    ///
    /// The kernel cannot be asked for its links.
    pub fn tend<'a, E: std::fmt::Display>(
        &mut self,
        connection: &mut Connection,
        near_ends: impl IntoIterator<Item = &'a str>,
        mut attach: impl FnMut(&Link, &Peer) -> Result<(), E>,
    ) -> Result<BTreeMap<u32, FarEnd>, NetlinkError> {
        let links = read_links(connection)?;
        let mut veths: Vec<&Link> = Vec::new();
        for name in near_ends {
            let named = links.values().find(|link| link.name == name && link.is_veth());
            veths.extend(named.filter(|link| veths.iter().all(|other| other.index != link.index)));
        }
        self.known.retain(|index, known| {
            let link = veths.iter().find(|link| link.index == *index);
            link.is_some_and(|link| known.at == place(link) && known.state == FarEnd::Ready)
        });
        let missing: Vec<&Link> = veths.iter().copied().filter(|link| !self.known.contains_key(&link.index)).collect();
        if !missing.is_empty() {
            let namespaces = Namespaces::scan(connection, &self.directory);
            for link in missing {
                let state = match peer(&namespaces, link)
                    .and_then(|peer| attach(link, &peer).map_err(|error| error.to_string()))
                {
                    Ok(()) => FarEnd::Ready,
                    Err(why) => FarEnd::Refused(why),
                };
                self.known.insert(link.index, Known { at: place(link), state });
            }
        }
        Ok(self.known.iter().map(|(index, known)| (*index, known.state.clone())).collect())
    }
}

fn place(link: &Link) -> (Option<u32>, Option<i32>) {
    (link.lower, link.peer_namespace)
}

fn peer(namespaces: &Result<Namespaces, NamespaceError>, link: &Link) -> Result<Peer, String> {
    match namespaces {
        Ok(namespaces) => namespaces.find_peer(link).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Looks which of these veths have a program at their far end, by index of the near end; changes nothing.
pub fn observe_far_ends<'a>(
    connection: &mut Connection,
    near_ends: impl IntoIterator<Item = &'a Link>,
    directory: &Path,
) -> BTreeMap<u32, FarEnd> {
    let mut near_ends = near_ends.into_iter().peekable();
    if near_ends.peek().is_none() {
        return BTreeMap::new();
    }
    let namespaces = Namespaces::scan(connection, directory);
    let look = |link: &Link| match peer(&namespaces, link).and_then(|peer| far_link(&peer)) {
        Ok(far) if far.has_xdp => FarEnd::Ready,
        Ok(far) => {
            FarEnd::Refused(format!("no program is attached to its far end {}; the agent attaches one", far.name))
        }
        Err(why) => FarEnd::Refused(why),
    };
    near_ends.map(|link| (link.index, look(link))).collect()
}

/// The far end itself.
pub(super) fn far_link(peer: &Peer) -> Result<Link, String> {
    let found = inside(peer.namespace.as_fd(), || {
        let mut links = Connection::open().and_then(|mut connection| read_links(&mut connection))?;
        Ok::<_, NetlinkError>(links.remove(&peer.index))
    });
    match found {
        Ok(Ok(Some(link))) => Ok(link),
        Ok(Ok(None)) => Err(format!("its far end is not in {}; it has just moved or gone", peer.path.display())),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
