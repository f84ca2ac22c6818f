//! What must be true of process and kernel, checked before anything is changed.

use std::fs;
use std::os::fd::AsFd;

use aya::util::KernelVersion;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use super::error::DataPathError;
use super::sys::{self, Shape};

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Checks capabilities and what the kernel can do.
pub(super) fn preflight() -> Result<(), DataPathError> {
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        // It matters before 5.11 alone, and there the next steps tell.
        tracing::debug!(%error, "RLIMIT_MEMLOCK stays as it is");
    }
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    // Before 5.11 CAP_BPF alone does not let a program do what ours does with packets' pointers.
    let old = KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(5, 11, 0));
    if let Some(missing) = effective(&status).and_then(|effective| missing(effective, old)) {
        return Err(DataPathError::Capability(missing));
    }
    features()
}

/// The effective capabilities in /proc/thread-self/status.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// The capabilities that are missing among these, in words.
fn missing(effective: u64, perfmon: bool) -> Option<String> {
    let has = |capability: u32| effective & 1 << capability != 0;
    let mut missing = Vec::new();
    if !has(CAP_BPF) && !has(CAP_SYS_ADMIN) {
        missing.push("CAP_BPF");
    }
    if perfmon && !has(CAP_PERFMON) && !has(CAP_SYS_ADMIN) {
        missing.push("CAP_PERFMON");
    }
    if !has(CAP_NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    (!missing.is_empty()).then(|| missing.join(" and "))
}

fn features() -> Result<(), DataPathError> {
    let refused = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| {
            let hint = match error.raw_os_error() {
                Some(libc::EPERM) => {
                    ". It said that this is not permitted: grant CAP_BPF (before 5.11 RLIMIT_MEMLOCK must be raised \
                     too: `ulimit -l unlimited`), and let seccomp pass bpf(2)"
                }
                _ => "",
            };
            DataPathError::Kernel { what, error, hint }
        }
    };
    let array = Shape { kind: sys::ARRAY, key_size: 4, value_size: 8, max_entries: 1, flags: sys::MMAPABLE };
    let array = sys::create_map(&array, None).map_err(refused("an array that can be mapped into memory"))?;
    let outer = Shape { kind: sys::ARRAY_OF_MAPS, key_size: 4, value_size: 4, max_entries: 1, flags: 0 };
    sys::create_map(&outer, Some(array.as_fd())).map_err(refused("an array of maps"))?;
    let ring = Shape { kind: sys::RING_BUFFER, key_size: 0, value_size: 0, max_entries: 4096, flags: 0 };
    sys::create_map(&ring, None).map_err(refused("a ring buffer"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        let of = |capabilities: &[u32]| missing(capabilities.iter().map(|capability| 1 << capability).sum(), false);
        assert_eq!(of(&[CAP_BPF, CAP_NET_ADMIN]), None);
        assert_eq!(of(&[CAP_SYS_ADMIN, CAP_NET_ADMIN]), None);
        assert_eq!(of(&[CAP_BPF]).as_deref(), Some("CAP_NET_ADMIN"));
        assert_eq!(missing(1 << CAP_BPF | 1 << CAP_NET_ADMIN, true).as_deref(), Some("CAP_PERFMON"));
        assert_eq!(of(&[]).as_deref(), Some("CAP_BPF and CAP_NET_ADMIN"));
    }

    #[test]
    fn capabilities_are_read_as_proc_writes_them() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
        assert_eq!(effective(""), None);
    }
}
