//! What must be true of process and kernel, checked before anything is changed.

use std::fs;
use std::os::fd::AsFd;

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
    match effective(&status).map(missing) {
        Some(missing) if !missing.is_empty() => Err(lacks(&missing)),
        Some(_) | None => features(),
    }
}

/// The effective capabilities in /proc/thread-self/status.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// The capabilities that are missing among these.
fn missing(effective: u64) -> Vec<&'static str> {
    let has = |capability: u32| effective & 1 << capability != 0;
    let root = has(CAP_SYS_ADMIN);
    let wanted = [
        ("CAP_BPF", has(CAP_BPF) || root),
        ("CAP_PERFMON", has(CAP_PERFMON) || root),
        ("CAP_NET_ADMIN", has(CAP_NET_ADMIN)),
    ];
    wanted.into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect()
}

fn lacks(missing: &[&'static str]) -> DataPathError {
    let flag = |name: &&str| format!("--cap-add {}", name.trim_start_matches("CAP_"));
    let (why, helm) = if missing == ["CAP_PERFMON"] {
        (
            "without which the kernel's verifier refuses the XDP program: it subtracts packet pointers (\"pointer -= \
             pointer prohibited\")",
            "in the chart perfmon.enabled=true",
        )
    } else {
        ("which loading and attaching XDP programs needs", "which the chart does")
    };
    let names = match missing {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        all => all.concat(),
    };
    DataPathError::Capability {
        missing: names,
        why,
        docker: missing.iter().map(flag).collect::<Vec<_>>().join(" "),
        helm,
    }
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
        let of = |capabilities: &[u32]| missing(capabilities.iter().map(|capability| 1 << capability).sum());
        assert_eq!(of(&[CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN]), [""; 0]);
        assert_eq!(of(&[CAP_SYS_ADMIN, CAP_NET_ADMIN]), [""; 0]);
        assert_eq!(of(&[CAP_BPF, CAP_PERFMON]), ["CAP_NET_ADMIN"]);
        assert_eq!(of(&[CAP_BPF, CAP_NET_ADMIN]), ["CAP_PERFMON"]);
        assert_eq!(of(&[]), ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"]);
    }

    #[test]
    fn who_lacks_a_capability_is_told_how_to_give_it() {
        let said = lacks(&["CAP_PERFMON"]).to_string();
        for part in ["lacks CAP_PERFMON", "verifier", "--cap-add PERFMON", "CapabilityBoundingSet=", "perfmon.enabled"]
        {
            assert!(said.contains(part), "{part:?} is not in: {said}");
        }
        let said = lacks(&["CAP_BPF", "CAP_NET_ADMIN"]).to_string();
        assert!(
            said.contains("CAP_BPF and CAP_NET_ADMIN") && said.contains("--cap-add BPF --cap-add NET_ADMIN"),
            "{said}"
        );
    }

    #[test]
    fn capabilities_are_read_as_proc_writes_them() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
        assert_eq!(effective(""), None);
    }
}
