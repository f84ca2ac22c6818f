//! A program that passes everything, for far ends of veths.
//!
//! Lesson 1: a veth delivers frames that came by `XDP_TX` or `XDP_REDIRECT` only if the receiving end has an XDP
//! program too. At the far ends of its own `Veth` endpoints the agent sees to that; on a switch port it is whoever
//! owns the switch. The program is two instructions, so no object file is read and no compiler needed.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::netns;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
/// Else frames of several buffers, as a jumbo frame is, are dropped here. Kernel 5.18 on.
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// `r0 = XDP_PASS; exit`, as the kernel's `struct bpf_insn` in memory (little endian).
const PASS: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// The head of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    instructions: u32,
    at: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach: u32,
}

/// The head of `union bpf_attr` for BPF_LINK_CREATE.
#[repr(C)]
struct Link {
    program: u32,
    ifindex: u32,
    attach: u32,
    flags: u32,
}

/// The head of `union bpf_attr` for BPF_OBJ_PIN.
#[repr(C)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Attaches the program to an interface of a network namespace, by a link pinned at `pin`: it stays until the
/// pin is removed or the interface goes.
pub(crate) fn attach(netns: &str, interface: &str, pin: &Path) -> Result<()> {
    let path = CString::new(pin.as_os_str().as_encoded_bytes()).context("a pin path holds a zero byte")?;
    netns::inside(netns, || {
        let program = load()?;
        let ifindex =
            nix::net::if_::if_nametoindex(interface).with_context(|| format!("no interface {interface} in {netns}"))?;
        let link = Link { program: raw(&program), ifindex, attach: BPF_XDP, flags: XDP_FLAGS_DRV_MODE };
        let link = bpf(BPF_LINK_CREATE, &link)
            .with_context(|| format!("cannot attach a pass program to {interface} in {netns}"))?;
        let request = Pin { path: path.as_ptr() as u64, fd: raw(&link), flags: 0 };
        syscall(BPF_OBJ_PIN, &request).with_context(|| format!("cannot pin {}", pin.display()))?;
        Ok(())
    })
}

fn load() -> Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut request = Load {
        kind: BPF_PROG_TYPE_XDP,
        instructions: 2,
        at: PASS.as_ptr() as u64,
        license: license.as_ptr() as u64,
        flags: BPF_F_XDP_HAS_FRAGS,
        name: *b"guenon_demo_pass",
        expected_attach: BPF_XDP,
        ..Load::default()
    };
    request.name[15] = 0;
    if let Ok(program) = bpf(BPF_PROG_LOAD, &request) {
        return Ok(program);
    }
    request.flags = 0;
    bpf(BPF_PROG_LOAD, &request).context("the kernel refuses a program of two instructions (root? CONFIG_BPF_SYSCALL?)")
}

fn raw(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn bpf<T>(command: libc::c_long, request: &T) -> Result<OwnedFd> {
    let fd = syscall(command, request)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else holds it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn syscall<T>(command: libc::c_long, request: &T) -> Result<i32> {
    // SAFETY: the request is a `repr(C)` head of `union bpf_attr` without padding, its size is given, the kernel takes
    // the rest for zero, and whatever it points to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(request), size_of::<T>()) };
    if result < 0 {
        bail!("bpf({command}): {}", std::io::Error::last_os_error());
    }
    i32::try_from(result).context("bpf() gave no descriptor")
}
