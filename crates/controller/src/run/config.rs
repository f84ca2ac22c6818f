use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use guenon_ebpf::hash::DEFAULT_KEY;

use crate::datapath::AttachMode;
use crate::datapath::tables::Capacities;
use crate::metrics::Detail;

/// Where objects come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceChoice {
    /// This directory of manifests.
    Files(PathBuf),
    /// The Kubernetes API, by this kubeconfig; without one as any client of the cluster finds it.
    Kubernetes(Option<PathBuf>),
}

/// All that `guenon agent` is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where objects come from.
    pub source: SourceChoice,
    /// Interfaces to attach to; empty = the one with the default route.
    pub interfaces: Vec<String>,
    /// The node's name.
    pub node: String,
    /// Where metrics are served.
    pub listen: SocketAddr,
    /// Where the data path is pinned.
    pub pin_dir: PathBuf,
    /// What must be undone later.
    pub state_dir: PathBuf,
    /// The node's network sysctls.
    pub sysctl_dir: PathBuf,
    /// The flow hash's key; `None` = the published default.
    pub hash_key_file: Option<PathBuf>,
    /// Directors beside every Node's InternalIPs.
    pub directors: BTreeSet<IpAddr>,
    /// Tunnel addresses; empty = the first global one of each family on the first interface.
    pub tunnel_addresses: Vec<IpAddr>,
    /// UDP destination port of GUE.
    pub gue_port: u16,
    /// Named network namespaces.
    pub netns_dir: PathBuf,
    /// How to attach.
    pub xdp_mode: AttachMode,
    /// How detailed metrics are.
    pub metrics_detail: Detail,
    /// What the maps can hold.
    pub capacities: Capacities,
    /// Whether the node's addresses, sysctls and far ends of veths are set.
    pub node_setup: bool,
}

/// The flow hash's key from this file: 16 bytes, or 32 hex digits and white space around them.
///
/// # Errors
///
/// The file cannot be read, or holds neither.
pub fn hash_key(file: Option<&Path>) -> anyhow::Result<[u8; 16]> {
    let Some(file) = file else {
        tracing::warn!(
            "no --hash-key-file: the flow hash has the published default key, and anyone may craft flows that all \
             land on one endpoint; make a key with `head -c 16 /dev/urandom > FILE`, the same file on every director"
        );
        return Ok(DEFAULT_KEY);
    };
    let bytes = std::fs::read(file).with_context(|| {
        format!("cannot read the hash key from {} (--hash-key-file, GUENON_HASH_KEY_FILE)", file.display())
    })?;
    match parse_key(&bytes) {
        Some(key) => Ok(key),
        None => bail!(
            "{} holds {} bytes that are no hash key: it must be 16 bytes, or 32 hex digits; make one with \
             `head -c 16 /dev/urandom > {}`",
            file.display(),
            bytes.len(),
            file.display()
        ),
    }
}

fn parse_key(bytes: &[u8]) -> Option<[u8; 16]> {
    if let Ok(key) = <[u8; 16]>::try_from(bytes) {
        return Some(key);
    }
    let text = std::str::from_utf8(bytes).ok()?.trim();
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some(u128::from_str_radix(text, 16).ok()?.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> anyhow::Result<[u8; 16]> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), content).expect("the key is written");
        hash_key(Some(file.path()))
    }

    #[test]
    fn a_key_is_sixteen_bytes_or_their_hex_digits() {
        let key = *b"0123456789abcdef";
        assert_eq!(read(&key).expect("a key"), key);
        assert_eq!(read(b"30313233343536373839616263646566\n").expect("a key"), key);
        assert_eq!(hash_key(None).expect("the default"), DEFAULT_KEY);
    }

    #[test]
    fn what_is_no_key_is_refused_with_file_and_cure() {
        for bad in
            [&b"short"[..], b"", b"3031323334353637383961626364656g", b"+0313233343536373839616263646566", &[0; 17]]
        {
            let error = format!("{:#}", read(bad).expect_err("no key"));
            assert!(error.contains("32 hex digits") && error.contains("/dev/urandom"), "{error}");
        }
        let error = format!("{:#}", hash_key(Some(Path::new("/nowhere/key"))).expect_err("no file"));
        assert!(error.contains("/nowhere/key") && error.contains("--hash-key-file"), "{error}");
    }
}
