//! The key of the flow hash: from a file, from a Secret, or the published default.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use guenon_ebpf::hash::DEFAULT_KEY;
use tokio::sync::mpsc::Sender;

use super::config::KeyChoice;
use crate::http::Health;
use crate::kube::HashKeySecret;
use crate::model::{HashKey, Place, Problem, ProblemReason};
use crate::source::SourceEvent;

/// File of the state directory with the last key of the Secret, so that an agent can be restarted without API server.
const CACHE: &str = "hash-key";
/// How long is waited before the Secret is asked for again.
const RETRY: Duration = Duration::from_secs(2);

/// The key that was chosen. A Secret is waited for, unless an earlier agent had it.
///
/// # Errors
///
/// A file cannot be read, or holds no key.
pub(super) async fn obtain(
    choice: &KeyChoice,
    secret: Option<&HashKeySecret>,
    state_dir: &Path,
    health: &Health,
) -> anyhow::Result<HashKey> {
    let secret = match (choice, secret) {
        (KeyChoice::Published, _) | (KeyChoice::Secret(_), None) => return hash_key(None),
        (KeyChoice::File(file), _) => return hash_key(Some(file)),
        (KeyChoice::Secret(_), Some(secret)) => secret,
    };
    let cache = state_dir.join(CACHE);
    let mut said = String::new();
    loop {
        let why = match secret.get().await {
            Ok(Some(key)) => {
                if let Err(error) = keep(&cache, key) {
                    tracing::warn!("cannot keep the hash key in {}: {error}", cache.display());
                }
                return Ok(key);
            }
            Ok(None) => format!("there is no {secret}; the controller makes it, or name one with --hash-key-secret"),
            Err(error) => error.to_string(),
        };
        if let Some(key) = fs::read(&cache).ok().and_then(|bytes| HashKey::parse(&bytes)) {
            tracing::warn!("{why}; going on with the hash key that it held last");
            return Ok(key);
        }
        if said != why {
            tracing::warn!("waiting for the hash key: {why}");
            health.set(vec![format!("the hash key is not known yet: {why}")]);
            said = why;
        }
        health.turned();
        tokio::time::sleep(RETRY).await;
    }
}

/// Tells when the Secret holds another key than the one in force, or none.
pub(super) async fn watch(secret: HashKeySecret, in_force: HashKey, batches: Sender<Vec<SourceEvent>>) {
    let mut changes = pin!(secret.changes());
    while let Some(held) = changes.next().await {
        let wrong = match held {
            Ok(Some(key)) if key == in_force => None,
            Ok(Some(_)) => Some(format!(
                "{secret} holds another hash key than the one in force here ({}); restart the agents at a quiet time \
                 (flows move to other endpoints): `kubectl rollout restart daemonset`",
                in_force.fingerprint()
            )),
            Ok(None) => Some(format!("{secret} is gone; the last hash key stays in force")),
            Err(error) => Some(format!("{error}; the last hash key stays in force")),
        };
        let place = Place { object: secret.to_string(), ..Place::default() };
        let problems = wrong.map(|message| Problem { reason: ProblemReason::HashKey, place, message });
        let told = SourceEvent::Problems { place: secret.to_string(), problems: problems.into_iter().collect() };
        if batches.send(vec![told]).await.is_err() {
            return;
        }
    }
}

/// Forgets the Secret's last key.
///
/// # Errors
///
/// The file cannot be removed.
pub(super) fn forget(state_dir: &Path) -> io::Result<()> {
    match fs::remove_file(state_dir.join(CACHE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// For root's eyes only.
fn keep(cache: &Path, key: HashKey) -> io::Result<()> {
    use io::Write as _;
    if let Some(directory) = cache.parent() {
        fs::create_dir_all(directory)?;
    }
    let new: PathBuf = cache.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&key.0)?;
    fs::rename(new, cache)
}

/// The flow hash's key from this file: 16 bytes, or 32 hex digits and white space around them.
///
/// # Errors
///
/// The file cannot be read, or holds neither.
pub fn hash_key(file: Option<&Path>) -> anyhow::Result<HashKey> {
    let Some(file) = file else {
        tracing::warn!(
            "no --hash-key-file: the flow hash has the published default key, and anyone may craft flows that all \
             land on one endpoint; make a key with `head -c 16 /dev/urandom > FILE`, the same file on every director"
        );
        return Ok(HashKey(DEFAULT_KEY));
    };
    let bytes = fs::read(file).with_context(|| {
        format!("cannot read the hash key from {} (--hash-key-file, GUENON_HASH_KEY_FILE)", file.display())
    })?;
    match HashKey::parse(&bytes) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> anyhow::Result<HashKey> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), content).expect("the key is written");
        hash_key(Some(file.path()))
    }

    #[test]
    fn the_last_key_is_kept_for_root_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a directory");
        let cache = directory.path().join(CACHE);
        keep(&cache, HashKey(*b"0123456789abcdef")).expect("the key is kept");
        assert_eq!(fs::read(&cache).expect("the key"), b"0123456789abcdef");
        assert_eq!(fs::metadata(&cache).expect("a file").permissions().mode() & 0o777, 0o600);
        forget(directory.path()).expect("forgotten");
        forget(directory.path()).expect("nothing left");
        assert!(!cache.exists());
    }

    #[test]
    fn a_key_is_sixteen_bytes_or_their_hex_digits() {
        let key = HashKey(*b"0123456789abcdef");
        assert_eq!(read(&key.0).expect("a key"), key);
        assert_eq!(read(b"30313233343536373839616263646566\n").expect("a key"), key);
        assert_eq!(hash_key(None).expect("the default"), HashKey(DEFAULT_KEY));
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
